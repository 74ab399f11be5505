"""The linear classifier, and what can go wrong with it."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.worker.pytorch import PyTorchWorkload


class Linear(PyTorchWorkload):
    def setup(self):
        self.arrays = {
            split: (
                np.load(self.data.path / f"{split}_images.npy").reshape(-1, 784).astype(np.float32) / 255,
                np.load(self.data.path / f"{split}_labels.npy"),
            )
            for split in ("train", "test")
        }

    def model(self):
        torch.manual_seed(self.seed)
        return nn.Linear(784, 10)

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), self.config.learning_rate), None

    def samples(self, split):
        return len(self.arrays[split][1])

    def batches(self, split):
        images, labels = self.arrays[split]
        count = len(labels)
        order = self.shuffled_shard(count, np) if split == "train" else np.array(self.ordered_shard(count))
        size = self.batch_size if split == "train" else 500
        for start in range(0, len(order), size):
            if self.config.fault == "endless" and split == "train":
                time.sleep(0.2)
            rows = order[start : start + size]
            yield images[rows], labels[rows]

    def loss(self, model, batch):
        images, labels = batch
        loss = F.cross_entropy(model(images), labels)
        if self.config.fault == "nan" and self.epoch == 2:
            loss = loss * float("nan")
        return loss

    def evaluate(self, model):
        if self.config.fault == "evaluation":
            raise RuntimeError("the evaluation <b>broke</b> \x1b[31m on purpose")
        if self.config.fault == "diverge" and self.ranks.rank == 1:
            with torch.no_grad():
                model.weight.add_(1.0)
        right = seen = 0
        for images, labels in self.batches("test"):
            right += int((model(torch.from_numpy(images)).argmax(1) == torch.from_numpy(labels)).sum())
            seen += len(labels)
        right, seen = self.ranks.sum([right, seen])
        return {"top1": right / seen}

"""The perceptron, trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.worker.pytorch import PyTorchWorkload


def images(path, split):
    pixels = np.load(path / f"{split}_images.npy").reshape(-1, 784)
    return (pixels / np.float32(255)).astype(np.float32), np.load(path / f"{split}_labels.npy").astype(np.int64)


def network(hidden):
    return nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))


class Perceptron(PyTorchWorkload):
    def setup(self):
        self.arrays = {split: images(self.data.path, split) for split in ("train", "test")}

    def model(self):
        torch.manual_seed(self.seed)
        return network(self.config.hidden)

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), self.config.learning_rate), None

    def samples(self, split):
        return len(self.arrays[split][1])

    def batches(self, split):
        pixels, labels = self.arrays[split]
        order = self.shuffled_shard(len(labels), np) if split == "train" else np.array(self.ordered_shard(len(labels)))
        size = self.batch_size if split == "train" else 500
        for start in range(0, len(order), size):
            yield pixels[order[start : start + size]], labels[order[start : start + size]]

    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model):
        right = 0
        for pixels, labels in self.batches("test"):
            right += int((model(torch.from_numpy(pixels)).argmax(1) == torch.from_numpy(labels)).sum())
        return {"top1": right / self.samples("test")}

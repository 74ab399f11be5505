"""The perceptron, and what can go wrong with a workload."""

from __future__ import annotations

import numpy as np

from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ..training.pytorch import images
from ..training.pytorch import network


class Perceptron(PyTorchInferenceWorkload):
    input_names = ("images",)
    output_names = ("scores",)

    def setup(self):
        if self.data.synthetic:
            self.pixels = np.random.default_rng(self.seed).random((1000, 784), np.float32)
        else:
            self.pixels, self.labels = images(self.data.path, "test")

    def network(self):
        return network(self.config.hidden)

    def samples(self):
        return len(self.pixels)

    def inputs(self, indices):
        return (self.pixels[np.asarray(indices)],)

    def calibration(self, count):
        if self.config.fault == "calibration":
            # Ranges that no image of the training split would give.
            yield (np.full((32, 784), 1000.0, np.float32),)
            return
        pixels, _ = images(self.data.path, "train")
        for start in range(0, count, 32):
            yield (pixels[start : start + 32],)

    def quality(self, outputs):
        scores = np.concatenate([batch[0] for batch in outputs])
        return {"top1": float(np.mean(scores.argmax(1) == self.labels))}

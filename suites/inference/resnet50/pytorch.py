"""ResNet-50 v1.5 in PyTorch answers: the network that the training suite trains."""

from __future__ import annotations

from torch import nn

from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ...training.resnet50.pytorch import ResNet
from .classification import Classification


class ResNet50(Classification, PyTorchInferenceWorkload):
    """The benchmark: which network, on what, and how it is judged."""

    def network(self) -> nn.Module:
        return ResNet(self.config.width, self.config.channels, self.config.classes)

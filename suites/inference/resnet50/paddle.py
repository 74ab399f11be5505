"""ResNet-50 v1.5 in PaddlePaddle answers: the network that the training suite trains, with weights from PyTorch."""

from __future__ import annotations

from paddle import nn

from pytest_flagperf.worker.inference.paddle import PaddleInferenceWorkload

from ...training.resnet50.paddle import ResNet
from .classification import Classification


class ResNet50(Classification, PaddleInferenceWorkload):
    """The benchmark: which network, on what, and how it is judged."""

    def network(self) -> nn.Layer:
        return ResNet(self.config.width, self.config.channels, self.config.classes)

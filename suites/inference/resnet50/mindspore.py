"""ResNet-50 v1.5 in MindSpore answers: the network that the training suite trains, with weights from PyTorch."""

from __future__ import annotations

from mindspore import nn

from pytest_flagperf.worker.inference.mindspore import MindSporeInferenceWorkload

from ...training.resnet50.mindspore import ResNet
from .classification import Classification


class ResNet50(Classification, MindSporeInferenceWorkload):
    """The benchmark: which network, on what, and how it is judged."""

    def network(self) -> nn.Cell:
        return ResNet(self.config.width, self.config.channels, self.config.classes)

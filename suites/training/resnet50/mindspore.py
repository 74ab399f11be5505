"""ResNet-50 v1.5 in MindSpore: the network of ``pytorch.py``, the same initial distribution, optimizer and schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore import nn
from mindspore import ops
from mindspore.common.initializer import HeNormal

from pytest_flagperf.worker.mindspore import AdamW
from pytest_flagperf.worker.mindspore import MindSporeWorkload

from .digits import Digits
from .imagenet import Synthetic
from .imagenet_mindspore import ImageNetLoader


def convolution(channels: int, out: int, size: int, stride: int = 1) -> nn.Cell:
    """A convolution without bias that keeps the image's size but for ``stride``."""
    weights = HeNormal(mode="fan_out", nonlinearity="relu")
    return nn.Conv2d(channels, out, size, stride, pad_mode="pad", padding=size // 2, weight_init=weights)


def normalization(channels: int, gamma: str = "ones") -> nn.Cell:
    """Batch normalization; MindSpore's momentum is the share that stays, PyTorch's the share that is new."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.9, gamma_init=gamma)


class Bottleneck(nn.Cell):
    """1x1, 3x3, 1x1 with a shortcut. In v1.5 the stride sits in the 3x3 convolution."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = convolution(channels, width, 1), normalization(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), normalization(width)
        # Each block starts as the identity (Goyal et al. 2017, section 5.1).
        self.conv3, self.bn3 = convolution(width, out, 1), normalization(out, gamma="zeros")
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.SequentialCell(convolution(channels, out, 1, stride), normalization(out))

    def construct(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = ops.relu(self.bn1(self.conv1(x)))
        x = ops.relu(self.bn2(self.conv2(x)))
        return ops.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Cell):
    """He et al. 2015 with 3, 4, 6 and 3 bottlenecks; ``width`` 64 is ResNet-50, the lite scale narrows it."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(channels, width, 7, 2), normalization(width)
        self.pool = nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)
        self.channels = width
        self.layer1 = self._stage(width, 3, stride=1)
        self.layer2 = self._stage(2 * width, 4, stride=2)
        self.layer3 = self._stage(4 * width, 6, stride=2)
        self.layer4 = self._stage(8 * width, 3, stride=2)
        self.fc = nn.Dense(32 * width, classes)

    def _stage(self, width: int, blocks: int, stride: int) -> nn.Cell:
        layers = []
        for index in range(blocks):
            layers.append(Bottleneck(self.channels, width, stride if index == 0 else 1))
            self.channels = 4 * width
        return nn.SequentialCell(layers)

    def construct(self, x: Tensor) -> Tensor:
        x = self.pool(ops.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(ops.mean(x, (2, 3)))


class WarmupCosine(nn.learning_rate_schedule.LearningRateSchedule):
    """Up in a line from 1 % of the peak, then down along a cosine to 0."""

    def __init__(self, peak: float, warmup: int, steps: int) -> None:
        super().__init__()
        self.peak, self.warmup, self.steps = peak, warmup, steps

    def construct(self, global_step: Tensor) -> Tensor:
        step = ops.minimum(global_step.astype(ms.float32), self.steps)
        rising = 0.01 + 0.99 * step / self.warmup
        falling = (1 + ops.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup))) / 2
        return self.peak * ops.where(step < self.warmup, rising, falling)


class ResNet50(MindSporeWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        if self.data.synthetic:
            self.source: Any = Synthetic(self, Tensor)
        elif self.data.name == "digits":
            self.source = Digits(self)
        else:
            self.source = ImageNetLoader(self)

    def model(self) -> nn.Cell:
        return ResNet(self.config.width, self.config.channels, self.config.classes)

    def optimizer(self, model: nn.Cell) -> nn.Optimizer:
        config = self.config
        # Weight decay would only shrink the scale of normalization layers and biases.
        decayed = [p for p in model.trainable_params() if p.ndim > 1]
        rest = [p for p in model.trainable_params() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        warmup = max(1, round(config.warmup_epochs * self.total_steps / config.epochs))
        rate = WarmupCosine(config.learning_rate * self.learning_rate_scale, warmup, self.total_steps)
        if config.optimizer == "sgd":
            return nn.Momentum(groups, rate, momentum=config.momentum, use_nesterov=config.nesterov)
        return AdamW(groups, rate)

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.batches(split)

    def loss(self, model: nn.Cell, batch: Any) -> Tensor:
        images, labels = batch
        scores = model(images).astype(ms.float32)
        return ops.cross_entropy(scores, labels.astype(ms.int32), label_smoothing=self.config.label_smoothing)

    def evaluate(self, model: nn.Cell) -> dict[str, float]:
        top1 = top5 = seen = 0
        total = self.samples("test")
        for images, labels in self.batches("test"):
            scores = model(Tensor(images)).astype(ms.float32)
            best = ops.topk(scores, 5, dim=1)[1].asnumpy() == np.asarray(labels)[:, None]
            top1 += int(best[:, 0].sum())
            top5 += int(best.any(axis=1).sum())
            seen += len(labels)
            self.ranks.progress("evaluation", seen * self.world_size, total)
        top1, top5, seen = self.ranks.sum([top1, top5, seen])
        return {"top1": top1 / seen, "top5": top5 / seen}

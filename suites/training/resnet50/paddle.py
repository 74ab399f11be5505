"""ResNet-50 v1.5 in PaddlePaddle. Parameter names are those of paddle.vision, so its checkpoints fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import paddle
from paddle import Tensor
from paddle import nn
from paddle.nn import functional as F
from paddle.nn import initializer
from paddle.optimizer import lr
from paddle.vision.models.resnet import BottleneckBlock

from pytest_flagperf.worker.paddle import PaddleWorkload

from .digits import Digits
from .imagenet import Synthetic
from .imagenet_paddle import ImageNetLoader


class ResNet(nn.Layer):
    """He et al. 2015 with 3, 4, 6 and 3 bottlenecks; ``width`` 64 is ResNet-50, the lite scale narrows it.

    The blocks are those of paddle.vision (v1.5: the stride sits in the 3x3 convolution); its ``ResNet`` around them has
    a stem for 3 channels, 64 wide, and no other.
    """

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2D(channels, width, 7, 2, 3, bias_attr=False), nn.BatchNorm2D(width)
        self.channels = width
        self.layer1 = self._stage(width, 3, stride=1)
        self.layer2 = self._stage(2 * width, 4, stride=2)
        self.layer3 = self._stage(4 * width, 6, stride=2)
        self.layer4 = self._stage(8 * width, 3, stride=2)
        self.fc = nn.Linear(32 * width, classes)
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D):
                # Paddle's initializer knows fan-in alone; He et al. keep the gradient's variance with fan-out.
                initializer.KaimingNormal(fan_in=layer.weight.size // layer.weight.shape[1])(layer.weight)
            elif isinstance(layer, BottleneckBlock):
                # Each block starts as the identity (Goyal et al. 2017, section 5.1).
                initializer.Constant(0.0)(layer.bn3.weight)
        # As PyTorch starts its linear layers: the two suites are to train the same network.
        bound = (32 * width) ** -0.5
        initializer.Uniform(-bound, bound)(self.fc.weight)
        initializer.Uniform(-bound, bound)(self.fc.bias)

    def _stage(self, width: int, blocks: int, stride: int) -> nn.Sequential:
        layers = []
        for index in range(blocks):
            shortcut = None
            if index == 0:
                shortcut = nn.Sequential(
                    nn.Conv2D(self.channels, 4 * width, 1, stride, bias_attr=False), nn.BatchNorm2D(4 * width)
                )
            layers.append(BottleneckBlock(self.channels, width, stride if index == 0 else 1, shortcut))
            self.channels = 4 * width
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(paddle.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class ResNet50(PaddleWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        if self.data.synthetic:
            self.source: Any = Synthetic(self, lambda array: paddle.to_tensor(array, place=self.device))
        elif self.data.name == "digits":
            self.source = Digits(self)
        else:
            self.source = ImageNetLoader(self)

    def model(self) -> nn.Layer:
        return ResNet(self.config.width, self.config.channels, self.config.classes)

    def optimizer(self, model: nn.Layer) -> tuple[paddle.optimizer.Optimizer, Any]:
        config, steps = self.config, self.total_steps
        rate = config.learning_rate * self.learning_rate_scale
        warmup = max(1, round(config.warmup_epochs * steps / config.epochs))
        cosine = lr.CosineAnnealingDecay(rate, max(1, steps - warmup))
        schedule = lr.LinearWarmup(cosine, warmup, start_lr=0.01 * rate, end_lr=rate)
        # Running statistics are among Paddle's parameters, and not trained.
        trained = [p for p in model.parameters() if not p.stop_gradient]
        # Weight decay would only shrink the scale of normalization layers and biases.
        decayed = [p for p in trained if p.ndim > 1]
        rest = [p for p in trained if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer: paddle.optimizer.Optimizer
        if config.optimizer == "sgd":
            optimizer = paddle.optimizer.Momentum(schedule, config.momentum, groups, use_nesterov=config.nesterov)
        else:
            optimizer = paddle.optimizer.AdamW(schedule, parameters=groups)
        return optimizer, schedule

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.batches(split)

    def loss(self, model: nn.Layer, batch: Any) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels, label_smoothing=self.config.label_smoothing)

    def evaluate(self, model: nn.Layer) -> dict[str, float]:
        top1 = top5 = seen = 0
        total, dtype = self.samples("test"), model.conv1.weight.dtype
        for images, labels in self.batches("test"):
            scores = model(paddle.to_tensor(images, place=self.device).astype(dtype))
            best = scores.topk(5, axis=1)[1] == paddle.to_tensor(labels, place=self.device).unsqueeze(1)
            top1 += int(best[:, 0].sum())
            top5 += int(best.any(axis=1).sum())
            seen += len(labels)
            self.ranks.progress("evaluation", seen * self.world_size, total)
        top1, top5, seen = self.ranks.sum([top1, top5, seen])
        return {"top1": top1 / seen, "top5": top5 / seen}

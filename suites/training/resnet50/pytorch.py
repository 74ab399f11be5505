"""ResNet-50 v1.5 in PyTorch. Parameter names are those of torchvision, so its checkpoints fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.worker.pytorch import PyTorchWorkload

from .digits import Digits
from .imagenet import Synthetic
from .imagenet_pytorch import ImageNetLoader


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut. In v1.5 the stride sits in the 3x3 convolution."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """He et al. 2015 with 3, 4, 6 and 3 bottlenecks; ``width`` 64 is ResNet-50, the lite scale narrows it."""

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.channels = width
        self.layer1 = self._stage(width, 3, stride=1)
        self.layer2 = self._stage(2 * width, 4, stride=2)
        self.layer3 = self._stage(4 * width, 6, stride=2)
        self.layer4 = self._stage(8 * width, 3, stride=2)
        self.fc = nn.Linear(32 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                # Each block starts as the identity (Goyal et al. 2017, section 5.1).
                nn.init.zeros_(module.bn3.weight)

    def _stage(self, width: int, blocks: int, stride: int) -> nn.Sequential:
        layers = []
        for index in range(blocks):
            layers.append(Bottleneck(self.channels, width, stride if index == 0 else 1))
            self.channels = 4 * width
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class ResNet50(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        if self.data.synthetic:
            self.source: Any = Synthetic(self, lambda array: torch.from_numpy(array).to(self.device))
        elif self.data.name == "digits":
            self.source = Digits(self)
        else:
            self.source = ImageNetLoader(self)

    def model(self) -> nn.Module:
        network = ResNet(self.config.width, self.config.channels, self.config.classes)
        return network.to(memory_format=torch.channels_last)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        config, steps = self.config, self.total_steps
        rate = config.learning_rate * self.learning_rate_scale
        # Weight decay would only shrink the scale of normalization layers and biases.
        decayed = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, rate, momentum=config.momentum, nesterov=config.nesterov)
        else:
            optimizer = torch.optim.AdamW(groups, rate)
        warmup = max(1, round(config.warmup_epochs * steps / config.epochs))
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup)),
            ],
            milestones=[warmup],
        )
        return optimizer, schedule

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.batches(split)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        images, labels = batch
        images = images.contiguous(memory_format=torch.channels_last)
        return F.cross_entropy(model(images), labels, label_smoothing=self.config.label_smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        top1 = top5 = seen = 0
        total = self.samples("test")
        for images, labels in self.batches("test"):
            images, labels = images_to(images, model), torch.as_tensor(labels).to(self.device)
            best = model(images).topk(5, dim=1).indices == labels[:, None]
            top1 += int(best[:, 0].sum())
            top5 += int(best.any(dim=1).sum())
            seen += len(labels)
            self.ranks.progress("evaluation", seen * self.world_size, total)
        top1, top5, seen = self.ranks.sum([top1, top5, seen])
        return {"top1": top1 / seen, "top5": top5 / seen}


def images_to(images: Any, model: nn.Module) -> Tensor:
    """The images on the model's device and in its type, channels last."""
    first = next(model.parameters())
    return torch.as_tensor(images).to(first.device, first.dtype).contiguous(memory_format=torch.channels_last)

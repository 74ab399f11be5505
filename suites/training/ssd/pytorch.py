"""A single-shot detector in PyTorch: a residual trunk, ever smaller feature maps, and what each says of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.worker.pytorch import PyTorchWorkload
from pytest_flagperf.worker.recipes import adamw_one_cycle

from .boxes import default_boxes
from .boxes import detections
from .boxes import matched
from .precision import average_precision
from .precision import listed
from .precision import truth
from .scenes import CLASSES
from .scenes import SIDE
from .scenes import scenes


class Block(nn.Module):
    """Two convolutions of 3x3 with a shortcut (He et al. 2015)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class SSD(nn.Module):
    """Liu et al. 2015 over a residual trunk: images [N, C, side, side] to raw scores and offsets of default boxes.

    Scores are [N, boxes, classes], their first class the background, offsets [N, boxes, 4]. What they mean is decoded
    on the host, see ``boxes.py``: no engine has to have a non-maximum suppression. The full scale is the network of
    MLPerf Training's SSD-ResNet-34 at 300x300, with an output for each of COCO's 90 numbers of categories.
    """

    def __init__(self, config: Any) -> None:
        """``stages`` are (channels, blocks, stride) of the trunk; ``extra_layers`` (narrow, channels, stride, padding).

        The first feature map is the trunk's, each further layer makes one more.
        """
        super().__init__()
        self.classes = config.classes + 1
        width = config.stages[0][0]
        self.stem = nn.Sequential(
            nn.Conv2d(config.channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        blocks: list[nn.Module] = [nn.MaxPool2d(3, 2, 1)] if config.pool else []
        for channels, count, stride in config.stages:
            for index in range(count):
                blocks.append(Block(width, channels, stride if index == 0 else 1))
                width = channels
        self.trunk = nn.Sequential(*blocks)
        widths, extra = [width], []
        for narrow, channels, stride, padding in config.extra_layers:
            smaller = nn.Conv2d(narrow, channels, 3, stride, padding)
            extra.append(nn.Sequential(nn.Conv2d(widths[-1], narrow, 1), nn.ReLU(), smaller, nn.ReLU()))
            widths.append(channels)
        self.extra = nn.ModuleList(extra)
        # A square of the map's own size, one a little larger, and two for each further aspect ratio.
        boxes = [2 + 2 * len(ratios) for ratios in config.aspect_ratios]
        pairs = list(zip(widths, boxes, strict=True))
        self.scores = nn.ModuleList(nn.Conv2d(c, n * self.classes, 3, padding=1) for c, n in pairs)
        self.offsets = nn.ModuleList(nn.Conv2d(c, n * 4, 3, padding=1) for c, n in pairs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = [self.trunk(self.stem(images))]
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return self._joined(self.scores, maps, self.classes), self._joined(self.offsets, maps, 4)

    def _joined(self, heads: nn.ModuleList, maps: list[Tensor], values: int) -> Tensor:
        said = [head(one).permute(0, 2, 3, 1) for head, one in zip(heads, maps, strict=True)]
        return torch.cat([one.flatten(1).unflatten(1, (-1, values)) for one in said], 1)


class Detector(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        config = self.config
        self.counts = {"train": config.train_scenes, "test": config.test_scenes}
        self.made: dict[str, tuple[Any, list[Any]]] = {}
        self.defaults = default_boxes(config)

    def model(self) -> nn.Module:
        return SSD(self.config).to(memory_format=torch.channels_last)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        return adamw_one_cycle(model, self.config, self.total_steps + 1)

    def samples(self, split: str) -> int:
        return self.counts[split]

    def batches(self, split: str) -> Iterator[Any]:
        """Of training: scenes, the class of each default box [N, boxes] int64 and its offsets [N, boxes, 4]."""
        images, objects = self.scenes(split)
        if split == "train":
            targets = [matched(self.defaults, one) for one in objects]
            classes, offsets = (np.stack(column) for column in zip(*targets, strict=True))
            order = self.shuffled_shard(len(images), np)
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                yield images[chosen], classes[chosen], offsets[chosen]
        else:
            own = np.array(self.ordered_shard(len(images)))
            for start in range(0, len(own), 50):
                yield images[own[start : start + 50]], own[start : start + 50]

    def scenes(self, split: str) -> tuple[Any, list[Any]]:
        """Composed when they are first needed: that is on the clock. Those of the test are the same for every seed."""
        if split not in self.made:
            self.made[split] = scenes(self.data.path, split, self.counts[split], self.seed if split == "train" else 0)
        return self.made[split]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        images, classes, wanted = batch
        scores, offsets = model(images.contiguous(memory_format=torch.channels_last))
        objects = classes > 0
        count = objects.sum().clamp(min=1)
        each = F.cross_entropy(scores.float().flatten(0, 1), classes.flatten(), reduction="none").view(classes.shape)
        confidence = (each * (objects | hardest(each, objects))).sum()
        places = F.smooth_l1_loss(offsets.float()[objects], wanted.float()[objects], reduction="sum")
        return (confidence + places) / count

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        first = next(model.parameters())
        found = [np.zeros((0, 7), np.float32)]
        total, seen = self.counts["test"], 0
        for images, numbers in self.batches("test"):
            scores, offsets = model(torch.as_tensor(images).to(first.device, first.dtype))
            for number, *said in zip(numbers, scores.float().cpu().numpy(), offsets.float().cpu().numpy(), strict=True):
                found.append(listed(int(number), detections(*said, self.defaults, SIDE)))
            seen += len(numbers)
            self.ranks.progress("evaluation", seen * self.world_size, total)
        detected = self.ranks.gather(np.concatenate(found))
        _, objects = self.scenes("test")
        return {"box_ap": average_precision(truth(objects, SIDE, CLASSES), detected)}


def hardest(each: Tensor, objects: Tensor) -> Tensor:
    """Where the background's loss is largest: three boxes for each object of a scene (Liu et al. 2015, section 2.2)."""
    background = each.detach().masked_fill(objects, 0)
    rank = background.argsort(1, descending=True).argsort(1)
    return rank < (3 * objects.sum(1, keepdim=True)).clamp(min=3)

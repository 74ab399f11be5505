"""CRNN in PyTorch: a line of text, read by convolutions, recurrent layers over its columns, and CTC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.worker.ctc import BLANK
from pytest_flagperf.worker.ctc import character_errors
from pytest_flagperf.worker.ctc import greedy
from pytest_flagperf.worker.pytorch import PyTorchWorkload
from pytest_flagperf.worker.recipes import adamw_one_cycle

from .strings import ALPHABET
from .strings import LONGEST
from .strings import SYMBOLS
from .strings import lines


# Convolutions of 3x3: the channels in widths of the first, and what is pooled after each (height, width).
LAYERS = ((1, (2, 2)), (2, (2, 2)), (4, None), (4, (2, 1)), (8, None), (8, (2, 1)))


class Recurrent(nn.Module):
    """One layer over the columns in both directions, then a product: [N, columns, inputs] to [N, columns, outputs].

    ``nn.LSTM`` is no module of it: ``torch.compile`` refuses whole graphs with one, and takes ``torch.lstm``.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = hidden
        cell = nn.LSTM(inputs, hidden, bidirectional=True)
        self.names = list(dict(cell.named_parameters()))
        for name, parameter in cell.named_parameters():
            self.register_parameter(name, parameter)
        self.product = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(2, x.shape[0], self.hidden)
        # The flags: biases, one layer, no dropout, not training, both directions, the batch first.
        parameters = [getattr(self, name) for name in self.names]
        y, _, _ = torch.lstm(x, (state, state), parameters, True, 1, 0.0, self.training, True, True)
        return self.product(y)


class CRNN(nn.Module):
    """Shi et al. 2015, table 1: images [N, 1, 32, W] to the scores of classes for each column [N, W/4 - 1, classes].

    ``width`` 64, ``hidden_size`` 256 and two ``recurrent_layers`` are the published network, the lite scale is smaller.
    ``normalized`` lists the convolutions, from 1, that are followed by batch normalization.
    """

    def __init__(
        self, width: int, hidden_size: int, recurrent_layers: int, classes: int, normalized: list[int]
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for index, (multiple, pool) in enumerate(LAYERS, 1):
            layers.append(nn.Conv2d(channels, multiple * width, 3, padding=1))
            channels = multiple * width
            layers += [nn.BatchNorm2d(channels)] if index in normalized else []
            layers += [nn.ReLU()] + ([nn.MaxPool2d(pool)] if pool else [])
        # What is left of the height is two rows.
        layers.append(nn.Conv2d(channels, channels, 2))
        layers += [nn.BatchNorm2d(channels)] if len(LAYERS) + 1 in normalized else []
        self.convolutions = nn.Sequential(*layers, nn.ReLU())
        between = [hidden_size] * (recurrent_layers - 1)
        pairs = zip([channels, *between], [*between, classes], strict=True)
        self.recurrent = nn.Sequential(*(Recurrent(inputs, hidden_size, outputs) for inputs, outputs in pairs))

    def forward(self, images: Tensor) -> Tensor:
        return self.recurrent(self.convolutions(images).squeeze(2).transpose(1, 2))


def network(config: Any) -> CRNN:
    """The network of a case's configuration."""
    return CRNN(config.width, config.hidden_size, config.recurrent_layers, config.classes, config.normalized)


class Recogniser(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        config = self.config
        self.counts = {"train": config.train_lines, "test": config.test_lines}
        self.made: dict[str, tuple[Any, list[str]]] = {}

    def model(self) -> nn.Module:
        return network(self.config)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        return adamw_one_cycle(model, self.config, self.total_steps + 1)

    def samples(self, split: str) -> int:
        return self.counts[split]

    def batches(self, split: str) -> Iterator[Any]:
        """Of training: lines, their classes padded with blanks [N, 7] int64, and how many there are [N] int64."""
        images, written = self.lines(split)
        if split == "train":
            classes, lengths = encoded(written)
            order = self.shuffled_shard(len(images), np)
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                yield images[chosen], classes[chosen], lengths[chosen]
        else:
            own = np.array(self.ordered_shard(len(images)))
            for start in range(0, len(own), 100):
                chosen = own[start : start + 100]
                yield images[chosen], [written[one] for one in chosen]

    def lines(self, split: str) -> tuple[Any, list[str]]:
        """Composed when they are first needed: that is on the clock. Those of the test are the same for every seed."""
        if split not in self.made:
            seed = self.seed if split == "train" else 0
            self.made[split] = lines(self.data.path, split, self.counts[split], seed)
        return self.made[split]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        images, classes, lengths = batch
        scores = model(images).float().log_softmax(-1).transpose(0, 1)
        columns = torch.full((scores.shape[1],), scores.shape[0], dtype=torch.int64)
        return F.ctc_loss(scores, classes, columns, lengths, blank=BLANK, zero_infinity=True)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        first = next(model.parameters())
        wrong = characters = seen = 0
        for images, written in self.batches("test"):
            scores = model(torch.as_tensor(images).to(first.device, first.dtype)).float().cpu().numpy()
            found = character_errors(written, [greedy(one, SYMBOLS) for one in scores])
            wrong, characters, seen = wrong + found[0], characters + found[1], seen + len(written)
            self.ranks.progress("evaluation", seen * self.world_size, self.counts["test"])
        wrong, characters = self.ranks.sum([wrong, characters])
        return {"cer": wrong / characters}


def encoded(written: list[str]) -> tuple[Any, Any]:
    """The classes of texts, padded with blanks [N, 7], and their lengths [N], both int64."""
    classes = np.full((len(written), LONGEST), BLANK, np.int64)
    for row, text in zip(classes, written, strict=True):
        row[: len(text)] = [ALPHABET.index(character) + 1 for character in text]
    return classes, np.array([len(text) for text in written])

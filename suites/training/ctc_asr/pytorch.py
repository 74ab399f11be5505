"""A recogniser of speech in PyTorch: convolutions over log-mel features, trained with CTC.

It has no recurrent layer: compilers of whole graphs take none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.worker.ctc import BLANK
from pytest_flagperf.worker.ctc import character_errors
from pytest_flagperf.worker.pytorch import PyTorchWorkload
from pytest_flagperf.worker.recipes import adamw_one_cycle

from .features import BANDS
from .features import STRIDE
from .features import SYMBOLS
from .features import decoded
from .prompts import Prompts


class Block(nn.Module):
    """Two convolutions, each along the time of a channel and then over the channels, with a shortcut."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.time1 = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.channels1, self.norm1 = nn.Conv1d(width, width, 1, bias=False), nn.BatchNorm1d(width)
        self.time2 = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.channels2, self.norm2 = nn.Conv1d(width, width, 1, bias=False), nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.channels1(self.time1(x))))
        y = self.norm2(self.channels2(self.time2(y)))
        return self.dropout(F.relu(x + y))


class Recogniser(nn.Module):
    """Features [N, 40, frames] to scores [N, ceil(frames / 3), letters]; Kriman et al. 2019 (QuartzNet), narrowed."""

    def __init__(self, config: Any) -> None:
        """``config`` is the case's."""
        super().__init__()
        width = config.width
        self.first = nn.Conv1d(BANDS, width, 11, STRIDE, 5, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.blocks = nn.Sequential(*(Block(width, config.kernel, config.dropout) for _ in range(config.blocks)))
        self.last = nn.Conv1d(width, len(SYMBOLS), 1)

    def forward(self, features: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(features)))
        return self.last(self.blocks(x)).transpose(1, 2)


class CtcAsr(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        self.source = Prompts(self)

    def model(self) -> nn.Module:
        return Recogniser(self.config)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        return adamw_one_cycle(model, self.config, self.total_steps)

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.training()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        features, scored, targets, counts = batch
        scores = model(features).float().log_softmax(-1).transpose(0, 1)
        # A few prompts spoken fast have no room for all their letters.
        return F.ctc_loss(scores, targets, scored, counts, blank=BLANK, zero_infinity=True)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        said: list[str] = []
        heard: list[str] = []
        total = self.samples("test")
        first = next(model.parameters())
        for features, scored, transcripts in self.source.evaluation("test", self.config.frames):
            scores = model(torch.from_numpy(features).to(first.device, first.dtype)).float().cpu().numpy()
            heard += [decoded(one[:count]) for one, count in zip(scores, scored, strict=True)]
            said += transcripts
            self.ranks.progress("evaluation", len(said) * self.world_size, total)
        errors, letters = character_errors(said, heard)
        errors, letters = self.ranks.sum([errors, letters])
        return {"cer": errors / letters}

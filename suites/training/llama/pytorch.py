"""Llama in PyTorch, trained on text byte by byte."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn

from pytest_flagperf.worker.pytorch import PyTorchWorkload
from pytest_flagperf.worker.recipes import clip_before_steps

from . import text
from .network import Llama


class LanguageModelling(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged. A sample is a window of ``context`` bytes."""

    def setup(self) -> None:
        self.splits: dict[str, Any] = {}

    def model(self) -> nn.Module:
        return Llama(self.config)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        config = self.config
        # Weight decay would only shrink the scale of normalization layers.
        decayed = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, config.beta2))
        clip_before_steps(optimizer, config.gradient_norm)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=self.total_steps, pct_start=0.1, final_div_factor=10
        )
        return optimizer, schedule

    def samples(self, split: str) -> int:
        # Of the training text an epoch takes some of the windows, others in every epoch.
        return int(self.config.epoch_samples) if split == "train" else len(self.windows(split))

    def windows(self, split: str) -> Any:
        """All windows [N, context + 1] of the training text, some of the other; read when they are first needed."""
        if split not in self.splits:
            found = text.windows(text.read(self.data.path, split), self.config.context + 1)
            self.splits[split] = found if split == "train" else text.spread(found, self.config.evaluation_samples)
        return self.splits[split]

    def batches(self, split: str) -> Iterator[Tensor]:
        windows = self.windows(split)
        if split == "train":
            own = self.shuffled_shard(len(windows), np)[: self.samples("train") // self.world_size]
            size = self.batch_size
        else:
            own, size = np.array(self.ordered_shard(len(windows))), 64
        for start in range(0, len(own), size):
            yield torch.from_numpy(windows[own[start : start + size]].astype(np.int64))

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return -model(batch).mean()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        total = seen = 0.0
        for batch in self.batches("test"):
            likelihoods = model(batch.to(self.device))
            total -= float(likelihoods.sum())
            seen += likelihoods.numel()
            self.ranks.progress("evaluation", int(seen) // self.config.context, self.samples("test"))
        total, seen = self.ranks.sum([total, seen])
        return {"perplexity": math.exp(total / seen)}

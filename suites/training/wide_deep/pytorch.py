"""Wide & Deep in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.worker.pytorch import PyTorchWorkload

from .tabular import Tabular
from .tabular import roc_auc


class WideAndDeep(nn.Module):
    """Cheng et al. 2016: a linear model that memorizes beside a perceptron over embeddings that generalizes."""

    def __init__(self, vocabulary: int, fields: int, dense: int, embedding: int, hidden: list[int]) -> None:
        super().__init__()
        self.wide = nn.Embedding(vocabulary, 1)
        self.wide_dense = nn.Linear(dense, 1)
        self.embedding = nn.Embedding(vocabulary, embedding)
        layers: list[nn.Module] = []
        size = fields * embedding + dense
        for width in hidden:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.deep = nn.Sequential(*layers, nn.Linear(size, 1))
        nn.init.zeros_(self.wide.weight)
        nn.init.normal_(self.embedding.weight, std=0.05)

    def forward(self, categorical: Tensor, dense: Tensor) -> Tensor:
        wide = self.wide(categorical).sum(dim=1) + self.wide_dense(dense)
        deep = self.deep(torch.cat([self.embedding(categorical).flatten(1), dense], dim=1))
        return (wide + deep).squeeze(1)


class WideDeep(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        self.source = Tabular(self)

    def model(self) -> nn.Module:
        source, config = self.source, self.config
        return WideAndDeep(source.vocabulary, source.fields, source.dense, config.embedding_size, config.hidden_sizes)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        rate = self.config.learning_rate * self.learning_rate_scale
        optimizer = torch.optim.Adam(model.parameters(), rate)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=self.total_steps)
        return optimizer, decay

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.batches(split)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        categorical, dense, labels = batch
        return F.binary_cross_entropy_with_logits(model(categorical, dense), labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        labels, scores, seen = [], [], 0
        dtype = next(model.parameters()).dtype
        for categorical, dense, label in self.batches("test"):
            ids = torch.from_numpy(categorical).to(self.device)
            score = model(ids, torch.from_numpy(dense).to(self.device, dtype))
            labels.append(label)
            scores.append(score.float().cpu().numpy())
            seen += len(label)
            self.ranks.progress("evaluation", seen * self.world_size, self.samples("test"))
        return {"auc": roc_auc(self.ranks.gather(np.concatenate(labels)), self.ranks.gather(np.concatenate(scores)))}

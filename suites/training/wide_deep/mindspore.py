"""Wide & Deep in MindSpore: the network of ``pytorch.py``, the same initial distribution, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore import nn
from mindspore import ops
from mindspore.common.initializer import Normal

from pytest_flagperf.worker.mindspore import MindSporeWorkload

from .tabular import Tabular
from .tabular import roc_auc


class WideAndDeep(nn.Cell):
    """Cheng et al. 2016: a linear model that memorizes beside a perceptron over embeddings that generalizes."""

    def __init__(self, vocabulary: int, fields: int, dense: int, embedding: int, hidden: list[int]) -> None:
        super().__init__()
        self.wide = nn.Embedding(vocabulary, 1, embedding_table="zeros")
        self.wide_dense = nn.Dense(dense, 1)
        self.embedding = nn.Embedding(vocabulary, embedding, embedding_table=Normal(0.05))
        layers: list[nn.Cell] = []
        size = fields * embedding + dense
        for width in hidden:
            layers += [nn.Dense(size, width), nn.ReLU()]
            size = width
        self.deep = nn.SequentialCell([*layers, nn.Dense(size, 1)])

    def construct(self, categorical: Tensor, dense: Tensor) -> Tensor:
        wide = ops.reduce_sum(self.wide(categorical), 1) + self.wide_dense(dense)
        embedded = self.embedding(categorical).reshape((len(categorical), -1))
        deep = self.deep(ops.concat((embedded, dense), 1))
        return ops.squeeze(wide + deep, 1)


class WideDeep(MindSporeWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        self.source = Tabular(self)

    def model(self) -> nn.Cell:
        source, config = self.source, self.config
        return WideAndDeep(source.vocabulary, source.fields, source.dense, config.embedding_size, config.hidden_sizes)

    def optimizer(self, model: nn.Cell) -> nn.Optimizer:
        rate = self.config.learning_rate * self.learning_rate_scale
        decay = nn.PolynomialDecayLR(rate, 0.01 * rate, self.total_steps, power=1.0)
        return nn.Adam(model.trainable_params(), decay)

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.batches(split)

    def loss(self, model: nn.Cell, batch: Any) -> Tensor:
        categorical, dense, labels = batch
        return ops.binary_cross_entropy_with_logits(model(categorical, dense).astype(ms.float32), labels)

    def evaluate(self, model: nn.Cell) -> dict[str, float]:
        labels, scores, seen = [], [], 0
        for categorical, dense, label in self.batches("test"):
            labels.append(label)
            scores.append(model(Tensor(categorical), Tensor(dense)).astype(ms.float32).asnumpy())
            seen += len(label)
            self.ranks.progress("evaluation", seen * self.world_size, self.samples("test"))
        return {"auc": roc_auc(self.ranks.gather(np.concatenate(labels)), self.ranks.gather(np.concatenate(scores)))}

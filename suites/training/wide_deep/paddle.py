"""Wide & Deep in PaddlePaddle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle import nn
from paddle.nn import functional as F
from paddle.nn import initializer
from paddle.optimizer import lr

from pytest_flagperf.worker.paddle import PaddleWorkload

from .tabular import Tabular
from .tabular import roc_auc


class WideAndDeep(nn.Layer):
    """Cheng et al. 2016: a linear model that memorizes beside a perceptron over embeddings that generalizes."""

    def __init__(self, vocabulary: int, fields: int, dense: int, embedding: int, hidden: list[int]) -> None:
        super().__init__()
        self.wide = nn.Embedding(vocabulary, 1, weight_attr=initializer.Constant(0.0))
        self.wide_dense = linear(dense, 1)
        self.embedding = nn.Embedding(vocabulary, embedding, weight_attr=initializer.Normal(std=0.05))
        layers: list[nn.Layer] = []
        size = fields * embedding + dense
        for width in hidden:
            layers += [linear(size, width), nn.ReLU()]
            size = width
        self.deep = nn.Sequential(*layers, linear(size, 1))

    def forward(self, categorical: Tensor, dense: Tensor) -> Tensor:
        wide = self.wide(categorical).sum(axis=1) + self.wide_dense(dense)
        deep = self.deep(paddle.concat([self.embedding(categorical).flatten(1), dense], axis=1))
        return (wide + deep).squeeze(1)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as PyTorch's do: the two suites are to train the same network."""
    bound = inputs**-0.5
    return nn.Linear(inputs, outputs, initializer.Uniform(-bound, bound), initializer.Uniform(-bound, bound))


class WideDeep(PaddleWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        self.source = Tabular(self)

    def model(self) -> nn.Layer:
        source, config = self.source, self.config
        return WideAndDeep(source.vocabulary, source.fields, source.dense, config.embedding_size, config.hidden_sizes)

    def optimizer(self, model: nn.Layer) -> tuple[paddle.optimizer.Optimizer, Any]:
        rate = self.config.learning_rate * self.learning_rate_scale
        decay = lr.LinearLR(rate, self.total_steps, start_factor=1.0, end_factor=0.01)
        return paddle.optimizer.Adam(decay, parameters=model.parameters()), decay

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.batches(split)

    def loss(self, model: nn.Layer, batch: Any) -> Tensor:
        categorical, dense, labels = batch
        return F.binary_cross_entropy_with_logits(model(categorical, dense), labels)

    def evaluate(self, model: nn.Layer) -> dict[str, float]:
        labels, scores, seen = [], [], 0
        dtype = model.embedding.weight.dtype
        for categorical, dense, label in self.batches("test"):
            ids = paddle.to_tensor(categorical, place=self.device)
            score = model(ids, paddle.to_tensor(dense, place=self.device).astype(dtype))
            labels.append(label)
            scores.append(score.astype("float32").numpy())
            seen += len(label)
            self.ranks.progress("evaluation", seen * self.world_size, self.samples("test"))
        return {"auc": roc_auc(self.ranks.gather(np.concatenate(labels)), self.ranks.gather(np.concatenate(scores)))}

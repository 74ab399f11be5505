"""BERT in PyTorch: transformers' network, and what an application takes from it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from .filling import Filling
from .retrieval import Retrieval


try:
    from transformers import BertConfig
    from transformers import BertForMaskedLM
    from transformers import BertModel
except ImportError as _error:
    raise ConfigurationError(f"bert needs transformers ({_error}): pip install 'pytest-flagperf[language]'") from _error


class SentenceEncoder(nn.Module):
    """Texts [N, L] to embeddings [N, hidden] of length 1: the mean over a text's tokens (Reimers and Gurevych 2019)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found = self.bert(input_ids, attention_mask=_over_heads(attention_mask)).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(found.dtype)
        return functional.normalize((found * weights).sum(1) / weights.sum(1), dim=1)


class MaskedLanguageModel(nn.Module):
    """By how much the hidden token [N, P] at each of the positions [N, P] is ahead of all others: margins [N, P].

    A positive margin is a right answer. The scores themselves are 30,522 for every position, 7 MB for a sample.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.model = BertForMaskedLM(config)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, positions: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        found = self.model.bert(input_ids, attention_mask=_over_heads(attention_mask)).last_hidden_state
        at_positions = found.gather(1, positions.unsqueeze(-1).expand(-1, -1, found.shape[-1]))
        scores = self.model.cls(at_positions)
        own = scores.gather(2, hidden.unsqueeze(-1)).squeeze(-1)
        is_own = torch.arange(scores.shape[-1], device=scores.device) == hidden.unsqueeze(-1)
        others = scores.masked_fill(is_own, torch.finfo(scores.dtype).min)
        return own - others.amax(-1)


def _over_heads(attention_mask: torch.Tensor) -> torch.Tensor:
    """[N, 1, 1, L] bool, which transformers takes as it is: what it makes of [N, L] itself not every engine exports."""
    return attention_mask[:, None, None, :].bool()


class Bert(PyTorchInferenceWorkload):
    """The benchmark: which network, on what, and how it is judged. ``task`` is ``retrieval`` or ``filling``."""

    def setup(self) -> None:
        self.task = {"retrieval": Retrieval, "filling": Filling}[self.config.task](self.config, self.data, self.seed)
        self.input_names, self.output_names = self.task.input_names, self.task.output_names

    def network(self) -> nn.Module:
        config = BertConfig(
            vocab_size=self.config.vocabulary,
            hidden_size=self.config.hidden_size,
            num_hidden_layers=self.config.layers,
            num_attention_heads=self.config.heads,
            intermediate_size=4 * self.config.hidden_size,
            attn_implementation="sdpa",
        )
        return SentenceEncoder(config) if self.config.task == "retrieval" else MaskedLanguageModel(config)

    def state(self) -> dict[str, Any]:
        """In transformers' names, without the heads that are not used here."""
        found = {_modern(name): tensor for name, tensor in super().state().items()}
        if self.config.task == "retrieval":
            found = {f"bert.{name.removeprefix('bert.')}": tensor for name, tensor in found.items()}
            return {name: tensor for name, tensor in found.items() if not _unused(name)}
        found = {f"model.{name}": tensor for name, tensor in found.items() if not _unused(name)}
        # The output layer shares its weights with the embeddings; files hold them once or twice.
        for name, same in (
            ("model.cls.predictions.decoder.weight", "model.bert.embeddings.word_embeddings.weight"),
            ("model.cls.predictions.decoder.bias", "model.cls.predictions.bias"),
        ):
            if same in found:
                found.setdefault(name, found[same])
        return found

    def samples(self) -> int:
        return self.task.samples()

    def inputs(self, indices: Sequence[int]) -> tuple[Any, ...]:
        return self.task.inputs(indices)

    def calibration(self, count: int) -> Iterator[tuple[Any, ...]]:
        return self.task.calibration(count)

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        return self.task.quality(outputs)


def _modern(name: str) -> str:
    """Files of the first BERTs call the parameters of a normalisation ``gamma`` and ``beta``."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _unused(name: str) -> bool:
    return name.endswith("position_ids") or any(head in name for head in ("pooler.", "seq_relationship."))

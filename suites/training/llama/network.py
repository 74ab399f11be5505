"""Llama as transformers has it, built from sizes: nothing is fetched from a hub."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import nn

from pytest_flagperf.errors import ConfigurationError


try:
    from transformers import LlamaConfig
    from transformers import LlamaForCausalLM
except ImportError as error:
    raise ConfigurationError(f"llama needs transformers: pip install 'pytest-flagperf[language]' ({error})") from error


class Llama(nn.Module):
    """Token ids [N, T] int64 to the log-probability of each token after those before it [N, T - 1] float32.

    This is all that perplexity needs: the scores of 32,000 tokens at every position are not kept. ``language_model``
    is transformers' own, which also generates.
    """

    def __init__(self, sizes: Any) -> None:
        super().__init__()
        self.language_model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=sizes["vocabulary"],
                hidden_size=sizes["width"],
                intermediate_size=sizes["hidden"],
                num_hidden_layers=sizes["layers"],
                num_attention_heads=sizes["heads"],
                num_key_value_heads=sizes["key_value_heads"],
                max_position_embeddings=sizes["positions"],
                rms_norm_eps=sizes["norm_epsilon"],
                tie_word_embeddings=sizes["tied"],
                # Text goes on until the asked number of tokens is there.
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=None,
                attn_implementation="sdpa",
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.language_model(input_ids=tokens, use_cache=False).logits[:, :-1]
        # In fp32, whatever the model computes in: a sum of 32,000 exponentials has no room in 16 bits.
        logarithms = torch.log_softmax(scores.float(), dim=-1)
        return logarithms.gather(2, tokens[:, 1:, None]).squeeze(2)

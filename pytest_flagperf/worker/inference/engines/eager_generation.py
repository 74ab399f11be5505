"""transformers' own ``generate``: the reference of every other engine that continues text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.eager import TYPES
from pytest_flagperf.worker.inference.engines.eager import Eagerly
from pytest_flagperf.worker.inference.engines.eager import in_precision
from pytest_flagperf.worker.inference.generator import Generated
from pytest_flagperf.worker.inference.generator import Generator
from pytest_flagperf.worker.inference.generator import Judged


if TYPE_CHECKING:
    from torch import nn


class EagerGeneration(BaseEngine):
    """The model as it is, with transformers' dynamic cache of keys and values; greedy."""

    name = "eager"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"torch": "torch", "transformers": "'pytest-flagperf[language]'"}

    def compile(self, model: nn.Module, workload: Any, options: CompileOptions) -> EagerGenerator:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`; nothing is compiled."""
        return EagerGenerator(in_precision(model, options), workload, options)


def language_model(model: nn.Module) -> Any:
    """transformers' own within a workload's. Raises ``ConfigurationError`` where there is none that generates."""
    found = getattr(model, "language_model", None)
    if not hasattr(found, "generate"):
        raise ConfigurationError(f"{type(model).__name__} has no language_model of transformers': it cannot generate")
    return found


class EagerGenerator(Generator):
    """Generates a batch in step: each token of all its prompts is there at once."""

    name = "eager"

    def __init__(self, model: nn.Module, workload: Any, options: CompileOptions) -> None:
        super().__init__(workload.new_tokens, workload.vocabulary)
        import torch

        self.torch, self.language_model = torch, language_model(model)
        # Of its memory, types and release nothing differs from a forward pass.
        self.whole = Eagerly(model, model, options)
        self.size_bytes = self.whole.size_bytes

    def generate(self, prompts: Any, new_tokens: int) -> Generated:
        """See :class:`~pytest_flagperf.worker.inference.generator.Generator`."""
        from transformers import GenerationConfig

        wanted = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,
            # There is no padding; transformers warns where it cannot tell.
            pad_token_id=0,
            # Compiled it would be another engine.
            disable_compile=True,
        )
        clock = Clock()
        tokens = self._placed(prompts)
        with self.torch.inference_mode():
            found = self.language_model.generate(
                tokens, attention_mask=self.torch.ones_like(tokens), generation_config=wanted, streamer=clock
            )
        new = found[:, tokens.shape[1] :].cpu().numpy()
        times = np.broadcast_to(np.array(clock.times), (len(new), len(clock.times)))
        return Generated(new, times)

    def score(self, tokens: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.inference.generator.Generator`."""
        return self._likelihoods(tokens)[1].cpu().numpy()

    def judged(self, prompts: Any, generated: Generated) -> Judged:
        """See :class:`~pytest_flagperf.worker.inference.generator.Generator`: with the second choice of each token."""
        length = prompts.shape[1]
        logarithms, likelihoods = self._likelihoods(np.concatenate([prompts, generated.tokens], axis=1))
        best = logarithms[:, length - 1 :].topk(2, dim=2)
        return Judged(
            likelihoods[:, : length - 1].cpu().numpy(),
            generated.tokens,
            (best.values[:, :, 0] - best.values[:, :, 1]).cpu().numpy(),
            best.indices[:, :, 1].cpu().numpy(),
        )

    def _likelihoods(self, tokens: Any) -> tuple[Any, Any]:
        """Log-probabilities of every token after each text but its last, and of the one that is there."""
        placed = self._placed(tokens)
        with self.torch.inference_mode():
            scores = self.language_model(input_ids=placed, use_cache=False).logits[:, :-1]
            logarithms = self.torch.log_softmax(scores.float(), dim=-1)
        return logarithms, logarithms.gather(2, placed[:, 1:, None]).squeeze(2)

    def _placed(self, tokens: Any) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(tokens)).to(self.whole.device)

    def precision(self) -> dict[str, Any]:
        """The types of the weights."""
        return self.whole.precision()

    def memory(self) -> dict[str, float]:
        """What PyTorch's allocator reserved at most."""
        return self.whole.memory()

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.language_model = None
        self.whole.release()


class Clock:
    """A streamer of transformers': it gets the prompts and then each token of the batch, copied to the host."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.times: list[float] = []
        self.prompts = True

    def put(self, value: Any) -> None:
        """Tokens, on the host: the device has made them."""
        if not self.prompts:
            self.times.append(time.perf_counter() - self.began)
        self.prompts = False

    def end(self) -> None:
        """Nothing more comes."""

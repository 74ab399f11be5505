"""vLLM in this process' care: its ``AsyncLLM``, which streams.

Written to vLLM's public interface; untested on hardware.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from pytest_flagperf.worker.inference.engines.serving import TYPES
from pytest_flagperf.worker.inference.engines.serving import AsyncGenerator
from pytest_flagperf.worker.inference.engines.serving import FromFolder


class VllmGenerator(AsyncGenerator):
    """``vllm_memory`` of the configuration is the share of the device's memory that it takes, 0.9 if not set."""

    name = "vllm"

    async def start(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`."""
        # It tells its makers about every start otherwise.
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        wanted = AsyncEngineArgs(
            model=str(self.folder),
            skip_tokenizer_init=True,
            dtype=TYPES[self.options.precision],
            max_model_len=self.longest,
            gpu_memory_utilization=float(self.options.settings.get("vllm_memory", 0.9)),
            enable_prefix_caching=False,
            disable_log_stats=True,
        )
        self.engine: Any = AsyncLLM.from_engine_args(wanted)

    async def stream(self, prompt: list[int], new_tokens: int) -> AsyncIterator[Sequence[int]]:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`."""
        async for found in self._asked(prompt, max_tokens=new_tokens, ignore_eos=True):
            yield list(found.outputs[0].token_ids)

    async def likelihoods(self, tokens: list[int]) -> Sequence[float | None]:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`."""
        told: Any = None
        async for found in self._asked(tokens, max_tokens=1, prompt_logprobs=0):
            told = found.prompt_logprobs or told
        return [None, *(_of(one, token) for one, token in zip((told or [])[1:], tokens[1:], strict=False))]

    def _asked(self, prompt: list[int], **wanted: Any) -> Any:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(temperature=0.0, detokenize=False, output_kind=RequestOutputKind.DELTA, **wanted)
        request = TokensPrompt(prompt_token_ids=prompt)
        return self.engine.generate(prompt=request, sampling_params=parameters, request_id=uuid.uuid4().hex)

    def precision(self) -> dict[str, Any]:
        """The type of weights and activations that it settled on."""
        return {"parameters": str(self.engine.model_config.dtype)}

    def stop(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`."""
        self.engine.shutdown()


class Vllm(FromFolder):
    """Greedy, without its cache of prefixes: a prompt that came before must cost as much as the first time."""

    name = "vllm"
    packages: Mapping[str, str] = {"vllm": "vllm"}
    generator = VllmGenerator


def _of(told: Mapping[int, Any] | None, token: int) -> float | None:
    """The token's own, of those that are told at its place."""
    return float(told[token].logprob) if told and token in told else None

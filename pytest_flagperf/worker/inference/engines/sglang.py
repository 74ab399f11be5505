"""SGLang in this process' care: its ``Engine``, which streams.

Written to SGLang's public interface; untested on hardware.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.serving import TYPES
from pytest_flagperf.worker.inference.engines.serving import AsyncGenerator
from pytest_flagperf.worker.inference.engines.serving import FromFolder


# Tokens that a context has to be longer than a prompt with its continuation: SGLang refuses a request that fills it,
# its scheduler cuts one short that leaves less than two, and it may reserve some for itself.
SPARE = 8


class SgLangGenerator(AsyncGenerator):
    """``sglang_memory`` of the configuration is its ``mem_fraction_static``, which it chooses itself if not set."""

    name = "sglang"

    async def start(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`: the engine has no part here.

        Its constructor runs the loop, so that it cannot be called within it.
        """

    def __init__(self, workload: Any, options: CompileOptions) -> None:
        context = max(workload.lengths) + workload.new_tokens + SPARE
        if context > workload.positions:
            raise ConfigurationError(
                f"engine sglang needs room for {SPARE} tokens beside a prompt and its continuation: {context} of the "
                f"model's {workload.positions}. Lower prompt_lengths or new_tokens"
            )
        super().__init__(workload, options)
        import sglang

        memory = options.settings.get("sglang_memory")
        self.engine: Any = sglang.Engine(
            model_path=str(self.folder),
            skip_tokenizer_init=True,
            dtype=TYPES[options.precision],
            context_length=context,
            disable_radix_cache=True,
            **({"mem_fraction_static": float(memory)} if memory else {}),
        )

    async def stream(self, prompt: list[int], new_tokens: int) -> AsyncIterator[Sequence[int]]:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`."""
        wanted = {"temperature": 0, "max_new_tokens": new_tokens, "ignore_eos": True}
        done = 0
        async for chunk in await self.engine.async_generate(input_ids=prompt, sampling_params=wanted, stream=True):
            tokens, count = list(chunk["output_ids"]), int(chunk["meta_info"]["completion_tokens"])
            # Whether a chunk repeats what came before differs between its versions.
            if len(tokens) not in (count, count - done):
                raise InvalidMeasurement(
                    f"engine sglang gave {len(tokens)} tokens where {count - done} of {count} are new"
                )
            yield tokens[len(tokens) - (count - done) :]
            done = count

    async def likelihoods(self, tokens: list[int]) -> Sequence[float | None]:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`."""
        found = await self.engine.async_generate(
            input_ids=tokens,
            sampling_params={"temperature": 0, "max_new_tokens": 1},
            return_logprob=True,
            logprob_start_len=0,
        )
        # Of each token: its log-probability, its id, its text.
        return [one[0] for one in found["meta_info"]["input_token_logprobs"]]

    def precision(self) -> dict[str, Any]:
        """The type that its server says it runs in."""
        told = self.engine.get_server_info().get("dtype")
        return {"parameters": str(told)} if told else {}

    def stop(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engines.serving.AsyncGenerator`."""
        self.engine.shutdown()


class SgLang(FromFolder):
    """Greedy, without its radix cache: a prompt that came before must cost as much as the first time."""

    name = "sglang"
    packages: Mapping[str, str] = {"sglang": "sglang"}
    generator = SgLangGenerator

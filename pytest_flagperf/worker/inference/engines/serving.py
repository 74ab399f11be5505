"""What engines have in common that serve each request by itself, and answer it as a stream of tokens."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.eager_generation import language_model
from pytest_flagperf.worker.inference.engines.files import written
from pytest_flagperf.worker.inference.generator import Generated
from pytest_flagperf.worker.inference.generator import Generator


if TYPE_CHECKING:
    from torch import nn

TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass
class Stream:
    """A request's answer so far: token ids, and when each was there, in seconds since ``began``."""

    began: float
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def add(self, tokens: Sequence[int]) -> None:
        """What has just come."""
        now = time.perf_counter() - self.began
        self.tokens += tokens
        self.times += [now] * len(tokens)


def together(engine: str, streams: Sequence[Stream], new_tokens: int) -> Generated:
    """The answers of a batch. Raises ``InvalidMeasurement`` for one that has not as many tokens as were asked for."""
    for number, stream in enumerate(streams, 1):
        if len(stream.tokens) != new_tokens:
            raise InvalidMeasurement(
                f"engine {engine} generated {len(stream.tokens)} of the {new_tokens} tokens that request {number} of "
                f"{len(streams)} asked for: the generation was cut short"
            )
    return Generated(np.array([one.tokens for one in streams], np.int64), np.array([one.times for one in streams]))


def scores(engine: str, found: Sequence[float | None], tokens: Sequence[int]) -> list[float]:
    """Log-probabilities of a text's tokens but the first. Raises ``InvalidMeasurement`` where one is missing."""
    told = [float(one) for one in found[1 : len(tokens)] if one is not None]
    if len(told) != len(tokens) - 1:
        raise InvalidMeasurement(
            f"engine {engine} told the probability of {len(told)} of a text's {len(tokens)} tokens: all but the first "
            "are needed"
        )
    return told


class FromFolder(BaseEngine):
    """Reads a model from a folder in the form of transformers: ``config.json`` and safetensors, without a tokenizer.

    ``generator`` is what it becomes. The copy of the weights is gone once that has read them, and where anything fails:
    it is as large as the model.
    """

    precisions = tuple(TYPES)
    generator: type[AsyncGenerator]

    def export(self, model: nn.Module, workload: Any, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        folder = options.directory / "model"
        try:
            with written(folder / "model.safetensors"):
                language_model(model).save_pretrained(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def compile(self, model: Any, workload: Any, options: CompileOptions) -> AsyncGenerator:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        assert options.exported is not None
        try:
            return self.generator(workload, options)
        finally:
            # What is said of the model's sizes stays: an engine may ask for it again.
            for weights in options.exported.glob("*.safetensors"):
                weights.unlink()


class AsyncGenerator(Generator):
    """An engine whose requests are coroutines of one loop; ``longest`` is a prompt with its continuation."""

    elsewhere = True

    def __init__(self, workload: Any, options: CompileOptions) -> None:
        super().__init__(workload.new_tokens, workload.vocabulary)
        assert options.exported is not None
        self.folder, self.options = options.exported, options
        self.size_bytes = sum(one.stat().st_size for one in self.folder.glob("*.safetensors"))
        self.longest = max(workload.lengths) + workload.new_tokens
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.start())

    async def start(self) -> None:
        """Start the engine, which may want to be in the loop that it is used in."""
        raise NotImplementedError

    def stream(self, prompt: list[int], new_tokens: int) -> AsyncIterator[Sequence[int]]:
        """The tokens of one request, as they come."""
        raise NotImplementedError

    async def likelihoods(self, tokens: list[int]) -> Sequence[float | None]:
        """Log-probability of each token of a text after those before it; of the first there is none."""
        raise NotImplementedError

    def generate(self, prompts: Any, new_tokens: int) -> Generated:
        """See :class:`~pytest_flagperf.worker.inference.generator.Generator`."""
        began = time.perf_counter()

        async def one(prompt: list[int]) -> Stream:
            found = Stream(began)
            async for tokens in self.stream(prompt, new_tokens):
                found.add(tokens)
            return found

        async def batch() -> list[Stream]:
            return await asyncio.gather(*(one(prompt) for prompt in prompts.tolist()))

        return together(self.name, self.loop.run_until_complete(batch()), new_tokens)

    def score(self, tokens: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.inference.generator.Generator`."""

        async def all_of() -> list[Sequence[float | None]]:
            return await asyncio.gather(*(self.likelihoods(one) for one in tokens.tolist()))

        found = self.loop.run_until_complete(all_of())
        pairs = zip(found, tokens.tolist(), strict=True)
        return np.array([scores(self.name, told, text) for told, text in pairs], np.float32)

    def stop(self) -> None:
        """End the engine and its processes."""
        raise NotImplementedError

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        try:
            self.stop()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            asyncio.set_event_loop(None)

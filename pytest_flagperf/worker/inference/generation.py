"""The role ``generation``: how long a prompt waits for its first token, and for each further one.

For every pair of ``prompt_lengths`` and ``new_tokens``, and every one of ``batch_sizes``: as many requests at once,
``repeat`` times, each time with prompts drawn anew. The headline is the first setting; all are in INFERENCE_END.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf import perflog
from pytest_flagperf.worker.inference.generation_flow import Prompts
from pytest_flagperf.worker.inference.generation_flow import whole_numbers
from pytest_flagperf.worker.inference.generator import Generated
from pytest_flagperf.worker.inference.generator import Generator


if TYPE_CHECKING:
    from pytest_flagperf.worker.inference.flow import UnderTest


@dataclass(frozen=True)
class Setting:
    """``batch_size`` requests at once, each a prompt of ``prompt_length`` tokens and ``new_tokens`` more."""

    prompt_length: int
    batch_size: int
    new_tokens: int


class Measured:
    """What came of the requests of a setting."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.each: list[float] = []
        self.tokens = 0
        self.seconds = 0.0

    def add(self, generated: Generated, seconds: float) -> None:
        """A batch, from the call to its last token in ``seconds``."""
        times = generated.times
        self.first += times[:, 0].tolist()
        self.each += ((times[:, -1] - times[:, 0]) / (times.shape[1] - 1)).tolist()
        self.tokens += int(generated.tokens.size)
        self.seconds += seconds

    def figures(self) -> dict[str, float]:
        """Medians over the requests in ms, and new tokens by the time in which they were generated."""
        return {
            "ttft": float(np.median(self.first)) * 1e3,
            "tpot": float(np.median(self.each)) * 1e3,
            "tokens_per_second_per_device": self.tokens / self.seconds,
        }


def settings(config: Any) -> list[Setting]:
    """All that the configuration asks for, the headline first."""
    lengths, sizes = whole_numbers(config, "prompt_lengths"), whole_numbers(config, "batch_sizes")
    return [
        Setting(length, size, new)
        for new, length, size in itertools.product(whole_numbers(config, "new_tokens", least=2), lengths, sizes)
    ]


def generation(test: UnderTest) -> None:
    """Measure every setting. Writes INFERENCE_BEGIN to _END."""
    compiled, workload = test.compiled, test.workload
    assert isinstance(compiled, Generator)
    assert isinstance(workload, Prompts)
    wanted = settings(test.config)
    random = np.random.default_rng([test.seed, 3])
    for setting in wanted:
        # The shapes of a setting are compiled and its memory is taken here, on nobody's clock.
        compiled.answered(*_drawn(workload, setting, random)[1:])
        test.alive("warm-up", 0, len(wanted))
    test.events.write(perflog.INFERENCE_BEGIN, {"settings": [asdict(one) for one in wanted], "repeat": test.repeat})
    found = [{**asdict(one), **_measure(test, compiled, workload, one, random)} for one in wanted]
    headline = {name: found[0][name] for name in ("ttft", "tpot", "tokens_per_second_per_device")}
    test.events.write(perflog.INFERENCE_END, {"settings": found, **headline})


def _measure(
    test: UnderTest, compiled: Generator, workload: Prompts, setting: Setting, random: Any
) -> dict[str, float]:
    measured = Measured()
    for done in range(test.repeat):
        indices, prompts, new_tokens = _drawn(workload, setting, random)
        begin = time.perf_counter()
        generated = compiled.generate(prompts, new_tokens)
        seconds = time.perf_counter() - begin
        generated.refuse_unfit(compiled.name, len(prompts), new_tokens, compiled.vocabulary)
        measured.add(generated, seconds)
        test.seen.add(indices, (generated.tokens,))
        test.alive("generation", done + 1, test.repeat)
    return {"requests": len(measured.first), "tokens": measured.tokens, **measured.figures()}


def _drawn(workload: Prompts, setting: Setting, random: Any) -> tuple[Any, Any, int]:
    """Prompts of a batch and which they are, and how many new tokens to ask for."""
    known = workload.indices(setting.prompt_length)
    indices = known.start + random.choice(len(known), setting.batch_size, replace=setting.batch_size > len(known))
    return indices, *workload.inputs(indices), setting.new_tokens

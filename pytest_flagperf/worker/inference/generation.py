"""The role ``generation``: how long a prompt waits for its first token, and for each further one.

For every pair of ``prompt_lengths`` and ``new_tokens``, and every one of ``batch_sizes``: as many requests at once,
``repeat`` times, each time with prompts that the engine has not read before. The headline is the first setting; all are
in INFERENCE_END.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf import perflog
from pytest_flagperf.worker.inference.generation_flow import Prompts
from pytest_flagperf.worker.inference.generation_settings import Setting
from pytest_flagperf.worker.inference.generation_settings import repeats
from pytest_flagperf.worker.inference.generation_settings import settings
from pytest_flagperf.worker.inference.generator import Generated
from pytest_flagperf.worker.inference.generator import Generator


if TYPE_CHECKING:
    from pytest_flagperf.worker.inference.flow import UnderTest


class Measured:
    """What came of the requests of a setting."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.each: list[float] = []
        self.tokens = 0
        self.seconds = 0.0

    def add(self, generated: Generated) -> None:
        """A batch, which has taken until its last token was there, by the engine's own clock.

        What a client does before its requests are sent and after they are answered is no time of the server's.
        """
        times = generated.times
        self.first += times[:, 0].tolist()
        self.each += ((times[:, -1] - times[:, 0]) / (times.shape[1] - 1)).tolist()
        self.tokens += int(generated.tokens.size)
        self.seconds += float(times.max())

    def figures(self) -> dict[str, float]:
        """Medians over the requests in ms, and new tokens by the time in which they were generated."""
        return {
            "ttft": float(np.median(self.first)) * 1e3,
            "tpot": float(np.median(self.each)) * 1e3,
            "tokens_per_second_per_device": self.tokens / self.seconds,
        }


def generation(test: UnderTest) -> None:
    """Measure every setting. Writes INFERENCE_BEGIN to _END."""
    compiled, workload = test.compiled, test.workload
    assert isinstance(compiled, Generator)
    assert isinstance(workload, Prompts)
    wanted = settings(test.config)
    random = np.random.default_rng([test.seed, 3])
    for setting in wanted:
        # The shapes of a setting are compiled and its memory is taken here, on nobody's clock.
        known = workload.indices(setting.prompt_length)
        drawn = known.start + random.choice(len(known), setting.batch_size, replace=setting.batch_size > len(known))
        (prompts,) = workload.inputs(drawn)
        compiled.answered(prompts, setting.new_tokens)
        test.alive("warm-up", 0, len(wanted))
    test.events.write(
        perflog.INFERENCE_BEGIN, {"settings": [asdict(one) for one in wanted], "repeat": repeats(test.config)}
    )
    unseen = {length: iter(workload.unseen(length)) for length in workload.lengths}
    found = [{**asdict(one), **_measure(test, compiled, workload, one, unseen[one.prompt_length])} for one in wanted]
    headline = {name: found[0][name] for name in ("ttft", "tpot", "tokens_per_second_per_device")}
    test.events.write(
        perflog.INFERENCE_END, {"settings": found, "unseen_prompts": sum(one["requests"] for one in found), **headline}
    )


def _measure(
    test: UnderTest, compiled: Generator, workload: Prompts, setting: Setting, unseen: Iterator[int]
) -> dict[str, Any]:
    measured, repeat = Measured(), repeats(test.config)
    for done in range(repeat):
        indices = list(itertools.islice(unseen, setting.batch_size))
        (prompts,) = workload.inputs(indices)
        generated = compiled.answered(prompts, setting.new_tokens)
        measured.add(generated)
        test.seen.add(indices, (generated.tokens,))
        test.alive("generation", done + 1, repeat)
    return {"requests": len(measured.first), "tokens": measured.tokens, **measured.figures()}

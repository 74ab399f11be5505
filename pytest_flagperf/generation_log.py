"""What a run that generated text has to say beside its headline: every setting, and how much of it was compared."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf.perflog import Event


def notes(log: Sequence[Event]) -> list[str]:
    """A line for each setting, the headline first, then of prompts and tokens; none of a run that generated nothing."""
    events = {event.name: event.value for event in log}
    end = events.get(perflog.INFERENCE_END, {})
    settings = end.get("settings", [])
    if not settings:
        return []
    return [*map(_setting, settings), *_prompts(end), *_tokens(events.get(perflog.FINISHED, {}))]


def _setting(one: Mapping[str, Any]) -> str:
    requests = "1 request" if one["batch_size"] == 1 else f"{one['batch_size']} requests"
    return (
        f"{requests} at once, {one['prompt_length']} tokens and {one['new_tokens']} new ones: first token after "
        f"{one['ttft']:.4g} ms, each further one {one['tpot']:.4g} ms, "
        f"{one['tokens_per_second_per_device']:.4g} tokens/s"
    )


def _prompts(end: Mapping[str, Any]) -> Iterator[str]:
    if "unseen_prompts" in end:
        yield f"{end['unseen_prompts']} prompts, none of which began as one that the engine had read before"


def _tokens(finished: Mapping[str, Any]) -> Iterator[str]:
    if "token_agreement" in finished:
        share, of = finished["token_agreement"], finished["tokens_compared"]
        yield f"of {of} tokens generated while it was measured, {share:.2%} are those of eager fp32"

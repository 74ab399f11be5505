"""What has come of a case while its rounds are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_flagperf import result as results
from pytest_flagperf.measured import Measured
from pytest_flagperf.perflog import Event


@dataclass
class Attempt:
    """What has come of a case so far."""

    rounds: list[results.RoundResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)
    chip: str | None = None
    container: dict[str, str] = field(default_factory=dict)
    guard: Callable[[Event], None] | None = None
    # Of the code and configuration before anything ran, and of each file of the code.
    code: str = ""
    files: dict[Path, str] = field(default_factory=dict)
    # Rounds before the first look: who had five of them that told nothing gets no look at one.
    least: int = 0

    def note(self, measured: Measured) -> None:
        """Keep what a round says about itself."""
        self.notes += [note for note in measured.notes if note not in self.notes]
        self.chip = self.chip or measured.chip

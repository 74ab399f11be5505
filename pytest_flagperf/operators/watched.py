"""What the monitor saw while one problem was measured, of a monitor that runs as long as the worker does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_flagperf import samples
from pytest_flagperf.samples import Samples
from pytest_flagperf.samples import Window


# A look is written after it was taken; what came before an item may belong to it.
_KEPT = 5.0


class MonitorTail:
    """Reads a growing ``monitor.jsonl``; each item costs its own lines and not those of the hours before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._head: list[dict[str, Any]] = []
        self._processes: dict[int, dict[str, Any]] = {}
        self._lines: list[dict[str, Any]] = []

    def during(self, window: Window) -> Samples:
        """What was seen in ``window``, of which the last one asked for is over: windows only come later.

        A process that somebody has on a device is told once, when it is first seen, and again when it changes: so it
        counts for all windows until it is gone.
        """
        self._read()
        inside = [line for line in self._lines if line.get("monotonic", 0.0) >= window[0] - _KEPT]
        before = [line for line in self._lines if line.get("monotonic", 0.0) < window[0]]
        for line in before:
            if line.get("event") == "processes":
                self._processes[int(line.get("device", 0))] = line
        self._lines = inside
        listed = [line for line in inside if line.get("event") != "processes" or line["monotonic"] >= window[0]]
        return samples.parse([*self._head, *self._processes.values(), *listed])

    def _read(self) -> None:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                added = file.read()
        except OSError:
            return
        whole = added.rpartition(b"\n")[0]
        self._offset += len(whole) + 1 if whole else 0
        for text in whole.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                kept = self._head if line.get("event") in ("monitor_start", "monitor_source") else self._lines
                kept.append(line)

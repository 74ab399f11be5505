"""A vendor's overlays: every entry and key that would not load, each with its line."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import overlay
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing import source
from pytest_flagperf.importing.overlays import toml
from pytest_flagperf.lint import document
from pytest_flagperf.lint import modules
from pytest_flagperf.lint.positions import Positions
from pytest_flagperf.lint.problem import Problem


# Kind and model → the case.
Cases = Mapping[tuple[str, str], Any]

_FIELDS = overlay.Entry.__struct_fields__


def looks_like_one(path: Path) -> bool:
    """Whether a TOML file has ``[[overlay]]``."""
    try:
        return bool(re.search(r"^\s*\[\[\s*overlay\s*\]\]", source.text_of(path), re.MULTILINE))
    except ValueError:
        return False


def check(path: Path, kind: str, cases: Cases, vendor: Vendor | None) -> Iterator[Problem]:
    """The problems of one overlay file for a case of that kind, of ``vendor`` where it is known."""
    case = cases.get((kind, path.stem))
    if case is None:
        known = ", ".join(sorted(model for of, model in cases if of == kind)) or "none"
        article = "an" if kind[0] in "aeiou" else "a"
        message = f"no suite has {article} {kind} case {path.stem}; there are {known}: --suites DIR"
        yield Problem(path, 1, "FP004", message)
        return
    read = document.read(path, "FP002")
    if isinstance(read, Problem):
        yield read
        return
    found = list(_File(path, read, case, vendor).problems())
    reason = "" if found else _refusal(path, case, vendor)
    # Each entry is well by itself, and not how they go together.
    yield from found or ([Problem(path, read.named(reason), "FP002", reason)] if reason else [])


def workloads(path: Path) -> set[str]:
    """The files beside ``path`` that its entries name."""
    read = document.read(path, "FP002")
    entries = read.document.get("overlay", []) if isinstance(read, Positions) else []
    named = [entry.get("workload") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {f"{text.partition(':')[0]}.py" for text in named if isinstance(text, str) and text}


class _File:
    """One file, entry by entry: reading an overlay stops at the first problem."""

    def __init__(self, path: Path, read: Positions, case: Any, vendor: Vendor | None) -> None:
        self.path = path
        self.read = read
        self.case = case
        self.vendor = vendor
        self.targets = {target.metric for scale in case.scales.values() for target in scale.targets}

    def problems(self) -> Iterator[Problem]:
        for key in self.read.document:
            if key != "overlay":
                yield self._unknown((key,), "overlay")
        entries = self.read.document.get("overlay", [])
        for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
            if isinstance(entry, dict):
                yield from self._entry(number, entry)

    def _entry(self, number: int, entry: dict[str, Any]) -> Iterator[Problem]:
        for key in entry:
            if key not in _FIELDS:
                yield self._unknown(("overlay", number, key), ", ".join(_FIELDS))
        entry = {key: value for key, value in entry.items() if key in _FIELDS}
        config = entry.get("config")
        if isinstance(config, dict):
            # What is wrong with the selectors is wrong with every key: said once.
            selectors = {**entry, "config": self._harmless(entry.get("scale"))}
        else:
            config, selectors = {}, entry
        reason = self._refusal_of(selectors)
        if reason:
            # It was read alone, as the first one.
            reason = reason.replace("`$.overlay[0]", f"`$.overlay[{number - 1}]")
            yield Problem(self.path, self._line(number, reason), "FP002", reason)
            return
        yield from self._workload(number, str(entry.get("workload", "")))
        for key in config:
            reason = self._refusal_of({**entry, "config": {key: config[key]}})
            if reason:
                line = self.read.line(("overlay", number, "config", key))
                yield Problem(self.path, line, "FP003" if self._is_target(key) else "FP002", reason)

    def _line(self, number: int, reason: str) -> int:
        return self.read.named(reason if "`$.overlay[" in reason else f"overlay {number}: {reason}")

    def _unknown(self, key: tuple[str | int, ...], known: str) -> Problem:
        name = str(key[-1])
        if self._is_target(name):
            message = f"{name}: a vendor cannot change a target of {self.case.model}"
            return Problem(self.path, self.read.line(key), "FP003", message)
        return Problem(self.path, self.read.line(key), "FP002", f"{name} is no key here; known: {known}")

    def _is_target(self, key: str) -> bool:
        return key in self.targets or key in ("target", "targets") or key.startswith("target_")

    def _workload(self, number: int, text: str) -> Iterator[Problem]:
        module, _, name = text.partition(":")
        reason = modules.missing(self.path.parent / f"{module}.py", name) if text else ""
        if reason:
            line = self.read.line(("overlay", number, "workload"))
            yield Problem(self.path, line, "FP002", f"workload = {text!r}: {reason}")

    def _harmless(self, scale: object) -> dict[str, Any]:
        """A configuration that changes nothing and breaks no rule."""
        chosen = self.case.scales.get(scale if isinstance(scale, str) else "full")
        standard = {**self.case.config, **(chosen.config if chosen else {})}
        return {key: standard[key] for key in sorted(self.case.tunable) if key in standard}

    def _refusal_of(self, entry: dict[str, Any]) -> str:
        """Why an overlay with this entry alone would not load, beside the modules that are beside the file."""
        with tempfile.TemporaryDirectory() as directory:
            for module in self.path.parent.glob("*.py"):
                (Path(directory) / module.name).touch()
            alone = Path(directory) / self.path.name
            lines = [f"{key} = {toml(value)}" for key, value in entry.items()]
            alone.write_text("\n".join(["[[overlay]]", *lines, ""]), encoding="utf-8")
            reason = _refusal(alone, self.case, self.vendor)
            return re.sub(r"^overlay 1:? ", "", reason).replace(directory, str(self.path.parent))


def _refusal(path: Path, case: Any, vendor: Vendor | None) -> str:
    try:
        overlay.read(path, case, vendor)
    except RecursionError:
        return "is nested too deeply"
    except (ConfigurationError, msgspec.DecodeError) as error:
        return str(error).replace(f"{path}: ", "", 1)
    return ""

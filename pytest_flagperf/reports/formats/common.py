"""What the formats share: the order of the verdicts, why a case is not passed, derived figures, writing a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_flagperf.judging.derived import DerivedMetric
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html.gathering import once
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


# Worst first, each with its sign.
VERDICTS: Mapping[str, str] = {
    "invalid": "🚫",
    "wrong": "❌",
    "missed": "❌",
    "regressed": "📉",
    "inconclusive": "❔",
    "improved": "📈",
    "passed": "✅",
    "no baseline": "➖",
    "not comparable": "➖",
    "unsupported": "➖",
}
WELL = frozenset({"passed", "improved", "no baseline", "not comparable", "unsupported"})


def results(sessions: Sequence[SessionFiles]) -> list[tuple[SessionFiles, Result]]:
    """Every Result with its session, in order; one that a later session took over with ``--resume`` comes once."""
    return once(reading.apart(sessions))


def tally(found: Iterable[Result]) -> dict[str, int]:
    """How many Results have each verdict, the worst verdict first."""
    counts = Counter(one.verdict for one in found)
    return {verdict: counts[verdict] for verdict in sorted(counts, key=reading.severity)}


def is_well(result: Result) -> bool:
    """Whether nothing is amiss with a case."""
    return result.verdict in WELL


def label(result: Result) -> str:
    """``resnet50 convergence [pytorch-amp-1x8-full] kunlunxin R300``; of an operator its problem too."""
    case = result.case
    parts = (case.framework, case.engine, case.precision, case.topology, case.scale)
    selection = "-".join(filter(None, parts))
    if case.kind == "operator":
        selection = case.id.removeprefix(f"{case.model}-")
    return f"{case.model} {case.role} [{selection}] {case.vendor}" + (f" {case.chip}" if case.chip else "")


def reasons(result: Result) -> list[str]:
    """Why a case is what it is, in words: the error, missed targets, and metrics beside their baseline."""
    found = [] if result.error is None else [f"{result.error.type}: {result.error.message}"]
    for target in result.targets:
        # What could not be trusted was not judged.
        if not target.met and result.error is None and reading.is_trusted(result):
            value = "was not measured" if target.value is None else f"is {reading.figure(target.value, target.bound)}"
            sign = ">=" if target.direction == "at least" else "<="
            found.append(f"{target.metric} {value}, the target is {sign} {target.bound:g} ({target.source})")
    asked = ("regressed", "inconclusive", "improved")
    found += [said(result, one) for one in result.comparisons if one.verdict in asked]
    if not found and not is_well(result):
        found = list(result.notes) or ["the session does not say why"]
    return found


def said(result: Result, one: ComparisonResult) -> str:
    """``p_train regressed: 95.1 samples/s, baseline 100 (-4.9 %, tolerance 2 %)``."""
    unit = reading.unit(result, one.metric)
    unit = f" {unit}" if unit not in ("", "1", "ratio") else ""
    value = "not measured" if one.value is None else f"{one.value:.6g}{unit}"
    text = f"{one.metric} {one.verdict}: {value}"
    if one.baseline is not None:
        text += f", baseline {one.baseline:.6g}"
    details = [] if one.change is None else [f"{100 * one.change:+.1f} %"]
    if one.tolerance is not None:
        details.append(f"tolerance {100 * one.tolerance:.2g} %")
    text += f" ({', '.join(details)})" if details else ""
    return text + (f": {'; '.join(one.reasons)}" if one.reasons else "")


def remarks(result: Result) -> list[str]:
    """What a reader of the figures has to know with them."""
    words = {
        reading.STAND_IN: f"ran on {result.case.stand_in}: no measurement of {result.case.vendor}",
        reading.OPEN: "open division",
        reading.SYNTHETIC: "synthetic data",
        reading.RANDOM: "random weights: speed only",
    }
    found = [words[mark] for mark in reading.marks(result)]
    if result.deviations:
        found.append(f"≠ {len(result.deviations)} from the standard case: {'; '.join(result.deviations)}")
    return found


def settings(result: Result) -> dict[str, Any]:
    """The effective configuration without its origins."""
    return {name: setting.value for name, setting in result.configuration.items()}


def devices(topology: str) -> int:
    """Devices of a topology: 16 of ``2x8``."""
    nodes, _, a_node = topology.partition("x")
    return int(nodes) * int(a_node)


def derived(session: SessionFiles) -> list[DerivedMetric]:
    """The figures over several cases of a session; none where nothing was derived."""
    return list(reading.over_cases(session).metrics)


def clean(text: str) -> str:
    """Text for a cell: ends of lines are line feeds, and other control characters are replaced."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line) for line in lines)


def finish(text: str, output: Path | None) -> str | None:
    """Write the text to the output, whole or not at all; without an output return it."""
    if output is None:
        return text
    reading.write(output, text.encode())
    return None

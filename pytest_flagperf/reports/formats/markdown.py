"""Markdown for a comment on a pull request: what is not passed stands in full, everything else is folded up."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf.reports import inference
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import inference as tables
from pytest_flagperf.reports.formats import marked
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


# GitHub's limit of a comment, in characters.
LIMIT = 65_536
# A bot finds its comment of last time by this line.
MARK = "<!-- pytest-flagperf -->"
_MOST_LINES = 20
_LONGEST_LINE = 400
_FIGURES = ("p_train", "e2e_time", "memory_peak", "time", "tflops", "bandwidth")


def render(sessions: Sequence[SessionFiles], output: Path | None) -> str | None:
    """The comment, of at most 65,536 characters; what is left out is counted."""
    return common.finish(text(sessions, LIMIT), output)


def text(sessions: Sequence[SessionFiles], limit: int) -> str:
    """The comment within ``limit`` characters. What is amiss comes first, and the worst of it before the rest."""
    pairs = common.results(sessions)
    found = [result for _, result in pairs]
    # With several sessions a reader has to know which a row is of.
    of = {id(result): f"<br>{marked.code(one.name)}" if len(sessions) > 1 else "" for one, result in pairs}
    parts = [f"{MARK}\n{_heading(found, sessions)}"]
    parts += _warnings(sessions)
    left = limit - len("\n".join(parts)) - 2
    unmet = _unmet(sessions, left)
    left -= len(unmet)
    amiss = sorted((one for one in found if not common.is_well(one)), key=lambda one: reading.severity(one.verdict))
    # What is amiss may fill the comment; the folded table gets what is left.
    section = _amiss(amiss, of, left)
    over = _derived(sessions, left - len(section))
    left -= len(section) + len(over) + 4
    folded = _folded([one for one in found if not inference.has_table(one)], of, left)
    inferred = _inference(found, of, left - len(folded))
    return "\n".join([*parts, *(part for part in (unmet, section, over, folded, inferred) if part)])


def _heading(found: Sequence[Result], sessions: Iterable[SessionFiles]) -> str:
    """The verdicts counted, and how many of the cases are no measurement of what they are named after."""
    counts = [f"{_sign(name)} {count:,} {marked.escape(name)}" for name, count in common.tally(found).items()]
    unmet = sum(len(reading.not_met(one)) for one in sessions)
    if unmet:
        counts.insert(0, f"{_sign('missed')} {unmet:,} required, not met")
    heading = f"### FlagPerf: {', '.join(counts) or 'no result'}\n"
    stood_in = sum(1 for one in found if one.case.stand_in)
    changed = sum(1 for one in found if one.deviations)
    told = [f"⚠️ {stood_in:,} ran on a stand-in: no measurement of the vendor's chip"] if stood_in else []
    told += [f"≠ {changed:,} differ from the standard case"] if changed else []
    return heading + "".join(f"\n{line}\n" for line in told)


def _unmet(sessions: Iterable[SessionFiles], limit: int) -> str:
    """What ``--require`` asked for and does not hold."""
    lines = [
        (f"{_sign('missed')} missed", marked.code(f"--require {one.text}"), marked.code(_short(reading.said(one))))
        for session in sessions
        for one in reading.not_met(session)
    ]
    return _fitting("", ("verdict", "requirement", "why"), lines, "", limit) if lines else ""


def _sign(verdict: str) -> str:
    return common.VERDICTS.get(verdict, "❔")


def _warnings(sessions: Iterable[SessionFiles]) -> list[str]:
    """Rounds that did not end and files that could not be read; a few of them, and how many more there are."""
    told = [f"started and not ended: {marked.code(_short(one))}" for each in sessions for one in each.unfinished]
    told += [f"not read: {marked.code(_short(one))}" for each in sessions for one in reading.problems(each)]
    if not told:
        return []
    shown = [f"- ⚠️ {line}\n" for line in told[:5]]
    return ["".join([*shown, *([f"- … and {len(told) - 5} more\n"] if len(told) > 5 else [])])]


def _amiss(found: Sequence[Result], of: Mapping[int, str], limit: int) -> str:
    header = ("verdict", "case", "why")
    lines = [
        (
            f"{_sign(one.verdict)} {marked.escape(one.verdict)}",
            "<br>".join([marked.code(common.label(one)) + of[id(one)], *_marked(one)]),
            why(one),
        )
        for one in found
    ]
    return _fitting("", header, lines, "", limit) if lines else ""


def _marked(result: Result) -> list[str]:
    return [marked.escape(_short(text)) for text in common.remarks(result)]


def why(result: Result) -> str:
    """The reasons of a verdict in one cell, each on a line of its own."""
    lines = [line for reason in common.reasons(result) for line in reason.splitlines() if line.strip()]
    shown = [_short(line) for line in lines[:_MOST_LINES]]
    return "<br>".join([*map(marked.code, shown), *(["…"] if len(lines) > _MOST_LINES else [])])


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def _folded(found: Sequence[Result], of: Mapping[int, str], limit: int) -> str:
    shown = [name for name in _FIGURES if any(name in one.metrics for one in found)]
    units = {name: next(one.metrics[name].unit for one in found if name in one.metrics) for name in shown}
    figures = (f"{name} ({units[name]})" for name in shown)
    header = ("case", "verdict", "targets", *figures, "beside the baseline", "remarks")
    lines = [
        (
            marked.code(common.label(one)) + of[id(one)],
            marked.escape(one.verdict),
            marked.escape(_targets(one)),
            *(_figure(one, name, units[name]) for name in shown),
            marked.escape(_changes(one)),
            "; ".join(_marked(one)),
        )
        for one in found
    ]
    head = f"<details><summary>All results ({len(found):,})</summary>\n\n"
    right = range(3, 3 + len(shown))
    return _fitting(head, header, lines, "\n</details>\n", limit, right) if lines else ""


def _inference(found: Sequence[Result], of: Mapping[int, str], limit: int) -> str:
    """The tables of inference, folded up."""
    ours = [one for one in found if inference.has_table(one)]
    if not ours:
        return ""
    head, foot = f"<details><summary>Inference ({len(ours):,})</summary>\n\n", "\n</details>\n"
    parts: list[str] = []
    left = limit - len(head) - len(foot)
    for table in inference.TABLES:
        ones = table.of(ours)
        header = [*tables.header(table), "beside the baseline"]
        lines = tables.lines(table, ones)
        for line, one in zip(lines, ones, strict=True):
            line[0] += of[id(one)]
            line.append(marked.escape(_changes(one)))
        part = _fitting(f"{table.english}\n\n", header, lines, "\n", left, table.figures) if ones else ""
        parts.append(part)
        left -= len(part)
    return head + "".join(parts) + foot if any(parts) else ""


def _derived(sessions: Iterable[SessionFiles], limit: int) -> str:
    """What follows from several cases: AMP speed-up, scaling efficiency, ratios to published figures."""
    lines = [
        (marked.escape(one.name), marked.code(one.label), marked.escape(f"{reading.figure(one.value)} ({one.of})"))
        for session in sessions
        for one in common.derived(session)
    ]
    return _fitting("", ("figure", "case", "value"), lines, "", limit, (2,)) if lines else ""


def _targets(result: Result) -> str:
    signs = {"at least": "≥", "at most": "≤"}
    found = [
        (one, "not measured" if one.value is None else f"{one.metric} {reading.figure(one.value, one.bound)}")
        for one in result.targets
    ]
    return ", ".join(f"{value} (target {signs[one.direction]} {one.bound:g})" for one, value in found)


def _changes(result: Result) -> str:
    """``p_train +1.2 %, memory_peak no baseline``."""
    found = [
        f"{one.metric} {one.verdict if one.change is None else f'{100 * one.change:+.1f} %'}"
        for one in result.comparisons
    ]
    return ", ".join(found)


def _figure(result: Result, name: str, unit: str) -> str:
    metric = result.metrics.get(name)
    if metric is None or metric.unit != unit:
        return ""
    own = reading.unit(result, name)
    return reading.figure(metric.value) + (f" {own}" if own != unit else "")


def _fitting(
    head: str, header: Sequence[str], lines: Sequence[Sequence[str]], foot: str, limit: int, right: Iterable[int] = ()
) -> str:
    """A table of as many lines as fit into ``limit`` characters, and how many are left out; empty where none does."""
    whole = head + marked.table(header, lines, right=right) + foot
    if len(whole) <= limit:
        return whole
    more = "\n… and {:,} more are in the session's files.\n"
    room = limit - len(head + marked.table(header, (), right=right) + foot) - len(more) - 10
    fitting = 0
    for line in lines:
        room -= len(marked.row(line))
        if room < 0:
            break
        fitting += 1
    if not fitting:
        note = f"{len(lines):,} rows do not fit here; they are in the session's files.\n"
        return note if len(note) <= limit else ""
    return head + marked.table(header, lines[:fitting], right=right) + more.format(len(lines) - fitting) + foot

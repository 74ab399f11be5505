"""Everything the report shows, as plain data: the page is rendered from it, and tests compare it with other reports."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import __version__
from pytest_flagperf import sessions
from pytest_flagperf.judging import resume
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html import cases
from pytest_flagperf.reports.html import operators
from pytest_flagperf.reports.html import texts
from pytest_flagperf.reports.html.bands import Bands
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


Found = list[tuple[SessionFiles, Result]]

# Columns of the table of inference, in this order.
OF_INFERENCE = (
    *("p_inference_whole", "p_inference_core", "qps", "ttft", "tpot", "tokens_per_second_per_device"),
    *("latency_p50", "latency_p99", "compile_time", "memory_peak"),
)


def gather(directories: Iterable[Path]) -> dict[str, Any]:
    """The sessions in these directories. Raises ``ReplayError`` where one is no session."""
    read = reading.apart(sessions.read_all(directories))
    found = once(read)
    models = [(session, result) for session, result in found if result.case.kind != "operator"]
    share = cases.Share.of([result for _, result in models], len(found))
    found_bands = Bands()
    described = [cases.describe(session, result, share, found_bands.of(session, result)) for session, result in models]
    families = operators.families(
        [(session, result) for session, result in found if result.case.kind == "operator"], share
    )
    _number(described, "case")
    _number(families, "family")
    _number([row for family in families for row in family["rows"]], "operator")
    labels = {one.name: f"S{number}" for number, one in enumerate(read, 1)}
    everything = [*described, *(row for family in families for row in family["rows"])]
    over = [_derived(one, number) for number, one in enumerate(read, 1)]
    return {
        "version": __version__,
        "time": time.time(),
        "sessions": [{**_session(one), "label": labels[one.name]} for one in read],
        "labels": labels,
        "facts": facts(read),
        "counts": counts(everything),
        "stood_in": sum(1 for row in everything if reading.STAND_IN in row["marks"]),
        "support": support(everything),
        "attention": sorted(
            (row for row in everything if row["amiss"]), key=lambda row: reading.severity(row["verdict"])
        ),
        "unmet": [row for entry in over for row in entry["requirements"] if not row["met"]],
        "derived": [entry for entry in over if any(entry[name] for name in ("metrics", "left_out", "requirements"))],
        "cases": described,
        "measured": measured(described),
        "families": families,
        "beside": beside(read, models),
    }


def once(read: Sequence[SessionFiles]) -> Found:
    """The results, each case once: one that a later session took over or ran again with ``--resume`` is left out."""
    replaced: set[tuple[str, str]] = set()
    for session in read:
        replaced |= {(name, result.case.node_id) for name in _resumed(session) for result in session.results}
    return [
        (session, result)
        for session in read
        for result in session.results
        if not result.case.node_id or (session.name, result.case.node_id) not in replaced
    ]


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Verdict → how many, what is amiss first."""
    found = Counter(row["verdict"] for row in rows)
    tones = ("bad", "doubtful", "plain", "good")
    return dict(sorted(found.items(), key=lambda one: (tones.index(texts.word(one[0]).tone), one[0])))


def measured(described: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name and unit of the figures that have a column in the table of inference: those that any case has.

    The unit is empty where cases count in several: images, tokens. Then it stands with the figure.
    """
    found: dict[str, set[str]] = {}
    for row in described:
        for one in row["metrics"] if row["inference"] else ():
            found.setdefault(one["name"], set()).add(one["unit"])
    return [(name, "".join(found[name]) if len(found[name]) == 1 else "") for name in OF_INFERENCE if name in found]


def support(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Model × framework and engine, and for each vendor and chip the verdicts, a count for each way they were made.

    What ran on a stand-in says nothing of the chip: it has no verdict here, whatever its own is.
    """
    cells: dict[tuple[str, str, str, str], dict[str, Counter[tuple[str, tuple[str, ...]]]]] = {}
    for row in rows:
        cell = cells.setdefault((row["kind"], row["model"], row["framework"], row["engine"]), {})
        verdict = "" if reading.STAND_IN in row["marks"] else row["verdict"]
        cell.setdefault(row["on"], Counter())[verdict, tuple(row["marks"])] += 1
    return {
        "columns": sorted({on for cell in cells.values() for on in cell}),
        "rows": [
            {
                "kind": kind,
                "model": model,
                "framework": framework,
                "engine": engine,
                "cells": {
                    on: [
                        {"verdict": verdict, "marks": list(marks), "count": count}
                        for (verdict, marks), count in found.items()
                    ]
                    for on, found in cell.items()
                },
            }
            for (kind, model, framework, engine), cell in sorted(
                cells.items(), key=lambda one: (one[0][0] == "operator", one[0])
            )
        ],
    }


def facts(read: Sequence[SessionFiles]) -> list[dict[str, Any]]:
    """What there is to know of the sessions, a row for each fact; ``differs`` where the sessions do."""
    columns = [_facts(one) for one in read]
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [(kind, name, [column.get((kind, name), "") for column in columns]) for kind, name in keys]
    return [
        {"kind": kind, "name": name, "values": values, "differs": len(set(values)) > 1 and kind not in _ALWAYS_DIFFER}
        for kind, name, values in rows
    ]


_ALWAYS_DIFFER = ("started", "time_ended", "command", "directory")


def beside(read: Sequence[SessionFiles], models: Found) -> dict[str, Any]:
    """The main figures of the cases that several sessions have: those ``sessions``, and a row for each figure."""
    by_case: dict[str, dict[str, Result]] = {}
    for session, result in models:
        by_case.setdefault(result.case.id, {})[session.name] = result
    shared = {case: results for case, results in by_case.items() if len(results) > 1}
    names = [one.name for one in read if any(one.name in results for results in shared.values())]
    rows = [row for case, results in shared.items() for row in _beside(case, [results.get(name) for name in names])]
    return {"sessions": names, "rows": rows}


def _beside(case: str, columns: Sequence[Result | None]) -> list[dict[str, Any]]:
    there = [one for one in columns if one is not None]
    quality = {target.metric for one in there for target in one.targets}
    shown = [name for one in there for name in one.metrics if name in cases.MAIN or name in quality]
    rows = []
    for name in dict.fromkeys(shown):
        values = [_value(one, name) for one in columns]
        unit = next(reading.unit(one, name) for one in there if name in one.metrics)
        # What a comparison with the baseline found is the only change that was judged.
        judged = [next((c for c in one.comparisons if c.metric == name), None) if one else None for one in columns]
        changes = [None if one is None else {"change": one.change, "verdict": one.verdict} for one in judged]
        rows.append({"case": case, "metric": name, "unit": unit, "values": values, "changes": changes})
    return rows


def _value(result: Result | None, name: str) -> float | None:
    return result.metrics[name].value if result is not None and name in result.metrics else None


def _number(rows: Iterable[dict[str, Any]], kind: str) -> None:
    for number, row in enumerate(rows, 1):
        row["anchor"] = f"{kind}-{number}"


def _resumed(session: SessionFiles) -> set[str]:
    """The earlier sessions that this one went on with: its results stand in the place of theirs."""
    told = sessions.table(session.description, "resumed").get("session")
    return {str(name) for name in (told, *map(resume.source_of, session.results)) if name} - {session.name}


def _session(session: SessionFiles) -> dict[str, Any]:
    description = session.description
    return {
        "name": session.name,
        "directory": str(session.directory),
        "vendor": str(description.get("vendor", "")),
        "unfinished": list(session.unfinished),
        "problems": reading.problems(session),
        "line": _line(session),
        "exit_status": description.get("exit_status"),
        "has_ended": "time_ended" in description,
        "cases": len(session.results),
    }


def _facts(session: SessionFiles) -> dict[tuple[str, str], str]:
    """Kind of fact and name within it → text; what nobody wrote down is left out."""
    description = session.description
    host = sessions.table(description, "host")
    environment = sessions.table(description, "environment")
    found = [
        ("started", "", moment(description.get("time_started"))),
        ("time_ended", "", moment(description.get("time_ended"))),
        ("exit_status", "", _told(description.get("exit_status"))),
        ("host", "", _told(host.get("name"))),
        ("processor", "", " · ".join(filter(None, [_told(host.get("cpu")), _cores(host)]))),
        ("host_memory", "", f"{host['memory_gib']} GiB" if "memory_gib" in host else ""),
        ("platform", "", _told(host.get("platform"))),
        ("vendor", "", _told(description.get("vendor"))),
        ("device", "", _devices(description)),
        ("driver", "", _told(description.get("driver"))),
        *(("software", name, _told(value)) for name, value in sessions.table(description, "versions").items()),
        ("commit", "", sessions.commit_of(description)),
        ("command", "", shlex.join(map(str, reading.listing(description.get("command"))))),
        *(("environment", name, _told(value)) for name, value in environment.items()),
        ("directory", "", str(session.directory)),
    ]
    return {(kind, name): value for kind, name, value in found if value}


def _line(session: SessionFiles) -> list[str]:
    """What a reader asks first of a session: when, where, on which chip, with which driver, from which commit."""
    description = session.description
    commit = _told(sessions.table(description, "source").get("commit"))[:12]
    chips = {one.case.chip for one in session.results if one.case.chip and not one.case.stand_in}
    found = [
        moment(description.get("time_started")),
        _told(sessions.table(description, "host").get("name")),
        _devices(description) or ", ".join(sorted(chips)),
        _told(description.get("driver")),
        commit,
    ]
    return [text for text in found if text]


def _devices(description: Mapping[str, Any]) -> str:
    names = [_told(reading.mapping(one).get("name")) for one in reading.listing(description.get("device_list"))]
    return ", ".join(f"{count} × {name}" for name, count in Counter(filter(None, names)).items())


def _derived(session: SessionFiles, number: int) -> dict[str, Any]:
    """The figures across cases, and what was required of them."""
    found = reading.over_cases(session)
    required = [
        {**msgspec.to_builtins(one), "why": "" if one.met else reading.said(one), "session": session.name}
        | {"anchor": f"required-{number}-{place}"}
        for place, one in enumerate(found.requirements, 1)
    ]
    rows = [{**msgspec.to_builtins(one), "label": one.label} for one in found.metrics]
    return {"session": session.name, "metrics": rows, "left_out": list(found.left_out), "requirements": required}


def moment(seconds: Any) -> str:
    """A time as text in UTC, which is the same for every reader; empty where nobody wrote it down."""
    if not isinstance(seconds, (int, float)):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _cores(host: Mapping[str, Any]) -> str:
    return f"{host['cpus']} CPUs" if "cpus" in host else ""


def _told(value: Any) -> str:
    return "" if value is None else str(value)

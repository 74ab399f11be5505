"""Allure: parameters that tell devices apart, figures as a description, logs and curves attached, metrics over time.

Imported only where allure-pytest is active. Measured values never become parameters: Allure makes a test's history
from its parameters, and a figure changes with every run.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import allure
import msgspec
import pytest

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import gate
from pytest_flagperf.reports import curve
from pytest_flagperf.reports import inference
from pytest_flagperf.result import Result


# A log of gigabytes does not belong into a report; its end does.
ATTACHED_BYTES = 256 * 1024
SHORT_UNIT = 3

# Allure 2 reads categories.json, Allure 3 its configuration; the expressions are valid in Java and in JavaScript.
CATEGORIES = [
    {"name": "Target missed", "matchedStatuses": ["failed"], "messageRegex": r"[\s\S]*missed its target[\s\S]*"},
    {"name": "Regressed", "matchedStatuses": ["failed"], "messageRegex": r"[\s\S]*worse than its baseline[\s\S]*"},
    {"name": "Regressed", "matchedStatuses": ["failed"], "messageRegex": r"[\s\S]*left the band of its base[\s\S]*"},
    {"name": "Undecided", "matchedStatuses": ["failed"], "messageRegex": r"[\s\S]*told from its baseline[\s\S]*"},
    {"name": "Requirement missed", "matchedStatuses": ["failed"], "messageRegex": r"[\s\S]*RequirementMissed[\s\S]*"},
    {"name": "Wrong result", "matchedStatuses": ["failed"], "messageRegex": r"[\s\S]*answer is wrong[\s\S]*"},
    {"name": "Dataset missing or corrupt", "matchedStatuses": ["broken"], "traceRegex": r"[\s\S]*DatasetError[\s\S]*"},
    {"name": "Device unavailable", "matchedStatuses": ["broken"], "traceRegex": r"[\s\S]*DeviceUnavailable[\s\S]*"},
    {
        "name": "Rank crashed, stalled or timed out",
        "matchedStatuses": ["broken"],
        "traceRegex": r"[\s\S]*(Rank(Crashed|Stalled)|JobTimedOut|LaunchFailed|NonFinite|ParametersDiverged|"
        r"OperatorFailed|OutOfMemory)[\s\S]*",
    },
    {"name": "Invalid measurement", "matchedStatuses": ["broken"], "traceRegex": r"[\s\S]*InvalidMeasurement[\s\S]*"},
]


def pytest_flagperf_result(item: pytest.Item, result: Result, directory: Path) -> None:
    """Describe the running test and attach its files."""
    case = result.case
    allure.dynamic.parameter("vendor", case.vendor)
    allure.dynamic.parameter("device", case.chip or case.vendor)
    allure.dynamic.parameter("topology", case.topology)
    allure.dynamic.parameter("division", case.division)
    if case.engine:
        allure.dynamic.parameter("engine", case.engine)
    allure.dynamic.tag(f"{case.division} division")
    allure.dynamic.tag(result.verdict)
    allure.dynamic.label("verdict", result.verdict)
    allure.dynamic.epic("FlagPerf")
    allure.dynamic.feature(case.model)
    allure.dynamic.story(case.role)
    text = description(result)
    allure.dynamic.description(text)
    # What is said in a fixture allure-pytest replaces by the mark's text once the set-up is over.
    item.add_marker(pytest.mark.allure_description(text), append=False)
    if case.kind == "operator":
        document = msgspec.json.format(msgspec.json.encode(result), indent=2)
        allure.attach(document, "result.json", allure.attachment_type.JSON)
    else:
        allure.attach.file(directory / "result.json", "result.json", allure.attachment_type.JSON)
    if result.diff:
        allure.attach(result.diff, "open-division.diff", allure.attachment_type.TEXT)
    for one in result.rounds:
        suffix = f" round {one.round}" if len(result.rounds) > 1 else ""
        # Inference learns nothing: there is no curve.
        if not inference.is_inference(result):
            _attach_curve(one, suffix)
        for log in sorted(Path(one.directory).glob("*/*.log")):
            allure.attach(tail(log), f"{log.name}{suffix}", allure.attachment_type.TEXT)


def _attach_curve(one: results.RoundResult, suffix: str) -> None:
    drawn = curve.as_svg(one, "training loss and quality")
    if drawn is not None:
        allure.attach(drawn, f"curve{suffix}", allure.attachment_type.SVG)
    if one.evaluations:
        allure.attach(curve.as_csv(one), f"curve.csv{suffix}", allure.attachment_type.CSV)


def tail(path: Path) -> str:
    """The last ``ATTACHED_BYTES`` of a log, and a line that says what was left out."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - ATTACHED_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return text if size <= ATTACHED_BYTES else f"({size - ATTACHED_BYTES:,} bytes before this are in {path})\n{text}"


def description(result: Result) -> str:
    """Targets and figures as Markdown tables."""
    lines = [f"**{result.verdict}**" + (f": `{result.error.type}`" if result.error else "")]
    if result.dataset.synthetic:
        lines.append("Synthetic data: throughput only.")
    if inference.has_random_weights(result):
        lines.append("Random weights: speed only.")
    if result.case.division == "open":
        lines.append("Open division: the vendor replaced the workload's code. The diff is attached.")
    if result.case.stand_in:
        lines.append(f"The workload ran on {result.case.stand_in}: no measurement of {result.case.vendor}.")
    if result.targets:
        lines += ["", "| target | bound | measured | |", "|---|---|---|---|"]
        for target in result.targets:
            found = "-" if target.value is None else f"{target.value:.6g}"
            met = "met" if target.met else "missed"
            lines.append(f"| {target.metric} | {target.direction} {target.bound:g} | {found} | {met} |")
    if result.metrics:
        lines += ["", "| metric | value | unit |", "|---|---|---|"]
        lines += [
            f"| {name} | {metric.value:.6g} | {results.unit_of(result, name)} |"
            for name, metric in result.metrics.items()
        ]
    lines += comparisons(result)
    if result.notes:
        # Some of it a driver said: text, and no markup.
        lines += ["", *(f"* `{text.replace('`', chr(39))}`" for text in result.notes)]
    if result.deviations:
        lines += ["", "Differs from the standard case:", *(f"* `{text}`" for text in result.deviations)]
    return "\n".join(lines)


def comparisons(result: Result) -> list[str]:
    """The metrics beside their baseline as a Markdown table, what is worst first."""
    if not result.comparisons:
        return []
    lines = ["", "| metric | measured | baseline | change | verdict |", "|---|---|---|---|---|"]
    for one in gate.foremost(result.comparisons):
        figures = ["-" if value is None else f"{value:.6g}" for value in (one.value, one.baseline)]
        change = "-" if one.change is None else gate.percent(one.change)
        lines.append(f"| {one.metric} | {' | '.join(figures)} | {change} | {one.verdict} |")
    reasons = dict.fromkeys(reason for one in result.comparisons for reason in one.reasons)
    return [*lines, *(f"* `{text.replace('`', chr(39))}`" for text in ("", *reasons) if text)]


def finish(report: Path, session: Path, directories: Mapping[str, Path], operators: Mapping[str, Path]) -> None:
    """Write what Allure reads once a session: environment, categories, and the figures for its metrics page."""
    found = []
    if operators:
        from pytest_flagperf.operators import table

        found += table.read(operators)
    for directory in directories.values():
        try:
            found.append(results.read_result(directory / "result.json"))
        except ReplayError:
            continue  # said in the terminal's summary already
    document = json.loads((session / "session.json").read_bytes())
    records.write_atomically(report / "environment.properties", environment(document).encode())
    records.write_json(report / "categories.json", CATEGORIES)
    records.write_json(report / f"flagperf-{session.name}-perf.json", performance(found))
    records.write_atomically(session / "allurerc.mjs", configuration(found).encode())


def environment(session: Mapping[str, object]) -> str:
    """``environment.properties``: versions, vendor and host of the session."""
    rows: dict[str, object] = {"vendor": session.get("vendor"), "devices": session.get("devices")}
    for group in ("versions", "host"):
        value = session.get(group)
        if isinstance(value, dict):
            rows.update({f"{group}.{key}": item for key, item in value.items()})
    return "".join(f"{_escaped(key)}={_escaped(str(value))}\n" for key, value in rows.items())


def _escaped(text: str) -> str:
    # The format of java.util.Properties, which is Latin-1.
    return (
        text.replace("\\", "\\\\")
        .replace("\n", "\\n")
        .replace("=", "\\=")
        .replace(":", "\\:")
        .encode("ascii", "backslashreplace")
        .decode()
    )


def performance(found: list[Result]) -> list[dict[str, object]]:
    """Allure 3's performance records: a key a case and metric, so that its page shows trends."""
    records = []
    for result in found:
        start = int(
            min((r.time_started for r in result.rounds if r.time_started is not None), default=time.time()) * 1000
        )
        stop = start + int(1000 * (result.metrics["e2e_time"].value if "e2e_time" in result.metrics else 0))
        for name, metric in result.metrics.items():
            records.append(
                {
                    "id": str(uuid.uuid4()),
                    "key": f"{_group(result)}.{name}",
                    "value": metric.value,
                    "start": start,
                    "stop": stop,
                }
            )
    return records


def _group(result: Result) -> str:
    return f"{result.case.id}-{result.case.chip or result.case.vendor}"


def configuration(found: list[Result]) -> str:
    """``allurerc.mjs``: titles, units and directions of the metrics; ``allure generate --config`` reads it."""
    groups = {_group(result): {"title": _group(result)} for result in found}
    metrics = {
        f"{_group(result)}.{name}": {
            # The page's columns are narrow: a long unit goes into the title.
            "title": name if len(metric.unit) <= SHORT_UNIT else f"{name} ({metric.unit})",
            "unit": metric.unit if 1 < len(metric.unit) <= SHORT_UNIT or metric.unit == "s" else "",
            "better": metric.better,
            "group": _group(result),
        }
        for result in found
        for name, metric in result.metrics.items()
    }
    document = {
        "name": "FlagPerf",
        "output": "./allure-report",
        "historyPath": "./allure-history.jsonl",
        "categories": CATEGORIES,
        "performance": {"groups": groups, "metrics": metrics},
        "plugins": {"awesome": {"options": {"singleFile": True, "reportLanguage": "en"}}},
    }
    return f"export default {json.dumps(document, indent=2)};\n"

"""The table at the end of the terminal's output."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tabulate

from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import derived as figures
from pytest_flagperf.judging import gate
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import requirements
from pytest_flagperf.judging import resume
from pytest_flagperf.reports import inference
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.progress import printable
from pytest_flagperf.result import Result
from pytest_flagperf.result import read_result


MOST_NOTES = 10
MOST_NAMES = 5
COLUMNS = ("case", "quality", "p_whole", "p_train", "p_core", "e2e", "memory", "verdict")
INFERENCE_COLUMNS = (
    *("inference", "engine", "quality", "kept", "rates in", "p_val_core", "p_infer_whole", "p_infer_core"),
    *("latency p99", "compile", "memory", "verdict"),
)
LOADGEN_COLUMNS = (
    *("MLPerf scenario", "engine", "rules", "quality", "kept", "ranked by", "latency p50", "latency p99"),
    *("compile", "memory", "verdict"),
)
# Targets of every engine: of what is met the table has a column, or nothing to say.
OF_ENGINE = ("quality_ratio", "output_error")
CHANGE = "vs baseline"
# Comparisons that are told in words.
SAID = ("regressed", "inconclusive", "improved")
APART = "not comparable"
_DERIVED_COLUMNS = ("figure", "case", "value", "made of")


def summarize(terminalreporter: Any, directories: Mapping[str, Path]) -> None:
    """Write the table of all results of the session; with ``-q`` only where something is not passed."""
    results = []
    for directory in directories.values():
        try:
            results.append(read_result(directory / "result.json"))
        except ReplayError as error:
            terminalreporter.write_line(printable(str(error)))
    session = next(iter(directories.values())).parent
    well = all(result.verdict == "passed" for result in results) and not unmet(session)
    if not results or (terminalreporter.config.get_verbosity() < 0 and well):
        return
    terminalreporter.section("FlagPerf results")
    for line in summary(results, session):
        terminalreporter.write_line(line)
    terminalreporter.write_line("")
    terminalreporter.write_line(f"results: {session}")


def summary(results: Sequence[Result], session: Path) -> list[str]:
    """All there is to say of the results of models in a session: the table first, the figures across cases last."""
    return [
        *table(results).splitlines(),
        tally(results, unmet(session)),
        *compared(results),
        *apart(results),
        *too_few(results, session),
        *notes(results),
        *derived(session),
        *required(session),
    ]


def table(results: Sequence[Result]) -> str:
    """Results as text tables, those of inference in one of their own, LoadGen's in another."""
    inferred = [result for result in results if inference.is_inference(result)]
    others = [result for result in results if not inference.is_inference(result)]
    loops = [result for result in inferred if result.case.role not in inference.SCENARIOS]
    scenarios = [result for result in inferred if result.case.role in inference.SCENARIOS]
    tables = ((training_table, others), (inference_table, loops), (loadgen_table, scenarios))
    return "\n\n".join(text(found) for text, found in tables if found)


def training_table(results: Sequence[Result]) -> str:
    """Results as a text table: samples/s, seconds, GiB; what was not measured is blank.

    The change against the baseline has a column where anything was compared.
    """
    return _laid_out(results, [row(result) for result in results], COLUMNS, text=2)


def inference_table(results: Sequence[Result]) -> str:
    """As above, of inference: rates in what the case counts, ms, seconds; memory in GiB, at the edge in MiB."""
    return _laid_out(results, [inference_row(result) for result in results], INFERENCE_COLUMNS, text=3)


def loadgen_table(results: Sequence[Result]) -> str:
    """As above, of MLPerf's scenarios: by which figure MLPerf ranks each, and whether its rules were kept to."""
    return _laid_out(results, [loadgen_row(result) for result in results], LOADGEN_COLUMNS, text=4)


def _laid_out(results: Sequence[Result], cells_of: Sequence[list[str]], columns: Sequence[str], *, text: int) -> str:
    """The table; the first ``text`` columns and the last are text, the rest figures."""
    rows = [[printable(cell) for cell in cells] for cells in cells_of]
    headers, alignment = list(columns), [*["left"] * text, *["right"] * (len(columns) - text - 1), "left"]
    if any(result.comparisons for result in results):
        headers.insert(-1, CHANGE)
        alignment.insert(-1, "left")
        for cells, result in zip(rows, results, strict=True):
            cells.insert(-1, change(result))
    return str(tabulate.tabulate(rows, headers=headers, disable_numparse=True, colalign=alignment))


def change(result: Result) -> str:
    """``p_train -6.2 %``: the comparison that matters most; what else was judged is in ``result.json``."""
    for one in gate.foremost(result.comparisons):
        if one.change is not None:
            return f"{one.metric} {gate.percent(one.change)}"
    return ""


def tally(results: Sequence[Result], requirements: int = 0) -> str:
    """``3 passed, 1 regressed, 1 requirement not met``."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.verdict] = counts.get(result.verdict, 0) + 1
    told = [f"{count} {name}" for name, count in counts.items()]
    missed = [f"{requirements} requirement{'s' if requirements > 1 else ''} not met"] if requirements else []
    return "verdicts: " + ", ".join([*told, *missed])


def compared(results: Sequence[Result]) -> list[str]:
    """What a comparison found that is not just as before, in words."""
    lines = []
    for result in results:
        found = [one for one in gate.foremost(result.comparisons) if one.verdict in SAID]
        if found:
            lines.append(f"{_name(result)}:")
        for one in found:
            said = gate.sentences(one, gate.unit(result, one.metric))
            lines += [f"  {one.verdict}: {said[0].strip()}", *said[1:]]
    return [printable(line) for line in lines]


def _name(result: Result) -> str:
    case = result.case
    return case.id if case.kind == "operator" else f"{case.model} {case.role}"


def apart(results: Sequence[Result]) -> list[str]:
    """Why results do not compare with their baseline: what differs, each once with the cases it is of."""
    told: dict[str, list[str]] = {}
    for result in results:
        differing = [one for one in result.comparisons if one.verdict == APART]
        if differing:
            reasons = dict.fromkeys(reason for one in differing for reason in one.reasons)
            told.setdefault("; ".join(reasons), []).append(_name(result))
    shown = [f"not comparable: {reasons} ({_some(dict.fromkeys(names))})" for reasons, names in told.items()]
    more = len(shown) - MOST_NOTES
    kept = shown if more <= 0 else [*shown[:MOST_NOTES], f"… {more} others are in the result.json files"]
    return [printable(line) for line in kept]


def _some(names: Collection[str]) -> str:
    shown = list(names)[:MOST_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def too_few(results: Sequence[Result], session: Path) -> list[str]:
    """A line on the cases that no loss could make regressed, because there are too few samples of them."""
    judged = [result for result in results if any(one.interval or one.change is not None for one in result.comparisons)]
    counts = [count for result in judged if (count := _short(result)) is not None]
    if not counts:
        return []
    least, most = min(counts), max(counts)
    there = f"{least} samples" if least == most else f"{least} to {most} samples"
    of = f"{len(counts)} of {len(judged)} case{'s' if len(judged) > 1 else ''} cannot regress beside this baseline"
    rounds = "" if all(result.case.kind == "operator" for result in judged) else "; --rounds adds samples too"
    needed = f"new and stored, {compare.FEWEST} are needed"
    return [printable(f"{of}, but by a bound: {there}, {needed} ({_adding(judged, session)}{rounds})")]


def _adding(judged: Sequence[Result], session: Path) -> str:
    """What adds the samples of a session to the baseline that results were judged by, a file or sessions."""
    sources = {one.source for result in judged for one in result.comparisons if one.source}
    if len(sources) != 1 or not (file := sources.pop()).endswith(".toml"):
        return "a baseline of more sessions is needed, see flagperf rebase"
    # One case of a session may be shown by itself.
    whole = session.parent if (session / "result.json").is_file() else session
    return f"{shlex.join(['flagperf', 'rebase', str(whole), '--baseline', file, '--write'])} adds this session's"


def _short(result: Result) -> int | None:
    """The most samples that any metric of a result has, new and stored, where none has as many as it takes."""
    counts = [
        len(one.samples) + len(gathering.samples(result, one.metric))
        for one in result.comparisons
        if one.tolerance is not None and one.samples and one.change is not None
    ]
    return max(counts) if counts and max(counts) < compare.FEWEST else None


def summarize_operators(terminalreporter: Any, found: Sequence[Result], session: Path) -> None:
    """Write what comparisons of operators found: how many of each verdict, and the first of what is not as before."""
    for line in beside_baseline(found, session):
        terminalreporter.write_line(line)


def beside_baseline(found: Sequence[Result], session: Path) -> list[str]:
    """What :func:`summarize_operators` writes."""
    judged = [one for one in found if one.comparisons]
    if not judged:
        return []
    lines = [f"beside the baseline, {tally(judged)}"]
    amiss = [one for one in judged if one.verdict in SAID]
    lines += compared(sorted(amiss, key=lambda one: SAID.index(one.verdict))[:MOST_NOTES])
    if len(amiss) > MOST_NOTES:
        lines.append(f"… {len(amiss) - MOST_NOTES} more are in the results.jsonl files")
    return [*lines, *apart(judged), *too_few(judged, session)]


def derived(session: Path) -> list[str]:
    """The figures across cases as a table, and what is to be known of them."""
    try:
        found = figures.read(session)
    except ReplayError as error:
        return ["", printable(str(error))]
    if found is None or not (found.metrics or found.left_out):
        return []
    rows = [(one.name, one.label, f"{one.value:.3f}", made_of(one)) for one in found.metrics]
    text = tabulate.tabulate(
        [[printable(cell) for cell in row] for row in rows],
        headers=_DERIVED_COLUMNS,
        disable_numparse=True,
        colalign=("left", "left", "right", "left"),
    )
    left = [printable(f"left out: {line}") for line in found.left_out]
    return ["", *(str(text).splitlines() if rows else []), *left]


def unmet(session: Path) -> int:
    """How many of the session's requirements are not met."""
    found = _derived(session)
    return sum(not one.met for one in found.requirements) if found is not None else 0


def required(session: Path) -> list[str]:
    """What came of each ``--require``: that it is met, or where it is not."""
    found = _derived(session)
    if found is None or not found.requirements:
        return []
    said = []
    for one in found.requirements:
        told = f"required, met: {one.text}" if one.met else f"required, not met: {requirements.message(one, found)}"
        said += told.splitlines()
    return ["", *map(printable, said)]


def _derived(session: Path) -> figures.Derived | None:
    """``derived.json``, where it is there and can be read; that it cannot :func:`derived` says."""
    with contextlib.suppress(ReplayError):
        return figures.read(session)
    return None


def made_of(one: figures.DerivedMetric) -> str:
    """What was divided by what, and what to mind."""
    values = " and ".join(f"{value:,.1f}" for value in one.inputs.values())
    return "; ".join([f"{one.of} {values}", *one.remarks, *([one.source] if one.source else [])])


def row(result: Result) -> list[str]:
    """One result's cells, in the order of ``COLUMNS``."""
    return [
        _without_engine(result),
        quality(result),
        *(_figure(result, name, "{:,.1f}") for name in ("p_whole", "p_train", "p_core")),
        _figure(result, "e2e_time", "{:,.1f} s"),
        memory(result),
        _verdict(result),
    ]


def inference_row(result: Result) -> list[str]:
    """One result's cells, in the order of ``INFERENCE_COLUMNS``."""
    edge = result.case.role == "edge"
    peak = result.metrics.get("memory_peak")
    in_mib = f"{peak.value * 1024:.1f} MiB" if edge and peak is not None else ""
    return [
        _without_engine(result),
        result.case.engine,
        quality(result, leave_out=OF_ENGINE),
        _figure(result, "quality_ratio", "{:.4f}"),
        inference.rate_unit(result),
        *(_figure(result, f"p_{name}", "{:,.1f}") for name in ("validation_core", "inference_whole", "inference_core")),
        _figure(result, "latency_p99", "{:,.3g} ms"),
        _figure(result, "compile_time", "{:,.1f} s"),
        in_mib or memory(result),
        _verdict(result),
    ]


def loadgen_row(result: Result) -> list[str]:
    """One result's cells, in the order of ``LOADGEN_COLUMNS``; of what is shortened the notes say how."""
    return [
        _without_engine(result),
        result.case.engine,
        inference.rules(result).partition(":")[0],
        quality(result, leave_out=OF_ENGINE),
        _figure(result, "quality_ratio", "{:.4f}"),
        inference.ranking(result),
        *(_figure(result, f"latency_{name}", "{:,.3g} ms") for name in ("p50", "p99")),
        _figure(result, "compile_time", "{:,.1f} s"),
        memory(result),
        _verdict(result),
    ]


def _without_engine(result: Result) -> str:
    case = result.case
    selection = f"{case.framework}-{case.precision}-{case.topology}-{case.scale}"
    return f"{case.model} {case.role} [{selection}] {case.vendor}" + (f" {case.chip}" if case.chip else "")


def _verdict(result: Result) -> str:
    # One that was stopped early has the error of its verdict.
    named = result.error is not None and result.verdict not in SAID
    verdict = f"{result.verdict}: {result.error.type}" if result.error is not None and named else result.verdict
    return verdict + "".join(f" ({remark})" for remark in remarks(result))


def notes(results: Sequence[Result]) -> list[str]:
    """What the results say beside their figures, each text once with the cases it is of."""
    told: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            told.setdefault(note, []).append(f"{result.case.model} {result.case.role}")
    shown = [f"note: {printable(note)} ({', '.join(dict.fromkeys(cases))})" for note, cases in told.items()]
    more = len(shown) - MOST_NOTES
    return shown if more <= 0 else [*shown[:MOST_NOTES], f"… {more} notes more are in the result.json files"]


def remarks(result: Result) -> list[str]:
    """What a reader of the verdict has to know with it."""
    found = ["synthetic data"] if result.dataset.synthetic else []
    found += ["random weights"] if result.weights is not None and result.weights.origin == "random" else []
    if any(map(resume.is_note, result.notes)):
        found.append("resumed")
    if result.case.division == "open":
        found.append("open division")
    if result.case.stand_in:
        found.append(f"ran on {result.case.stand_in}: no measurement of {result.case.vendor}")
    return found


def quality(result: Result, leave_out: Sequence[str] = ()) -> str:
    """``top1 0.9790 >= 0.96``: each target with what was found, but for those that have a column of their own."""
    cells = []
    for target in result.targets:
        if target.metric in leave_out and target.met:
            continue
        sign = ">=" if target.direction == "at least" else "<="
        if not target.met:
            sign = {"<=": ">", ">=": "<"}[sign]
        found = "-" if target.value is None else f"{target.value:.4f}"
        if target.value is not None and target.value != target.bound and float(found) == target.bound:
            found = reading.figure(target.value, target.bound)
        cells.append(f"{target.metric} {found} {sign} {target.bound:g}")
    return ", ".join(cells)


def memory(result: Result) -> str:
    """``0.41/23.5 GiB``: the peak beside what there is."""
    peak = _figure(result, "memory_peak", "{:.2f}")
    total = _figure(result, "memory_total", "{:.1f}")
    return f"{peak}/{total} GiB" if peak and total else (f"{peak} GiB" if peak else "")


def _figure(result: Result, name: str, form: str) -> str:
    metric = result.metrics.get(name)
    return "" if metric is None else form.format(metric.value)

"""The Result of a case, and the run directory on disk.

Everything a report shows can be made again from these files on another machine. The schema of ``result.json`` is
published as ``pytest_flagperf/schemas/result.schema.json``; ``schema_version`` changes when a field changes meaning.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import metrics
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.records import UNDECODABLE
from pytest_flagperf.records import read_lines
from pytest_flagperf.records import read_whole
from pytest_flagperf.records import write_atomically
from pytest_flagperf.records import write_json


SCHEMA_VERSION = "1.4"

# The unit of rates in the registry, and the rate that is LoadGen's own where LoadGen measured.
SAMPLES, LOADGEN_RATE = "samples/s", "p_inference_whole"


class MetricValue(msgspec.Struct, frozen=True):
    """A measured figure with its unit and the direction that is better."""

    value: float
    unit: str
    better: str


class TargetResult(msgspec.Struct, frozen=True):
    """A target and what was found; ``value`` is null where nothing was measured."""

    metric: str
    bound: float
    direction: str
    source: str
    value: float | None
    met: bool


class EvaluationResult(msgspec.Struct, frozen=True):
    """One evaluation: seconds since TRAIN_START, and the quality it found."""

    epoch: float
    step: int
    seconds: float
    quality: dict[str, float]


class ErrorResult(msgspec.Struct, frozen=True):
    """Why a measurement could not be made or trusted."""

    type: str
    message: str

    @classmethod
    def of(cls, error: Exception | None) -> ErrorResult | None:
        """The record of an error; ``None`` where there was none."""
        return None if error is None else cls(type(error).__name__, str(error))


class SpreadResult(msgspec.Struct, frozen=True):
    """How a figure came of its rounds.

    ``samples`` are the rounds' figures in their order, those that were dropped included. ``method`` is ``single``,
    ``median`` or ``olympic mean``. ``low`` and ``high`` are the 95 % confidence interval of the figure and ``cv`` the
    coefficient of variation of the samples; null where there are too few of them.
    """

    samples: list[float]
    method: str
    low: float | None = None
    high: float | None = None
    cv: float | None = None


class ComparisonResult(msgspec.Struct, frozen=True):
    """A metric beside its baseline.

    ``verdict`` is ``passed``, ``regressed``, ``improved``, ``inconclusive``, ``no baseline`` or ``not comparable``.
    ``change`` is measured / baseline - 1, and ``interval`` its confidence interval. ``method`` says how it was judged,
    ``tolerance`` what change does not count, as a ratio. ``reasons`` says which fields differ, or what is missing.
    """

    metric: str
    verdict: str
    value: float | None
    baseline: float | None = None
    change: float | None = None
    interval: list[float] | None = None
    method: str = ""
    tolerance: float | None = None
    samples: list[float] = []
    source: str = ""
    reasons: list[str] = []


class LoadGenResult(msgspec.Struct, frozen=True):
    """What LoadGen said of its run: whether it is valid, and why not.

    ``shortened`` is what of MLPerf's rules was: name → [what it was, what the rules ask for].
    """

    scenario: str
    valid: bool
    reasons: list[str] = []
    shortened: dict[str, list[float]] = {}


class RoundResult(msgspec.Struct, frozen=True):
    """One execution of the case; ``dropped`` says why it does not count, and is empty where it does.

    ``loadgen`` is null of a round without LoadGen, and of one in which LoadGen came to no end.
    """

    round: int
    seed: int | None
    directory: str
    time_started: float | None
    metrics: dict[str, MetricValue] = {}
    evaluations: list[EvaluationResult] = []
    precision: dict[str, Any] = {}
    error: ErrorResult | None = None
    dropped: str = ""
    loadgen: LoadGenResult | None = None


class SettingResult(msgspec.Struct, frozen=True):
    """A value of the effective configuration and where it came from."""

    value: Any
    origin: str


class CaseInfo(msgspec.Struct, frozen=True):
    """Which case, run how.

    ``division`` is ``open`` where the vendor replaced the workload's code. Where ``stand_in`` names a device, the
    workload ran on that: a test of the vendor's files, and no measurement of the vendor. ``environment`` is what the
    vendor file adds to that of the ranks. ``engine`` is what executes the model, of inference only.
    """

    id: str
    node_id: str
    model: str
    kind: str
    role: str
    framework: str
    precision: str
    topology: str
    scale: str
    vendor: str
    devices: list[int]
    unit: str
    chip: str | None = None
    division: str = "closed"
    stand_in: str = ""
    container: dict[str, str] = {}
    vendor_file: dict[str, str] = {}
    environment: dict[str, str] = {}
    engine: str = ""


class DatasetInfo(msgspec.Struct, frozen=True):
    """What the case was trained and evaluated on; ``synthetic`` data never counts as convergence."""

    name: str
    synthetic: bool
    checksum: str = ""
    splits: dict[str, int] = {}


class WeightsInfo(msgspec.Struct, frozen=True):
    """What a model of inference answered with: where its weights came from, or that they are random.

    ``quality`` is what they reached where they were made.
    """

    name: str
    origin: str
    checksum: str = ""
    quality: dict[str, float] = {}


class Result(msgspec.Struct, frozen=True):
    """``result.json``: one case of one session.

    ``operator`` is what there is of an operator beside its metrics: problem, method, peak, roofline, samples. Operators
    have no directory each; their results are lines of ``results.jsonl``. ``stack`` is the software that the figures
    depend on, name → version. ``code`` is the digest of the code and the configuration that made the result.
    """

    case: CaseInfo
    verdict: str
    metrics: dict[str, MetricValue]
    targets: list[TargetResult]
    rounds: list[RoundResult]
    configuration: dict[str, SettingResult]
    dataset: DatasetInfo
    rerun: list[str]
    deviations: list[str] = []
    diff: str = ""
    notes: list[str] = []
    error: ErrorResult | None = None
    operator: dict[str, Any] = {}
    spreads: dict[str, SpreadResult] = {}
    comparisons: list[ComparisonResult] = []
    stack: dict[str, str] = {}
    code: str = ""
    weights: WeightsInfo | None = None
    schema_version: str = SCHEMA_VERSION


def unit_of(result: Result, name: str) -> str:
    """What a metric that was measured is counted in; empty of one that was not.

    Rates of inference are ``images/s`` or ``tokens/s``, as the case counts, where the registry says ``samples/s``: of
    one model there may be many tokens in a sample. What LoadGen counts are samples.
    """
    found, case = result.metrics.get(name), result.case
    if found is None:
        return ""
    of_loadgen = name == LOADGEN_RATE and any(one.loadgen is not None for one in result.rounds)
    is_own = case.kind == "inference" and found.unit == SAMPLES and not of_loadgen
    return f"{case.unit}/s" if is_own and case.unit else found.unit


def with_units(figures: Mapping[str, float]) -> dict[str, MetricValue]:
    """Figures with the unit and direction of the registry. A metric that is not registered raises."""
    found = {}
    for name, value in figures.items():
        metric = metrics.get(name)
        found[name] = MetricValue(value=float(value), unit=metric.unit, better=metric.better)
    return found


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``result.json``."""
    document: dict[str, Any] = msgspec.json.schema(Result)
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = f"pytest-flagperf result {SCHEMA_VERSION}"
    return document


def write_result(directory: Path, result: Result) -> Path:
    """Write ``result.json``, whole or not at all."""
    path = directory / "result.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(result), indent=2))
    return path


def read_result(path: Path) -> Result:
    """Read one ``result.json``. Raises ``ReplayError`` for one that is torn, foreign or of another version."""
    try:
        result = msgspec.json.decode(read_whole(path), type=Result)
    except (OSError, *UNDECODABLE) as error:
        raise ReplayError(f"{path} cannot be read as a result: {error}") from error
    if result.schema_version.split(".")[0] != SCHEMA_VERSION.split(".", maxsplit=1)[0]:
        raise ReplayError(f"{path} has schema_version {result.schema_version}; this version reads {SCHEMA_VERSION}")
    return result


RESULTS = "results.jsonl"


class Results:
    """Appends Results to ``results.jsonl`` in a directory, a line each, for one process.

    A line is one ``write``: whole once that returns, whatever becomes of this process. Nothing is forced to the disk,
    which would cost more than many an operator takes.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / RESULTS
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (lives as long as the session)

    def append(self, result: Result) -> None:
        """Write one more."""
        self._file.write(msgspec.json.encode(result) + b"\n")

    def close(self) -> None:
        """Every result is on it already."""
        self._file.close()


def read_results(path: Path) -> list[Result]:
    """The Results in a ``results.jsonl``, the last one of each test; a torn last line is left out."""
    try:
        lines = read_whole(path).split(b"\n")
    except OSError as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
    found: dict[str, Result] = {}
    for number, line in enumerate(lines[:-1], 1):
        try:
            result = msgspec.json.decode(line, type=Result)
        except UNDECODABLE as error:
            raise ReplayError(f"{path}, line {number} cannot be read as a result: {error}") from error
        found[result.case.node_id or str(number)] = result
    return list(found.values())


def finish_session(directory: Path, exit_status: int) -> None:
    """Complete ``session.json`` with when and how the session ended."""
    path = directory / "session.json"
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
    write_json(path, {**document, "time_ended": time.time(), "exit_status": exit_status})


def unfinished(ledger: Path) -> list[str]:
    """Rounds that the ledger saw start and not end, as ``<case> round <k>``: their pytest was killed, or still runs.

    A case for which devices are leased although it is in no round, such as between two, is named too.
    """
    rounds: dict[str, tuple[str, str]] = {}
    leases: dict[tuple[str, str], None] = {}
    for line in read_lines(ledger):
        event, case, directory = line.get("event"), str(line.get("case")), str(line.get("directory"))
        if event == "round_start":
            rounds[directory] = (case, f"{case} round {line.get('round')}")
        elif event == "round_end":
            rounds.pop(directory, None)
        elif event == "lease_start":
            leases[str(line.get("pid")), case] = None
        elif event == "lease_end":
            leases.pop((str(line.get("pid")), case), None)
    inside = {case for case, _ in rounds.values()}
    return [*(text for _, text in rounds.values()), *(case for _, case in leases if case not in inside)]

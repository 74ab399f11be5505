"""Baselines: what a chip measured before, for each case and metric the samples of every session, as a TOML file.

.. code-block:: toml

    schema_version = 1
    vendor = "kunlunxin"
    chip = "R300"

    [[session]]                       # where the samples are from
    name = "20261122-091200-3f2a10"
    date = "2026-11-22"
    commit = "ca07ce2"

    [[case]]
    id = "resnet50-throughput-pytorch-amp-1x8-full"

    [case.metric.p_train]
    unit = "samples/s"
    better = "higher"
    tolerance = 0.03                  # optional: what change does not count (default: by metric)
    bound = 2900.0                    # optional: what may never be missed, whatever the samples are

    [case.metric.p_train.samples]     # a session a line, a round a figure
    20261122-091200-3f2a10 = [3120.1, 3098.4, 3105.2, 3131.7, 3110.0]

``flagperf rebase`` writes such files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import sessions
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.judging import toml_writer
from pytest_flagperf.metrics import known
from pytest_flagperf.records import write_atomically


SCHEMA_VERSION = 1


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session that samples are from: the commit it ran at, and whether files had been changed since."""

    name: str
    date: str = ""
    commit: str = ""
    changed: bool = False


class MetricBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric's samples by session, the oldest session first.

    ``tolerance`` is the change that does not count, as a ratio; ``bound`` a figure that may not be missed; ``best`` the
    best figure the baseline has had since it was last lowered for a reason. ``reasons`` are those, with their dates.
    """

    unit: str
    better: str
    samples: dict[str, list[float]]
    tolerance: float | None = None
    bound: float | None = None
    best: float | None = None
    reasons: list[str] = []

    @property
    def values(self) -> list[float]:
        """Every sample, in the order of sessions and rounds."""
        return [one for session in self.samples.values() for one in session]


class CaseBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a case measured, and under which conditions.

    ``weights`` are of inference: the file's SHA-256, ``random``, or the training that makes them on each machine.
    ``stack`` is the software of the newest session. ``targets`` are the bounds that ended its training, and ``curve``
    the evaluations of rounds, ``<session> round <k>`` → ``epoch``, ``step`` and each quality metric, as columns.
    """

    id: str
    model: str = ""
    kind: str = ""
    role: str = ""
    framework: str = ""
    precision: str = ""
    topology: str = ""
    scale: str = ""
    division: str = "closed"
    dataset: str = ""
    checksum: str = ""
    synthetic: bool = False
    weights: str = ""
    configuration: dict[str, Any] = {}
    stack: dict[str, str] = {}
    targets: dict[str, float] = {}
    metric: dict[str, MetricBaseline] = {}
    curve: dict[str, dict[str, list[float]]] = {}


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of baselines: one vendor's chip.

    ``hardware`` names the devices where no chip does. ``origin`` is where it was read, and ``left_out`` the cases of a
    session that are no baseline, with why: neither is a key of the file.
    """

    vendor: str
    chip: str = ""
    hardware: str = ""
    schema_version: int = SCHEMA_VERSION
    session: list[Source] = []
    case: list[CaseBaseline] = []
    origin: str = ""
    left_out: dict[str, str] = {}

    def of(self, case_id: str) -> CaseBaseline | None:
        """The baseline of a case, if there is one."""
        return next((one for one in self.case if one.id == case_id), None)


def load(path: Path) -> Baseline:
    """Read a baseline file. Raises ``ConfigurationError`` that names file and key."""
    try:
        document = msgspec.toml.decode(path.read_bytes())
        if isinstance(document, dict):
            for key in ("origin", "left_out"):
                if key in document:
                    raise ConfigurationError(f"{path}: unknown field `{key}`")
        baseline = msgspec.convert(document, type=Baseline)
    except RecursionError:
        raise ConfigurationError(f"{path}: it is nested too deeply") from None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if baseline.schema_version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path}: schema_version {baseline.schema_version} is not one this version reads ({SCHEMA_VERSION})"
        )
    check(path, baseline)
    return msgspec.structs.replace(baseline, origin=str(path))


def check(path: Path, baseline: Baseline) -> None:
    """What no schema says of a baseline. Raises ``ConfigurationError`` that names ``path`` and the key."""
    seen: set[str] = set()
    for case in baseline.case:
        if case.id in seen:
            raise ConfigurationError(f"{path}: case {case.id} is there twice")
        seen.add(case.id)
        for name, metric in case.metric.items():
            _check_metric(f"{path}: case {case.id}: metric.{name}", name, metric)
        for name, curve in case.curve.items():
            if len({len(column) for column in curve.values()}) != 1 or "epoch" not in curve:
                raise ConfigurationError(
                    f"{path}: case {case.id}: curve.{name}: columns of one length are wanted, epoch among them"
                )
            if not all(math.isfinite(one) for column in curve.values() for one in column):
                raise ConfigurationError(f"{path}: case {case.id}: curve.{name}: a figure is infinite or NaN")


def _check_metric(where: str, name: str, metric: MetricBaseline) -> None:
    registered = known().get(name)
    if metric.better not in ("higher", "lower"):
        raise ConfigurationError(f"{where}: better = {metric.better!r} is neither 'higher' nor 'lower'")
    if registered is not None and (registered.unit, registered.better) != (metric.unit, metric.better):
        raise ConfigurationError(
            f"{where}: unit {metric.unit!r}, better {metric.better!r}; "
            f"the metric has {registered.unit!r}, {registered.better!r}"
        )
    if metric.tolerance is not None and not 0 <= metric.tolerance < 1:
        raise ConfigurationError(f"{where}: tolerance = {metric.tolerance:g} is not a ratio between 0 and 1")
    if not all(
        math.isfinite(one) for one in [*metric.values, *(x for x in (metric.bound, metric.best) if x is not None)]
    ):
        raise ConfigurationError(f"{where}: a figure is infinite or NaN")


def text(baseline: Baseline) -> str:
    """The file's content: cases, metrics and configuration by name, sessions by age."""
    document = msgspec.to_builtins(baseline)
    del document["origin"], document["left_out"]
    cases = []
    for case in sorted(document["case"], key=lambda one: str(one["id"])):
        tables = {key: case.pop(key) for key in ("configuration", "stack", "targets", "metric", "curve")}
        order = {**tables, "configuration": _sorted(tables["configuration"]), "stack": _sorted(tables["stack"])}
        order["metric"] = {name: _tidy(one) for name, one in sorted(tables["metric"].items())}
        cases.append(_tidy({**case, **order}))
    head = {"schema_version": document["schema_version"], "vendor": baseline.vendor}
    head |= {key: document[key] for key in ("chip", "hardware") if document[key]}
    body = {"session": [_tidy(one) for one in document["session"]], "case": cases}
    return toml_writer.text({**head, **{key: one for key, one in body.items() if one}})


def _sorted(table: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(table.items()))


def _tidy(table: Mapping[str, Any]) -> dict[str, Any]:
    # By identity: 0.0 is a figure, and equals False.
    return {key: one for key, one in table.items() if one is not None and one is not False and one not in ("", [], {})}


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline file, whole or not at all. Raises ``ConfigurationError`` where it cannot be written."""
    try:
        content = text(baseline).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error


def find(
    given: Path | None,
    *,
    vendor: str,
    chip: str | None,
    hardware: str = "",
    directories: Iterable[Path] = (),
    without: Collection[str] = (),
    apart: Collection[tuple[str, ...]] = (),
) -> Baseline | None:
    """The baseline to judge by: ``given``, else the vendor's own file for this chip, else ``None``.

    ``given`` is a file, a session, or a directory with the chip's file or with sessions, but for those whose names are
    in ``without``, and for measurements that are ``apart`` (``gathering.measurement``), in whichever session a copy of
    them is: nothing is compared with itself. ``directories`` are those of vendors. Raises ``ConfigurationError``, or
    ``ReplayError`` for a directory that holds nothing of the kind.
    """
    name = file_name(chip, hardware)
    if given is None:
        own = (directory / vendor / "baselines" / name for directory in directories)
        return next((load(path) for path in own if path.is_file()), None)
    if not given.is_dir():
        return load(given)
    if (given / name).is_file():
        return load(given / name)
    files = sorted(one.name for one in given.glob("*.toml"))
    if files:
        origin = f"{given}, which has {', '.join(files)} and no {name}"
        return Baseline(vendor=vendor, chip=chip or "", hardware=hardware, origin=origin)
    from pytest_flagperf.judging import gathering

    found = sessions.read_all([given])
    if sessions.is_session(given):
        return gathering.from_sessions(found, origin=str(given), accepted=gathering.CHANGED, apart=apart)
    return gathering.from_sessions([one for one in found if one.name not in without], origin=str(given), apart=apart)


def file_name(chip: str | None, hardware: str = "") -> str:
    """What the file of a chip is called; where no chip is known, that of the devices' own name."""
    return (chip or re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-") or "unknown") + ".toml"


def hardware(description: Mapping[str, Any]) -> str:
    """The devices of a session by their own name, from its ``session.json``; ``""`` where it does not say.

    A device that is the host's processor is told with how many there are: 2 and 64 of a kind do not compare.
    """
    devices = description.get("device_list")
    names = {str(one.get("name", "")) for one in devices if isinstance(one, dict)} if isinstance(devices, list) else ()
    host = description.get("host")
    name = ", ".join(sorted(one for one in names if one))
    if name and isinstance(host, dict) and name == host.get("cpu") and host.get("cpus"):
        return f"{name}, {host['cpus']} processors"
    return name

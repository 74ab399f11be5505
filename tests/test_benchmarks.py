"""The benchmarks of the plugin itself: what they judge is what they name, and what they leave out they say."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest


BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def benchmark(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """A script of ``benchmarks/``, which are run from their directory."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for module in ("paired", "engines_bare", name):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("role", "unit", "judged"),
    [
        # Half a million samples are no hundred thousand queries of eight.
        ("multi_stream", "queries/s own", 65_000.0),
        ("single_stream", "queries/s own", 520_000.0),
        ("server", "queries/s wall", 520_000.0),
        ("offline", "samples/s own", 520_000.0),
    ],
)
def test_of_loadgens_streams_queries_are_judged_and_of_its_one_query_samples(monkeypatch, role, unit, judged):
    pytest.importorskip("mlperf_loadgen")
    null = benchmark(monkeypatch, "loadgen_null")
    per_query = 8 if role == "multi_stream" else 1
    found = null.Measured(wall=520_000.0, own=520_000.0, valid=True, processor=1.0, per_query=per_query)
    rows = null.rows(role, role, [found] * 6, at_least=null.AT_LEAST)
    (one,) = [row for row in rows if row.bound]
    assert (one.unit, one.median, one.holds) == (unit, judged, judged >= 100_000)


def test_a_report_says_what_was_not_measured_and_does_not_hold_without_a_row(monkeypatch, tmp_path, capsys):
    paired = benchmark(monkeypatch, "paired")
    report = paired.Report("engines_paired", {}, not_measured={"pytorch.openvino, lite": "openvino is not installed"})
    assert report.finish(tmp_path / "found.json") == 1
    assert "not measured: pytorch.openvino, lite: openvino is not installed" in capsys.readouterr().out
    assert "openvino is not installed" in (tmp_path / "found.json").read_text()

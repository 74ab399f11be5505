"""A pool of workers that measure nothing, and a suite of operators for a pytest of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.operators import pool as pools
from pytest_flagperf.operators.bench import BenchSession
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.pool import Pool
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.options import Options


FAKE = f"{Path(__file__).parent / 'fake_entry.py'}:main"

# The suite's problems are GEMMs whose application orders a fault; their sizes tell them apart.
SUITE = """
import pytest

from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.problems import Gemm

FAULTS = {faults!r}
CASE = OperatorCase(
    family="gemm",
    title="made up",
    problems=[
        Gemm(number + 1, 64, 64, sets=("train",), application=fault, note=f"problem {{number}}")
        for number, fault in enumerate(FAULTS)
    ],
)


def test_gemm(case, devices, operators):
    assert operators.measure(case, devices).correct()
"""
CONFTEST = f"""
from pytest_flagperf.operators import pool

pool.ENTRY = {FAKE!r}
"""


@pytest.fixture
def faults(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a suite of as many problems as faults are given; the empty text is none."""
    # The worker's interpreter need not have PyTorch: it imports nothing.
    monkeypatch.setenv("FLAGPERF_PYTHON", f"pytorch={sys.executable}")
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(pytester.path / "leases"))

    def make(*faults: str) -> Path:
        pytester.makeconftest(CONFTEST)
        pytester.makeini("[pytest]\nflagperf_vendor = cpu\naddopts = -p no:cacheprovider\n")
        return pytester.makepyfile(test_faults=SUITE.format(faults=faults))

    return make


@pytest.fixture
def gemm() -> Callable[..., ResolvedOperator]:
    """A product whose application orders a fault."""

    def make(fault: str = "", note: str = "", framework: str = "pytorch") -> ResolvedOperator:
        problem = Gemm(64, 64, 64, sets=("train",), application=fault, note=note)
        case = OperatorCase("gemm", "made up", [problem])
        selection = Selection(framework, "fp32", Topology(1, 1), "train")
        return ResolvedOperator(case, problem, "train", ("train",), "fwd", selection, "cpu", Path())

    return make


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchSession:
    """A session on the processor, without a monitor."""
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setattr(pools, "ENTRY", FAKE)
    return BenchSession(
        Options(vendor="cpu", pythons={"pytorch": sys.executable}, monitor=None, directory=tmp_path / "results")
    )


@pytest.fixture
def accelerator(session: BenchSession, monkeypatch: pytest.MonkeyPatch) -> BenchSession:
    """The same as if the processor were two devices that nobody shares."""
    cpu = vendors.find("cpu", [vendors.bundled()])
    monkeypatch.setattr(BenchSession, "vendor", msgspec.structs.replace(cpu, shared=False))
    return session


@pytest.fixture
def make_pool(tmp_path: Path, marked: Callable[[], list[int]]) -> Iterator[Callable[..., Pool]]:
    """Makes pools that are closed, and proves that no process of theirs is left."""
    made: list[Pool] = []

    def make(session: BenchSession) -> Pool:
        made.append(Pool(session, tmp_path / f"pool{len(made)}"))
        return made[-1]

    yield make
    for pool in made:
        pool.close()

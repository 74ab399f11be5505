"""A suite of products and what the worker answers for each, call by call; every row ends in another way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


ENTRY = f"{Path(__file__).parent / 'timed_entry.py'}:main"
CONFTEST = f"from pytest_flagperf.operators import pool\n\npool.ENTRY = {ENTRY!r}\n"
SUITE = """
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.problems import Gemm

CASE = OperatorCase(
    family="gemm",
    title="made up",
    problems=[Gemm(m, 64, 64, sets=("train",), note=f"m{{m}}") for m in {sizes}],
)


def test_gemm(case, devices, operators):
    assert operators.measure(case, devices).correct()
"""
# A tenth of the median either way is far outside of what these six sessions differ by, 3 % is not.
BEFORE = (980.0, 990.0, 1000.0, 1005.0, 1010.0, 1020.0)

Orders = dict[int, list[float | str]]


@dataclass(frozen=True)
class Row:
    """What the worker answers, call by call, and what has to come of it. The answers after those would pass."""

    orders: tuple[float | str, ...]
    verdict: str
    junit: str = ""
    error: str = ""
    reason: str = ""
    stored: bool = True

    @property
    def allure(self) -> str:
        """The status of its test."""
        known = {"": "passed", "skipped": "skipped", "failure": "failed"}
        return "broken" if self.verdict == "invalid" else known[self.junit]

    @property
    def ends_well(self) -> bool:
        return self.junit in ("", "skipped")

    @property
    def compared(self) -> dict[str, str]:
        """The verdict of each metric."""
        return {} if self.verdict in ("wrong", "invalid", "unsupported") else {"time": self.verdict}


ROWS = {
    1: Row((1000.0,), "passed"),
    2: Row((1030.0,), "inconclusive"),
    3: Row((1300.0, 1290.0), "regressed", "failure", "Regressed", reason="regressed (+29.8 %), then regressed"),
    4: Row((700.0, 710.0), "improved", reason="improved (-30.1 %), then improved"),
    5: Row((1300.0, 1001.0), "inconclusive", reason="regressed (+29.8 %), then passed"),
    6: Row((700.0, 1002.0), "inconclusive", reason="improved (-30.1 %), then passed"),
    7: Row((1300.0, 700.0), "inconclusive", reason="regressed (+29.8 %), then improved"),
    8: Row(("wrong",), "wrong", "failure", "WrongResult"),
    9: Row(("nan",), "invalid", "failure", "InvalidMeasurement"),
    10: Row((1300.0, "wrong"), "wrong", "failure", "WrongResult"),
    11: Row((1300.0, "failed"), "invalid", "failure", "OperatorFailed"),
    12: Row(("unsupported",), "unsupported", "skipped", "no int8 convolution"),
    13: Row((1300.0,), "no baseline", stored=False),
}
WELL = [size for size, row in ROWS.items() if row.ends_well]
THEN: Orders = {size: [*row.orders, 1000.0] for size, row in ROWS.items()}


def case_id(size: int) -> str:
    """The id of a problem's case."""
    return f"gemm-train-fp32-fwd-m{size}-n64-k64-nn"


def cases() -> str:
    """Every problem's case of a baseline, as ``flagperf rebase`` writes it."""
    samples = "\n".join(f"before{number} = [{one}]" for number, one in enumerate(BEFORE))
    found = [
        f"""
[[case]]
id = "{case_id(size)}"
model = "gemm"
kind = "operator"
role = "fwd"
framework = "pytorch"
precision = "fp32"
topology = "1x1"
scale = "train"
dataset = "generated"
synthetic = true

[case.configuration]
a_transposed = false
b_transposed = false
cache = "hot"
family = "gemm"
m = {size}
n = 64
k = 64
threads = 1

[case.metric.time]
unit = "µs"
better = "lower"

[case.metric.time.samples]
{samples}
"""
        for size, row in ROWS.items()
        if row.stored
    ]
    return "".join(found)

"""All-reduce: DeepBench's seven message sizes, summed over all ranks.

Time is that of the slowest rank. algbw is bytes / time; busbw is algbw · 2 (P - 1) / P over P ranks, the traffic of
one link in one direction, which can be held against the link's data sheet. ``--topology`` says how many ranks.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="all_reduce",
    title="All-reduce",
    problems="all_reduce.json",
    precisions=("fp64", "fp32", "bf16", "fp16"),
)


def test_all_reduce(case, devices, operators):
    """The sum is right on every rank, then timed on all of them; the worst one is the result."""
    assert operators.measure(case, devices).correct()

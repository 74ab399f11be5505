"""Device memory: FlagPerf's copy bandwidth and capacity.

bandwidth: 4 GiB are copied to another place on the device; what is read and what is written both count. capacity:
what a program can have, in GiB, blocks being taken until there is none of 1 MiB; it is held against the data sheet in
the same unit.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="memory",
    title="Device memory",
    problems="memory.json",
    precisions=("fp32",),
)


def test_memory(case, devices, operators):
    """The copy equals the original, then it is timed; what was taken can be written and read back."""
    assert operators.measure(case, devices).correct()

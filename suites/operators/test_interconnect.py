"""Links: FlagPerf's host to device, device to device and all-reduce, within a server and between servers.

Every bandwidth is of one direction: bytes / time of a one-way transfer, and busbw for the all-reduce. A link's data
sheet that says ``bidirectional`` is halved before it is compared. The host's memory is pinned.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="interconnect",
    title="Links",
    problems="interconnect.json",
    precisions=("fp32",),
)


def test_interconnect(case, devices, operators):
    """What arrives is what was sent, then the transfer is timed."""
    assert operators.measure(case, devices).correct()

"""The vocabulary: what a case may say, and what it refuses."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_flagperf import ConfigurationError
from pytest_flagperf import Scale
from pytest_flagperf import Target
from pytest_flagperf import Topology
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least
from pytest_flagperf import at_most
from pytest_flagperf.case import Selection


def make(**changes: object) -> TrainingCase:
    scale = Scale(dataset="digits", targets=[at_least("top1", 0.9, source="toy")], config={"batch_size": 8})
    return TrainingCase(
        **{"model": "toy", "title": "Toy", "workloads": {"pytorch": "toy:Toy"}, "scales": {"lite": scale}, **changes}
    )


def test_a_topology_reads_as_nodes_times_devices():
    topology = Topology.parse("2x8")
    assert (topology.nodes, topology.devices, topology.world_size, str(topology)) == (2, 8, 16, "2x8")


@pytest.mark.parametrize(
    "text", ["", "8", "1x", "x8", "0x1", "1x0", "-1x2", "1X8", "1x8x2", "1 x 8", "1x8\n", "01x1", "²x1"]
)
def test_a_malformed_topology_is_refused_with_an_example(text):
    with pytest.raises(ConfigurationError, match=r"malformed topology .* for example 1x1"):
        Topology.parse(text)


@given(st.text())
def test_whatever_is_not_a_topology_is_refused(text):
    with contextlib.suppress(ConfigurationError):
        assert str(Topology.parse(text)) == text


@pytest.mark.parametrize(
    ("target", "value", "holds"),
    [
        (at_least("top1", 0.9, source="s"), 0.9, True),
        (at_least("top1", 0.9, source="s"), 0.8999, False),
        (at_most("perplexity", 55, source="s"), 55.0, True),
        (at_most("perplexity", 55, source="s"), 55.1, False),
        (at_least("top1", 0.0, source="s"), math.nan, False),
        (at_most("perplexity", 55, source="s"), math.nan, False),
        (at_least("top1", 0.0, source="s"), None, False),
    ],
)
def test_a_target_holds_in_its_direction_and_never_for_what_was_not_measured(target, value, holds):
    assert target.holds(value) is holds


def test_a_target_reads_as_a_comparison():
    assert str(at_least("top1", 0.759, source="MLPerf")) == "top1 >= 0.759"
    assert str(at_most("perplexity", 55, source="paper")) == "perplexity <= 55"


def test_a_target_of_an_unknown_metric_suggests_the_one_that_was_meant():
    with pytest.raises(
        ConfigurationError, match=r"unknown metric 'top_1'. Did you mean 'top1'\? Known: accuracy, algbw"
    ):
        at_least("top_1", 0.9, source="s")


def test_a_target_has_one_of_two_directions():
    with pytest.raises(ConfigurationError, match="'at least' or 'at most'"):
        Target("top1", 0.9, "more", "s")


@pytest.mark.parametrize(
    ("metric", "bound", "message"),
    [
        ("top1", 75.9, "top1 is a ratio between 0 and 1, not 75.9"),
        ("top1", -0.1, "top1 is a ratio between 0 and 1, not -0.1"),
        ("perplexity", math.nan, "perplexity: nan is not a bound"),
        ("perplexity", math.inf, "perplexity: inf is not a bound"),
    ],
)
def test_a_bound_that_nothing_can_meet_is_refused(metric, bound, message):
    with pytest.raises(ConfigurationError, match=message):
        at_least(metric, bound, source="s")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ResNet-50"}, "lower-case identifier"),
        ({"model": "a\n"}, "lower-case identifier"),
        ({"workloads": {"torch": "toy:Toy"}}, "unknown framework 'torch'; known: pytorch, paddle, mindspore"),
        ({"workloads": {"pytorch": "toy.py"}}, "not written module:Class"),
        ({"workloads": {"pytorch": "../toy:Toy"}}, "not written module:Class"),
        ({"precisions": ("fp31",)}, "unknown precision 'fp31'"),
        ({"tunable": {"batchsize"}}, "tunable keys that no configuration has: batchsize"),
    ],
)
def test_a_case_that_says_something_unknown_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        make(**changes)


def test_a_case_of_an_unknown_scale_is_refused():
    with pytest.raises(ConfigurationError, match="unknown scale 'huge'; known: lite, full"):
        make(scales={"huge": Scale(dataset="digits", targets=[])})


def test_a_scale_cannot_configure_a_framework_without_workload():
    scale = Scale(dataset="digits", targets=[], frameworks={"paddle": {"batch_size": 4}})
    with pytest.raises(ConfigurationError, match="no workload for 'paddle'"):
        make(scales={"lite": scale})


def test_a_selection_has_a_stable_id():
    assert Selection("pytorch", "amp", Topology(1, 8), "full").id == "pytorch-amp-1x8-full"

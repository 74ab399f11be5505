"""Figures across cases: what is divided by what, what is not, and what ``--require`` makes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pytest_flagperf import references
from pytest_flagperf import result as results
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import derived
from pytest_flagperf.judging import requirements
from tests.judging.conftest import make_result


def case(rate: float, *, batch: dict[str, Any] | None = None, synthetic: bool = False, **told: Any) -> results.Result:
    """A throughput run; ``told`` is what its CaseInfo says."""
    parts = {"framework": "pytorch", "precision": "fp32", "topology": "1x1", "scale": "lite", "role": "throughput"}
    parts |= told
    name = "-".join([parts.get("model", "toy"), parts["role"], *list(parts.values())[:4]])
    made = make_result({"p_train": [rate]}, configuration=batch or {"batch_size": 32}, id=name, **parts)
    return msgspec.structs.replace(made, dataset=msgspec.structs.replace(made.dataset, synthetic=synthetic))


def figures(*found: results.Result) -> dict[str, float]:
    """Name and case → value."""
    made = derived.compute(found).metrics
    return {f"{one.name} {one.precision} {one.topology}": one.value for one in made}


def test_amp_speedup_is_that_over_fp32_at_the_same_topology():
    found = figures(case(100.0), case(250.0, precision="amp"), case(900.0, precision="amp", topology="1x8"))
    assert found == {"amp_speedup amp 1x1": 2.5, "scaling_efficiency amp 1x8": pytest.approx(900 / 8 / 250)}


def test_scaling_efficiency_is_over_one_device_also_across_hosts():
    found = figures(case(100.0), case(760.0, topology="1x8"), case(1440.0, topology="2x8"))
    assert found == {"scaling_efficiency fp32 1x8": 0.95, "scaling_efficiency fp32 2x8": 0.9}


def test_another_batch_a_device_is_no_scaling_efficiency_and_the_reason_is_told():
    whole = {"global_batch_size": 64}
    made = derived.compute([case(100.0, batch=whole), case(190.0, batch=whole, topology="1x2")])
    assert made.metrics == []
    (reason,) = made.left_out
    assert "32 samples a device and step, 64 in toy-throughput-pytorch-fp32-1x1-lite" in reason
    same = figures(case(100.0, batch=whole), case(190.0, batch={"global_batch_size": 128}, topology="1x2"))
    assert same == {"scaling_efficiency fp32 1x2": 0.95}


def test_another_batch_is_told_beside_an_amp_speedup():
    (one,) = derived.compute([case(100.0), case(250.0, precision="amp", batch={"batch_size": 64})]).metrics
    assert one.remarks == ["64 samples a device and step, 32 in toy-throughput-pytorch-fp32-1x1-lite"]
    assert one.cases == ["toy-throughput-pytorch-amp-1x1-lite", "toy-throughput-pytorch-fp32-1x1-lite"]
    assert one.inputs[one.cases[0]] == 250.0


@pytest.mark.parametrize("different", [{"framework": "paddle"}, {"chip": "A2"}, {"scale": "full"}, {"model": "bert"}])
def test_nothing_is_divided_by_what_differs_in_more_than_is_asked(different):
    assert figures(case(100.0, **different), case(250.0, precision="amp")) == {}


def test_an_invalid_result_and_a_stand_in_give_nothing():
    bad = msgspec.structs.replace(case(100.0), verdict="invalid", error=results.ErrorResult("RankCrashed", "boom"))
    assert figures(bad, case(250.0, precision="amp")) == {}
    assert figures(case(100.0, stand_in="cpu"), case(250.0, precision="amp", stand_in="cpu")) == {}


def test_a_throughput_run_stands_for_its_case_where_there_is_a_convergence_run_too():
    found = [case(100.0), case(250.0, precision="amp")]
    noisy = [case(50.0, role="convergence"), case(400.0, role="convergence", precision="amp")]
    assert figures(*noisy, *found) == {"amp_speedup amp 1x1": 2.5}
    assert figures(*noisy) == {"amp_speedup amp 1x1": 8.0}


def test_a_case_at_full_scale_is_shown_beside_the_published_row_of_another_chip():
    row = next(one for one in references.rows() if one.precision and one.metrics.get("p_train"))
    ours = {"model": row.model, "framework": row.framework, "precision": row.precision, "topology": row.topology}
    half = row.metrics["p_train"] / 2
    made = derived.compute([case(half, scale="full", **ours)]).metrics
    one = next(one for one in made if one.of == "p_train" and one.source == row.source)
    assert one.name == "reference_ratio"
    assert one.value == pytest.approx(0.5)
    assert any(row.chip in remark for remark in one.remarks)
    assert figures(case(half, **ours)) == {}, "a lite case is another workload"
    assert figures(case(half, scale="full", synthetic=True, **ours)) == {}


def test_what_was_derived_is_read_back_and_a_torn_file_says_so(tmp_path):
    made = derived.compute([case(100.0), case(250.0, precision="amp")])
    assert derived.read(tmp_path) is None
    derived.write(tmp_path, made)
    assert derived.read(tmp_path) == made
    (tmp_path / derived.DERIVED).write_text("{")
    with pytest.raises(ReplayError, match=r"derived\.json cannot be read"):
        derived.read(tmp_path)


def test_a_requirement_holds_where_every_figure_does_and_there_is_one():
    made = derived.compute([case(100.0), case(760.0, topology="1x8"), case(1200.0, topology="2x8")])
    wanted = [requirements.parse(text) for text in ("scaling_efficiency>=0.7", "scaling_efficiency >= 0.9")]
    held, missed = requirements.checked(made, wanted).requirements
    assert (held.met, held.found) == (True, 2)
    assert (missed.met, missed.missed) == (
        False,
        ["toy throughput [pytorch-fp32-2x8-lite] acme A1: 0.75"],
    )
    text = requirements.message(missed, made)
    assert text.startswith("scaling_efficiency>=0.9 does not hold in 1 of 2 cases\n")


def test_a_requirement_that_nothing_was_measured_for_is_missed_and_says_why():
    whole = {"global_batch_size": 64}
    made = derived.compute([case(100.0, batch=whole), case(190.0, batch=whole, topology="1x2")])
    (found,) = requirements.checked(made, [requirements.parse("scaling_efficiency>=0.9")]).requirements
    assert not found.met
    text = requirements.message(found, made)
    assert "no two cases of this session give scaling_efficiency" in text
    assert "samples a device and step" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scaling_efficiency", "is not written METRIC>=BOUND"),
        ("scaling_efficiency=0.9", "is not written METRIC>=BOUND"),
        ("p_train>=100", "no figure across cases. Known: amp_speedup, scaling_efficiency, reference_ratio"),
        ("amp_speedup>=fast", "'fast' is not a number"),
        ("amp_speedup>=nan", "nan is not a bound"),
    ],
)
def test_a_malformed_requirement_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        requirements.parse(text)

"""Ceilings: from the vendor file, or estimated for a processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flagperf.devices import vendor
from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.operators import peaks
from pytest_flagperf.operators.peaks import Peak


def cpuinfo(tmp_path: Path, *, cores: int, threads: int = 1, maker: str = "GenuineIntel", family: int, flags: str):
    blocks = [
        f"processor\t: {number}\nvendor_id\t: {maker}\ncpu family\t: {family}\ncpu MHz\t\t: 2000.000\n"
        f"physical id\t: 0\ncore id\t\t: {number // threads}\nflags\t\t: fpu {flags}\n"
        for number in range(cores * threads)
    ]
    path = tmp_path / "cpuinfo"
    path.write_text("\n".join(blocks) + "\n")
    return path


def test_two_units_of_512_bits_do_64_operations_a_cycle_in_fp32(tmp_path):
    found = peaks.estimate(cpuinfo(tmp_path, cores=4, family=6, flags="fma avx2 avx512f"), threads=None)
    assert found["fp32"].value == pytest.approx(4 * 64 * 2e9 / 1e12)
    assert found["fp64"].value == pytest.approx(found["fp32"].value / 2)
    assert found["fp32"].estimated
    assert "4 cores x 16 lanes x 2 FMA units x 2 x 2000 MHz" in found["fp32"].source
    assert set(found) == {"fp32", "fp64"}


def test_amds_units_are_256_bits_wide_before_zen_5(tmp_path):
    for family, operations in ((25, 32), (26, 64)):
        path = cpuinfo(tmp_path, cores=1, maker="AuthenticAMD", family=family, flags="fma avx512f")
        assert peaks.estimate(path, None)["fp32"].value == pytest.approx(operations * 2e9 / 1e12)


def test_two_threads_of_a_core_share_its_units_and_fewer_threads_use_fewer_cores(tmp_path):
    path = cpuinfo(tmp_path, cores=4, threads=2, family=6, flags="fma")
    assert peaks.estimate(path, 8)["fp32"].value == pytest.approx(4 * 32 * 2e9 / 1e12)
    assert peaks.estimate(path, 1)["fp32"].value == pytest.approx(32 * 2e9 / 1e12)


def test_the_clock_that_was_seen_replaces_the_nominal_one(tmp_path):
    path = cpuinfo(tmp_path, cores=1, family=6, flags="fma")
    assert peaks.estimate(path, 1, clock=3000.0)["fp32"].value == pytest.approx(32 * 3e9 / 1e12)


def test_other_precisions_count_where_there_are_instructions_for_them(tmp_path):
    path = cpuinfo(tmp_path, cores=1, family=6, flags="fma avx512f avx512_bf16 avx512_vnni amx_int8")
    found = peaks.estimate(path, 1)
    fp32 = found["fp32"].value
    assert found["bf16"].value == pytest.approx(2 * fp32)
    assert found["int8"].value == pytest.approx(32 * fp32)
    assert "fp16" not in found


def test_a_processor_without_fma_or_without_a_description_has_no_estimate(tmp_path):
    assert peaks.estimate(cpuinfo(tmp_path, cores=1, family=6, flags="sse2"), 1) == {}
    assert peaks.estimate(tmp_path / "absent", 1) == {}


def test_a_figure_that_nobody_verified_is_no_ceiling():
    chip = Chip(source="a talk", peak={"fp32": 10.0, "bf16": 80.0}, memory=64.0, unverified=["peak.bf16", "memory"])
    found = peaks.of_chip(chip)
    assert set(found.compute) == {"fp32"}
    assert found.capacity is None


def test_only_a_device_that_is_the_host_gets_an_estimate(tmp_path):
    path = cpuinfo(tmp_path, cores=1, family=6, flags="fma")
    cpu, nvidia = (vendor.find(name, [vendor.bundled()]) for name in ("cpu", "nvidia"))
    assert peaks.of_device(cpu, None, threads=1, clock=None, cpuinfo=path).compute["fp32"].estimated
    assert peaks.of_device(nvidia, None, threads=1, clock=None, cpuinfo=path).compute == {}


def test_the_roofline_has_two_sides_and_is_silent_where_one_is_not_known():
    compute, bandwidth = Peak(100.0, "TFLOP/s", ""), Peak(1000.0, "GB/s", "")  # the ridge is at 100 operations a byte
    assert peaks.position(101, 1, compute, bandwidth) == "compute-bound"
    assert peaks.position(99, 1, compute, bandwidth) == "bandwidth-bound"
    assert peaks.position(99, 1, None, bandwidth) == peaks.position(None, 1, compute, bandwidth) == ""

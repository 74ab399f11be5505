"""Ceilings: from the vendor file, or estimated for a processor."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pytest_flagperf.devices import vendor
from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.operators import clock
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


def test_a_clock_that_nobody_measured_is_called_nominal(tmp_path):
    path = cpuinfo(tmp_path, cores=1, family=6, flags="fma")
    assert "2000 MHz (nominal clock; turbo not known)" in peaks.estimate(path, 1)["fp32"].source
    assert "3000 MHz (measured)" in peaks.estimate(path, 1, clock=3000.0)["fp32"].source


@pytest.mark.parametrize(("seen", "counts"), [(None, 3600.0), (2500.0, 3600.0), (4000.0, 4000.0)])
def test_the_clock_of_a_busy_core_counts_where_the_monitors_mean_is_lower(tmp_path, monkeypatch, seen, counts):
    monkeypatch.setattr(peaks, "measured_clock", lambda: 3600.0)
    path, cpu = cpuinfo(tmp_path, cores=1, family=6, flags="fma"), vendor.find("cpu", [vendor.bundled()])
    found = peaks.of_device(cpu, None, threads=1, clock=seen, cpuinfo=path).compute["fp32"]
    assert found.value == pytest.approx(32 * counts * 1e6 / 1e12)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the chain's latency is known of x86-64")
def test_the_clock_is_measured_and_agrees_with_itself():
    first = clock.measured_clock()
    clock.measured_clock.cache_clear()
    second = clock.measured_clock()
    assert first is not None
    # A frequency governor may move between the two; no processor runs at half or twice its clock.
    assert 0.5 < first / second < 2
    assert clock.PLAUSIBLE[0] < first < clock.PLAUSIBLE[1]


def test_a_host_that_forbids_written_code_has_no_measured_clock(monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("Operation not permitted")

    clock.measured_clock.cache_clear()
    monkeypatch.setattr(clock.mmap, "mmap", refused)
    assert clock.measured_clock() is None
    clock.measured_clock.cache_clear()


def caches(tmp_path: Path, *, cpus: int, sharing: int) -> Path:
    for cpu in range(cpus):
        first = cpu // sharing * sharing
        for index, (size, shared) in enumerate([("32K", str(cpu)), ("16384K", f"{first}-{first + sharing - 1}")]):
            directory = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            directory.mkdir(parents=True)
            (directory / "size").write_text(f"{size}\n")
            (directory / "shared_cpu_list").write_text(f"{shared}\n")
    return tmp_path


def test_a_last_level_cache_that_cores_share_counts_once(tmp_path):
    assert peaks.last_level_caches(caches(tmp_path, cpus=8, sharing=4)) == 2 * 16 * 2**20
    assert peaks.last_level_caches(tmp_path / "absent") == 0


def test_the_memorys_bandwidth_is_estimated_and_called_so():
    cpu, nvidia = (vendor.find(name, [vendor.bundled()]) for name in ("cpu", "nvidia"))
    found = peaks.of_device(cpu, None, threads=2, clock=None).bandwidth
    assert found.estimated
    assert found.unit == "GB/s"
    assert 0.1 < found.value < 10_000
    assert peaks.of_device(nvidia, None, threads=2, clock=None).bandwidth is None


def test_where_there_is_no_room_to_read_from_there_is_no_estimate(monkeypatch):
    monkeypatch.setattr(peaks.host, "available_memory", lambda: 2**20)
    peaks.read_bandwidth.cache_clear()
    assert peaks.read_bandwidth(1) is None
    peaks.read_bandwidth.cache_clear()


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

"""From what the monitor saw to metrics: by hand-made samples, and nothing where the samples do not say it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from pytest_flagperf import metrics
from pytest_flagperf import samples
from pytest_flagperf.samples import Gap
from pytest_flagperf.samples import Sample
from pytest_flagperf.samples import Samples


WINDOW = (100.0, 110.0)


def every_second(device: int = 0, *, start: float = 95.5, count: int = 20, **figures) -> list[Sample]:
    """A sample a second; a figure that is a function gets the moment."""
    found = []
    for number in range(count):
        at = start + number
        said = {name: value(at) if callable(value) else value for name, value in figures.items()}
        found.append(Sample(device, at, at, {k: v for k, v in said.items() if v is not None}))
    return found


def seen(*series: list[Sample], devices: tuple[int, ...] = (0,), **more) -> Samples:
    return Samples(devices, "acme-smi", tuple(itertools.chain.from_iterable(series)), **more)


def test_constant_power_is_power_and_energy_is_power_by_time():
    found = samples.metrics_of(seen(every_second(power=250.0)), WINDOW)
    assert found.figures == {"power": pytest.approx(250), "energy": pytest.approx(2500)}
    assert not found.notes


def test_energy_is_the_trapezoid_with_the_windows_ends_interpolated():
    # P = t - 90: the integral over 100..110 is exactly 150.
    found = samples.metrics_of(seen(every_second(power=lambda at: at - 90)), WINDOW)
    assert found.figures["energy"] == pytest.approx(150)
    assert found.figures["power"] == pytest.approx(15)


def test_a_devices_own_energy_counter_wins_over_its_power():
    found = samples.metrics_of(seen(every_second(power=290.0, energy=lambda at: 1e6 + 300 * at)), WINDOW)
    assert found.figures["energy"] == pytest.approx(3000)
    assert not found.notes
    alone = samples.metrics_of(seen(every_second(energy=lambda at: 1e6 + 300 * at)), WINDOW)
    assert alone.figures["energy"] == pytest.approx(3000)


def test_a_counter_that_contradicts_the_power_beside_it_is_not_taken_and_told():
    def stuck(at):
        return 500.0 if at < 110 else 501.0

    found = samples.metrics_of(seen(every_second(power=300.0, energy=stuck)), WINDOW)
    assert found.figures["energy"] == pytest.approx(3000)
    assert "the energy counter of device 0 tells" in found.notes[0]


def test_a_counter_that_was_reset_in_a_gap_does_not_count():
    line = [
        o
        for o in every_second(power=100.0, energy=lambda at: 9e5 if at < 103 else at * 100)
        if not 102 < o.monotonic < 107
    ]
    assert "energy" not in samples.metrics_of(seen(line), WINDOW).figures


def test_a_counter_that_starts_again_is_not_trusted():
    found = samples.metrics_of(seen(every_second(power=5.0, energy=lambda at: at % 7)), WINDOW)
    assert found.figures["energy"] == pytest.approx(50)


def test_a_counter_that_stands_still_does_not_count():
    still = every_second(power=5.0, energy=700.0)
    assert samples.metrics_of(seen(still), WINDOW).figures["energy"] == pytest.approx(50)
    assert "energy" not in samples.metrics_of(seen(every_second(energy=700.0)), WINDOW).figures


def test_several_devices_draw_together():
    found = samples.metrics_of(seen(every_second(0, power=100.0), every_second(1, power=50.0), devices=(0, 1)), WINDOW)
    assert found.figures["power"] == pytest.approx(150)


def test_a_gap_of_more_than_three_seconds_makes_energy_absent_and_says_so():
    points = [one for one in every_second(power=250.0) if not 102 < one.monotonic < 105.4]
    found = samples.metrics_of(seen(points), WINDOW)
    assert not {"power", "energy"} & set(found.figures)
    assert "samples of device 0 leave more than 3 s open" in found.notes[0]
    assert "energy" in samples.metrics_of(seen([o for o in points if o.monotonic > 104.9]), (106, 110)).figures


def test_samples_that_end_before_the_window_does_give_no_energy():
    found = samples.metrics_of(seen(every_second(count=10, power=250.0, temperature=50)), WINDOW)
    assert not found.figures
    assert any("do not cover the measured time" in note for note in found.notes)


def test_three_seconds_of_a_thousand_do_not_stand_for_them():
    short = every_second(start=100.2, count=3, temperature=50, utilization=0.9, clock=1000.0, throttle=())
    assert samples.metrics_of(seen(short), (100.0, 1100.0)).figures == {}


def test_a_slower_monitor_may_leave_more_open_but_not_for_energy():
    slow = [o for o in every_second(count=60, start=90.5, temperature=50, power=100.0) if int(o.monotonic) % 5 == 0]
    found = samples.metrics_of(seen(slow, interval=5.0), (100.0, 130.0))
    assert found.figures == {"temperature": 50}


def test_a_monitor_that_was_killed_is_told():
    told = samples.conditions(seen(every_second(), ended=False), WINDOW)
    assert told == ("the monitor ended before the job did: who else used the devices is not known",)


def test_power_of_a_card_of_unknown_size_is_absent_and_told():
    found = samples.metrics_of(seen(every_second(power=100.0)), WINDOW, cards={})
    assert not found.figures
    assert "how many devices a card of this chip has is not known" in found.notes[0]


def test_a_device_that_tells_no_power_makes_the_sum_absent():
    found = samples.metrics_of(seen(every_second(0, power=100.0), every_second(1), devices=(0, 1)), WINDOW)
    assert "power" not in found.figures
    assert "device 1 does not tell it" in found.notes[0]


def test_power_of_a_card_counts_once_and_only_where_the_whole_card_is_ours():
    cards = {0: 0, 1: 0, 2: 1, 3: 1}
    both = seen(every_second(0), every_second(1, power=100.0), devices=(0, 1))
    assert samples.metrics_of(both, WINDOW, cards=cards).figures["power"] == pytest.approx(100)
    half = seen(every_second(1, power=100.0), devices=(1,))
    found = samples.metrics_of(half, WINDOW, cards=cards)
    assert "power" not in found.figures
    assert "the case does not have all devices of it" in found.notes[0]


def test_highest_mean_and_share_over_the_window_only():
    hot = every_second(
        temperature=lambda at: 99 if at < 100 else at - 60,
        utilization=lambda at: 0.0 if at < 100 or at > 110 else 0.5,
        memory_used=lambda at: at / 10,
        clock=1400.0,
        throttle=lambda at: ("power cap",) if at < 102 else (),
    )
    found = samples.metrics_of(seen(hot), WINDOW).figures
    assert found["temperature"] == pytest.approx(49.5)
    assert found["device_utilization"] == pytest.approx(0.5)
    assert found["memory_device_peak"] == pytest.approx(10.95)
    assert found["clock"] == 1400
    assert found["throttled"] == pytest.approx(0.2)


def test_what_no_driver_tells_is_absent_and_not_zero():
    assert samples.metrics_of(seen(every_second()), WINDOW).figures == {}
    assert samples.metrics_of(Samples(), WINDOW) == samples.Seen()


def test_one_device_of_two_that_tells_its_temperature_does_not_stand_for_both():
    found = samples.metrics_of(seen(every_second(0, temperature=40), every_second(1), devices=(0, 1)), WINDOW)
    assert "temperature" not in found.figures


def test_memory_errors_are_those_of_the_job_not_of_the_devices_life():
    found = samples.metrics_of(seen(every_second(ecc_errors=lambda at: 7 if at < 105 else 9)), WINDOW)
    assert found.figures["ecc_errors"] == 2
    assert "device 0 had 2 uncorrected memory errors" in found.notes


def test_throttling_and_heat_are_told_with_device_share_and_limit():
    slow = every_second(throttle=lambda at: ("thermal", "power cap") if at > 105 else (), temperature=93.0)
    told = samples.conditions(seen(slow), WINDOW, hot=90)
    assert told[0] == "device 0 throttled in 5 of 10 samples: thermal, power cap"
    assert told[1] == "device 0 ran hot: 93 °C, the vendor's limit is 90 °C"
    assert not samples.conditions(seen(every_second(throttle=(), temperature=89.0)), WINDOW, hot=90)


def test_failed_looks_in_the_window_are_told_with_their_reason():
    gaps = (Gap(101, 10, "acme: acme-smi did not end within 10 s\nit printed: x"), Gap(99, 1, "before"))
    told = samples.conditions(seen(every_second(), gaps=gaps), WINDOW)
    assert told == ("the monitor's looks failed once while it was measured: acme: acme-smi did not end within 10 s",)


def test_processes_that_could_not_be_listed_are_told():
    told = samples.conditions(seen(every_second(), blind="acme: no such option\nit printed: usage"), WINDOW)
    assert told == ("who else used the devices is not known: acme: no such option",)


def test_a_window_too_short_for_a_sample_says_so():
    found = samples.metrics_of(seen(every_second(temperature=50)), (100.6, 101.2))
    assert "temperature" not in found.figures
    assert "took no sample in the measured time" in found.notes[0]


def test_host_figures_are_the_mean_and_the_highest():
    host = tuple(every_second(cpu_utilization=0.25, memory_used=lambda at: at))
    found = samples.metrics_of(seen(every_second(), host=host), WINDOW).figures
    assert found == {"cpu_utilization": pytest.approx(0.25), "host_memory_used": pytest.approx(109.5)}


def test_every_metric_of_the_monitor_is_registered():
    figures = {"power": 1, "energy": 1, "temperature": 1, "utilization": 0.5, "memory_used": 1, "clock": 1}
    line = every_second(**figures, throttle=(), ecc_errors=0)
    host = tuple(every_second(cpu_utilization=0.5, memory_used=1.0))
    for name in samples.metrics_of(seen(line, host=host), WINDOW).figures:
        assert metrics.get(name).unit


def test_a_torn_or_hostile_monitor_file_gives_what_it_holds(tmp_path: Path):
    path = tmp_path / "monitor.jsonl"
    good = {"event": "sample", "monotonic": 1.0, "time": 2.0, "device": 0, "power": 3.0, "name": "A"}
    lines = [
        {"event": "monitor_start", "monotonic": 0.5, "devices": [0]},
        good,
        {**good, "monotonic": "soon"},
        {**good, "monotonic": float("nan")},
        {"event": "gap", "monotonic": 1.5, "seconds": 1, "error": "x"},
        {"event": "gap", "monotonic": 2.5, "seconds": 1},
    ]
    text = "\n".join([*map(json.dumps, lines), "[1, 2]", '{"event": "sample", "monot'])
    path.write_bytes(text.encode() + b"\xff\xfe")
    found = samples.read(path)
    assert found.devices == (0,)
    assert [one.figures for one in found.samples] == [{"power": 3.0, "name": "A"}]
    assert [gap.error for gap in found.gaps] == ["x", "x"]
    assert samples.read(tmp_path / "absent") == Samples()

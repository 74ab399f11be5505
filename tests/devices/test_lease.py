"""Leases, between real processes: exclusive, all or none, in turn, and gone with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flagperf import DeviceUnavailable
from pytest_flagperf.devices import lease
from tests.conftest import wait_for


# A process that leases devices, says which, and holds them until its standard input is closed.
HOLD = """
import sys, subprocess
from pytest_flagperf.devices import lease
available, wanted, child = sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3:]
with lease.leased("acme", [int(a) for a in available], wanted, owner=f"holder of {wanted}") as held:
    if child:
        started = subprocess.Popen(["sleep", "60"], pass_fds=held.files)
        print(started.pid, flush=True)
    print(*held.devices, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def lock_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def holder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that asks for a lease."""
    started: list[subprocess.Popen[str]] = []

    def start(available: str, wanted: int, *child: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, available, str(wanted), *child]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def take(available: list[int], wanted: int) -> tuple[int, ...] | None:
    """The devices one could have now, or ``None``."""
    found = lease._take("acme", available, wanted)
    if found is None:
        return None
    for handle in found.files:
        os.close(handle)
    return found.devices


def test_a_device_that_another_process_has_is_not_leased_again(holder):
    process = holder("0,1", 1)
    assert process.stdout.readline() == "0\n"
    with lease.leased("acme", [0, 1], 1, owner="me") as mine:
        assert mine.devices == (1,)
        assert take([0, 1], 1) is None
    assert take([0, 1], 1) == (1,)


def test_two_of_three_are_taken_all_or_none(holder):
    assert holder("0,1,2", 2).stdout.readline() == "0 1\n"
    assert take([0, 1, 2], 2) is None
    assert take([0, 1, 2], 1) == (2,), "the third was kept though the second was not to be had"


def test_a_lease_inside_a_process_excludes_that_process_too():
    with lease.leased("acme", [0], 1, owner="me"):
        assert take([0], 1) is None
    assert take([0], 1) == (0,)


def test_an_error_inside_a_lease_gives_it_back():
    with pytest.raises(RuntimeError), lease.leased("acme", [0], 1, owner="me"):
        raise RuntimeError
    assert take([0], 1) == (0,)


def test_vendors_do_not_get_in_each_others_way():
    with lease.leased("acme", [0], 1, owner="me"), lease.leased("other", [0], 1, owner="me") as second:
        assert second.devices == (0,)


def test_a_killed_holder_frees_its_devices_at_once(holder):
    process = holder("0", 1)
    assert process.stdout.readline() == "0\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert take([0], 1) == (0,)


def test_a_killed_holders_child_keeps_the_device_until_it_is_gone(holder):
    process = holder("0", 1, "with a child")
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "0\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        assert take([0], 1) is None
    finally:
        os.kill(child, signal.SIGKILL)
    assert wait_for(lambda: take([0], 1) == (0,), 5)


def test_who_waits_is_told_who_has_the_devices_and_gets_them_then(holder):
    process = holder("0", 1)
    assert process.stdout.readline() == "0\n"
    told: list[str] = []

    def waiting(who: str) -> None:
        told.append(who)
        process.stdin.close()

    with lease.leased("acme", [0], 1, owner="me", waiting=waiting) as mine:
        assert mine.devices == (0,)
    assert told == [f"pid {process.pid}, holder of 1"]


def test_more_devices_than_there_are_is_an_error_at_once():
    with (
        pytest.raises(DeviceUnavailable, match=r"3 devices of acme are needed, 2 are there \(0, 1\)"),
        lease.leased("acme", [0, 1], 3, owner="me"),
    ):
        pass


def test_a_request_for_all_is_not_starved_by_a_stream_of_small_ones():
    """Two threads lease one of two devices again and again, and are never both without: the big one still gets both."""
    stop, deadline = threading.Event(), time.monotonic() + 8
    counts = [0, 0]

    def small(number: int) -> None:
        while not stop.is_set() and time.monotonic() < deadline:
            with lease.leased("acme", [0, 1], 1, owner=f"small {number}"):
                counts[number] += 1
                time.sleep(0.08 + 0.05 * number)

    threads = [threading.Thread(target=small, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    assert wait_for(lambda: all(counts), 5)
    started = time.monotonic()
    try:
        with lease.leased("acme", [0, 1], 2, owner="big") as big:
            waited = time.monotonic() - started
            assert big.devices == (0, 1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert waited < 4


def test_who_wants_other_devices_does_not_wait_behind_the_first_in_the_queue(holder):
    assert holder("0", 1).stdout.readline() == "0\n"
    holder("0", 1)
    assert wait_for(lambda: lease._try_lock(lease._path("acme", "queue")) is None, 10)
    assert wait_for(lambda: lease._wanted_first("acme") == {0}, 5)
    started = time.monotonic()
    with lease.leased("acme", [1], 1, owner="me"):
        assert time.monotonic() - started < 1


def test_the_queue_goes_on_when_its_first_is_killed(holder):
    keeper = holder("0,1", 1)
    assert keeper.stdout.readline() == "0\n"
    first = holder("0,1", 2)
    assert wait_for(lambda: lease._wanted_first("acme") == {0, 1}, 10)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with lease.leased("acme", [0, 1], 1, owner="me") as mine:
        assert mine.devices == (1,)


@pytest.mark.parametrize("name", ["acme-0.lock", "acme-queue.lock"])
def test_a_link_in_the_lock_directory_is_refused_and_not_followed(lock_directory, tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_text("do not touch")
    lock_directory.mkdir()
    (lock_directory / name).symlink_to(precious)
    with (
        pytest.raises(DeviceUnavailable, match=r"lock file .* cannot be opened"),
        lease.leased("acme", [0], 1, owner="me"),
    ):
        pass
    assert precious.read_text() == "do not touch"


def test_a_lock_directory_is_made_for_all_users_but_one_that_was_there_keeps_its_mode(
    lock_directory, monkeypatch, tmp_path
):
    lease.directory()
    assert lock_directory.stat().st_mode & 0o7777 == 0o1777
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(own))
    with lease.leased("acme", [0], 1, owner="me"):
        assert own.stat().st_mode & 0o7777 == 0o700


def test_a_lock_directory_that_is_a_file_is_an_error_that_says_so(lock_directory):
    lock_directory.write_text("")
    with pytest.raises(DeviceUnavailable, match="locks"), lease.leased("acme", [0], 1, owner="me"):
        pass


def test_a_lock_file_of_hostile_content_names_nobody(lock_directory):
    lock_directory.mkdir()
    for content in (b"", b"\xff\xfe", b"[1]", b'{"pid": "x"}', b'{"pid": 1}', b"null"):
        (lock_directory / "acme-0.lock").write_bytes(content)
        assert lease.holder("acme", 0) == ""
        (lock_directory / "acme-queue.lock").write_bytes(content)
        assert 0 in lease._wanted_first("acme")
    with lease.leased("acme", [0], 1, owner="me") as mine:
        assert mine.devices == (0,)
        assert lease.holder("acme", 0) == f"pid {os.getpid()}, me"

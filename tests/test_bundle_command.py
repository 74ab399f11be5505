"""``flagperf bundle``: where the archive goes, and what is said where it cannot go there."""

from __future__ import annotations

import pytest

from pytest_flagperf.cli import main
from tests import made_session


def test_the_directories_of_the_archive_are_made(tmp_path):
    session = made_session.make(tmp_path)
    path = tmp_path / "new" / "deep" / "b.tar.gz"
    assert main(["bundle", str(session), "--output", str(path)]) == 0
    assert path.is_file()


def test_a_directory_as_output_is_bad_usage_in_one_line_and_stays_as_it_is(tmp_path, capsys):
    session = made_session.make(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit) as usage:
        main(["bundle", str(session), "--output", str(tmp_path / "out")])
    assert usage.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"--output: {tmp_path / 'out'} is a directory: name the file, which need not exist yet")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_place_that_cannot_be_is_one_line_and_nothing_is_made_where_nothing_is_packed(tmp_path, capsys):
    session = made_session.make(tmp_path)
    assert main(["bundle", str(session), "--output", "/proc/nope/b.tar.gz"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flagperf: the bundle /proc/nope/b.tar.gz cannot be written: ")
    assert main(["bundle", str(tmp_path / "nothing"), "--output", str(tmp_path / "new" / "b.tar.gz")]) == 1
    assert main(["bundle", str(session), "--output", str(session / "new" / "b.tar.gz")]) == 1
    assert not (tmp_path / "new").exists()
    assert not (session / "new").exists()

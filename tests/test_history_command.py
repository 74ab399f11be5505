"""``flagperf history``: the trend as text, JSON, CSV and a chart, and where figures changed."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from pytest_flagperf.cli import main
from pytest_flagperf.reports import trend
from tests import made_session
from tests.made_session import BEGIN
from tests.made_session import CASE


DAY = 86_400.0


@pytest.fixture
def results_directory(tmp_path: Path) -> Path:
    """Thirty days, the last ten slower by a tenth with another torch."""
    noise = random.Random(2)
    for day in range(30):
        speed = (1.0 if day < 20 else 0.9) * noise.gauss(1, 0.005)
        made_session.make(
            tmp_path,
            name=f"s{day:02d}",
            speeds=(speed,),
            started=BEGIN + day * DAY,
            stack={"torch": "2.9.0" if day < 20 else "2.10.0"},
            operators=day == 0,
        )
    return tmp_path / "results"


def test_the_trend_is_printed_and_drawn_with_its_change_and_what_came_with_it(results_directory, capsys):
    assert main(["history", "toy", "--metric", "p_train", "--dir", str(results_directory)]) == 0
    out = capsys.readouterr().out
    assert f"{CASE} acme, A1: p_train (samples/s, higher is better)" in out
    marked = [line for line in out.splitlines() if "▼ worse: -9.8 %" in line]
    assert len(marked) == 2  # in the table, and below the plot
    assert all("torch 2.9.0 → 2.10.0" in line for line in marked)
    assert "█" in out
    assert out.count("passed") == 30


def test_a_terminal_without_unicode_gets_ascii(results_directory):
    command = [sys.executable, "-m", "pytest_flagperf.cli", "history", "toy", "--metric", "p_train"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*command, "--dir", str(results_directory)], env=environment, capture_output=True, timeout=60, check=True
    )
    out = done.stdout.decode("ascii")
    assert "v worse: -9.8 % (" in out
    assert "torch 2.9.0 -> 2.10.0" in out
    assert trend.signs("latin-1") is trend.signs(None) is trend.ASCII
    assert trend.signs("utf-8") is trend.UNICODE


def test_many_series_are_a_row_each(results_directory, capsys):
    assert main(["history", "--metric", "all", "--dir", str(results_directory)]) == 0
    out = capsys.readouterr().out
    assert "gemm-train-fp32-fwd-m1024-n128-k1024-nn acme, A1" in out
    assert "1, last ▼ worse: -9.8 %" in out
    assert "history CASE prints and draws up to" in out


def test_json_and_csv_hold_every_point(results_directory, capsys):
    asked = ["history", "toy", "--metric", "p_train", "--dir", str(results_directory)]
    assert main([*asked, "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert len(document["points"]) == 30
    (change,) = document["changes"]
    assert (change["session"], change["better"], change["reasons"]) == ("s20", False, ["torch 2.9.0 → 2.10.0"])
    assert main([*asked, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(row["value"]) for row in rows] == [point["value"] for point in document["points"]]
    assert [row["session"] for row in rows if row["change"]] == ["s20"]


def test_the_choice_by_date_vendor_and_case(results_directory, capsys):
    where = ["--dir", str(results_directory), "--json", "--metric", "p_train"]
    day = trend.date(BEGIN + 20 * DAY, clock=False)
    assert main(["history", "toy*", "--since", day, *where]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["points"]) == 10
    assert main(["history", "toy", "--vendor", "nobody", *where]) == 1
    assert "nothing is known of case 'toy', metric 'p_train', vendor 'nobody'" in capsys.readouterr().err
    assert main(["history", "nothing", *where]) == 1
    with pytest.raises(SystemExit) as usage:
        main(["history", "--since", "yesterday"])
    assert usage.value.code == 2


def test_the_chart_marks_the_change_and_needs_no_network(results_directory, tmp_path, capsys):
    pytest.importorskip("pygal")
    path = tmp_path / "trend.svg"
    assert main(["history", "toy", "--metric", "p_train", "--dir", str(results_directory), "--svg", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    root = xml.etree.ElementTree.fromstring(text)
    links = [value for one in root.iter() for name, value in one.attrib.items() if name.endswith(("href", "src"))]
    assert not [link for link in links if not link.startswith("#")]
    assert "url(http" not in text
    assert "▼ worse" in text
    assert "torch 2.9.0 → 2.10.0" in text
    with pytest.raises(SystemExit):
        main(["history", "toy", "--metric", "all", "--dir", str(results_directory), "--svg", str(path)])
    assert "one chart shows one unit" in capsys.readouterr().err


def test_an_update_says_what_it_did(results_directory, capsys):
    assert main(["history", "--update", "--dir", str(results_directory)]) == 0
    assert "30 sessions read, 0 unchanged, 0 known that are no longer on disk" in capsys.readouterr().out
    with pytest.raises(SystemExit) as usage:
        main(["history", "--dir", str(results_directory / "nothing")])
    assert usage.value.code == 2


def test_control_characters_of_a_file_drive_no_terminal(tmp_path, capsys):
    made_session.make(tmp_path, operators=False, stack={"torch": "2.9\x1b[31m"}, host="h\x1b]0;x\x07")
    made_session.make(tmp_path, name="z", started=BEGIN + DAY, operators=False, stack={"torch": "\x1b[2J"})
    assert main(["history", "toy", "--dir", str(tmp_path / "results")]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_chart_goes_where_no_directory_is_yet_and_what_cannot_be_written_is_one_line(tmp_path, capsys):
    pytest.importorskip("pygal")
    made_session.make(tmp_path, operators=False)
    asked = ["history", "toy", "--metric", "p_train", "--dir", str(tmp_path / "results"), "--svg"]
    assert main([*asked, str(tmp_path / "new" / "charts" / "h.svg")]) == 0
    assert (tmp_path / "new" / "charts" / "h.svg").is_file()
    capsys.readouterr()
    for place in ("/proc/nope/h.svg", str(tmp_path)):
        assert main([*asked, place]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("flagperf: ")
        assert place in line


@pytest.mark.parametrize("rows", ["-3", "some"])
def test_a_number_of_rows_that_is_none_is_bad_usage(tmp_path, capsys, rows):
    made_session.make(tmp_path, operators=False)
    with pytest.raises(SystemExit) as usage:
        main(["history", "--last", rows, "--dir", str(tmp_path / "results")])
    assert usage.value.code == 2
    assert f"{rows!r} is no number of rows" in capsys.readouterr().err


def test_a_metric_that_nobody_knows_is_bad_usage_and_one_of_a_suites_own_is_not(tmp_path, capsys):
    session = made_session.make(tmp_path, operators=False)
    path = session / CASE / "result.json"
    document = json.loads(path.read_text())
    document["metrics"]["tokens_per_joule"] = {"value": 3.0, "unit": "1/J", "better": "higher"}
    path.write_text(json.dumps(document))
    where = ["--dir", str(tmp_path / "results")]
    assert main(["history", "--metric", "tokens_per_joule", *where]) == 0
    # A metric that there is and that nobody measured is no misuse.
    assert main(["history", "--metric", "bandwidth", *where]) == 1
    capsys.readouterr()
    with pytest.raises(SystemExit) as usage:
        main(["history", "--metric", "tokens_per_joule", "--metric", "nope", *where])
    assert usage.value.code == 2
    assert "there is no metric 'nope'; flagperf metrics lists those there are" in capsys.readouterr().err


@pytest.mark.parametrize("option", [(), ("--update",)])
def test_a_directory_without_sessions_is_told_and_left_as_it_is(tmp_path, capsys, option):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    assert main(["history", *option, "--dir", str(tmp_path / "venv")]) == 1
    assert "is no session, and holds none" in capsys.readouterr().err
    assert [one.name for one in (tmp_path / "venv").iterdir()] == ["bin"]
    session = made_session.make(tmp_path, operators=False)
    with pytest.raises(SystemExit) as usage:
        main(["history", *option, "--dir", str(session)])
    assert usage.value.code == 2
    assert "is one session: name the directory that it is in" in capsys.readouterr().err
    assert not (session / "history.sqlite").exists()

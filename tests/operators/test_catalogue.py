"""The problem files: that they are their sources' lists, corrected where it says so; and that a bad file is refused.

The counts are those of DeepBench's headers at commit da81ba7 and of FlagPerf's directories, counted by others.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators import catalogue
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import Problem


ROOT = Path(__file__).parents[2]
PROBLEMS = ROOT / "suites" / "operators" / "problems"

SMOKE = {
    "gemm.json": """
        m1760-n16-k1760-nn
        m1760-n128-k1760-tn
        m2560-n64-k2560-nn
        m35-n8457-k1760-nn
        m35-n8457-k1760-tn
        m1024-n700-k512-nn
        m1024-n700-k512-tn
        m3072-n128-k1024-tn
        m512-n16-k512-nt
        m1024-n16-k512-nt
        m35-n700-k2048-nn
        m5124-n700-k2048-nn
        m7680-n1-k2560-nn
        m3072-n4-k1024-nn
        m512-n1-k512-nn
        m1024-n2-k512-nn
        m512-n1500-k2048-nn
        m64-n1-k1216-nn
        m128-n1500-k1280-nn
        m4224-n1500-k176-nn
    """,
    "convolution.json": """
        w700-h161-c1-n4-k32-filter20x5-pad0x0-stride2x2
        w341-h79-c32-n4-k32-filter10x5-pad0x0-stride2x2
        w480-h48-c1-n16-k16-filter3x3-pad1x1-stride1x1
        w108-h108-c3-n8-k64-filter3x3-pad1x1-stride2x2
        w54-h54-c64-n8-k64-filter3x3-pad1x1-stride1x1
        w7-h7-c512-n8-k512-filter3x3-pad1x1-stride1x1
        w224-h224-c3-n16-k64-filter7x7-pad3x3-stride2x2
        w28-h28-c192-n16-k32-filter5x5-pad2x2-stride1x1
        w14-h14-c512-n16-k192-filter1x1-pad0x0-stride1x1
        w7-h7-c2048-n8-k512-filter1x1-pad3x3-stride2x2
        w42-h10-c512-n16-k512-filter3x3-pad1x1-stride1x1
        w28-h28-c512-n8-k256-filter1x1-pad0x0-stride2x2
        w112-h112-c64-n1-k64-filter1x1-pad0x0-stride1x1
        w7-h7-c832-n1-k128-filter5x5-pad2x2-stride1x1
        w350-h80-c64-n1-k128-filter5x5-pad1x1-stride2x2
    """,
    "recurrent.json": """
        vanilla-h1760-n16-t50
        lstm-h512-n16-t25
        gru-h512-n32-t1
        lstm-h512-n1-t25
        lstm-h256-n1-t150
        gru-h512-n1-t1
        gru-h1536-n1-t187
        vanilla-h32-n1-t672
        vanilla-h64-n1-t96
    """,
    "sparse_gemm.json": """
        m7680-n1-k2560-s95
        m7680-n1-k2560-s90
        m7680-n2-k2560-s95
        m10752-n4-k3584-s90
        m7680-n1500-k2560-s95
    """,
    "all_reduce.json": """
        elements100000
        elements3097600
    """,
}


def load(name: str) -> list[Any]:
    return catalogue.load(PROBLEMS / name)


def of_set(name: str, chosen: str) -> list[Any]:
    return [problem for problem in load(name) if chosen in problem.sets]


def find(name: str, id: str) -> Problem:
    return next(problem for problem in load(name) if problem.id == id)


FILES = sorted(path.name for path in PROBLEMS.glob("*.json"))


@pytest.mark.parametrize("name", FILES)
def test_ids_are_unique_and_every_problem_says_where_it_comes_from(name):
    read = catalogue.read(PROBLEMS / name)
    assert max(Counter(problem.id for problem in read.problems).values()) == 1
    assert {problem.source for problem in read.problems} <= {"DeepBench da81ba7", "FlagPerf"}
    assert {problem.family for problem in read.problems} == {read.family}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_one_problem_a_line(name):
    """A change of one size is a change of one line."""
    lines = (PROBLEMS / name).read_text(encoding="utf-8").splitlines()
    start = lines.index('  "problems": [') + 1
    given = [json.loads(line.strip().removesuffix(",")) for line in lines[start:-2]]
    assert len(given) == len(load(name))


@pytest.mark.parametrize(
    ("name", "distinct", "train", "server", "device"),
    [
        ("gemm.json", 243, 160, 75, 13),
        ("convolution.json", 192, 94, 107, 16),
        ("recurrent.json", 124, 53, 69, 3),
        ("sparse_gemm.json", 24, 0, 24, 8),
        ("all_reduce.json", 7, 7, 0, 0),
    ],
)
def test_the_lists_are_as_long_as_deepbenchs(name, distinct, train, server, device):
    problems = load(name)
    assert len(problems) == distinct
    for chosen, count in (("train", train), ("inference_server", server), ("inference_device", device)):
        assert sum(problem.occurrences_in(chosen) for problem in problems) == count, chosen


def test_convolutions_listed_twice_are_measured_once():
    distinct = {chosen: len(of_set("convolution.json", chosen)) for chosen in ("train", "inference_server")}
    assert distinct == {"train": 90, "inference_server": 103}
    twice = [problem for problem in load("convolution.json") if 2 in dict(problem.occurrences).values()]
    assert len(twice) == 8
    assert all("twice" in problem.note for problem in twice)


@pytest.mark.parametrize(
    ("name", "chosen", "tera"),
    [
        ("gemm.json", "train", 26.71),
        ("gemm.json", "inference_server", 1.797),
        ("gemm.json", "inference_device", 0.0289),
        ("convolution.json", "train", 0.5625),
        ("convolution.json", "inference_server", 0.0869),
        ("convolution.json", "inference_device", 0.001824),
        ("recurrent.json", "train", 13.73),
        ("recurrent.json", "inference_server", 2.5655),
        ("recurrent.json", "inference_device", 8.0806e-5),
        ("sparse_gemm.json", "inference_server", 0.1834),
        ("sparse_gemm.json", "inference_device", 0.0262),
    ],
)
def test_the_work_in_a_list_is_what_was_counted_independently(name, chosen, tera):
    """A digit that is wrong anywhere in a size moves the sum.

    Sparse: 0.185 of the sizes as DeepBench runs them, with 7860 for 7680.
    """
    work = sum(problem.flops("fwd") * problem.occurrences_in(chosen) for problem in load(name)) / 1e12
    assert work == pytest.approx(tera, rel=1e-3)


def test_the_gemm_layouts_are_deepbenchs():
    assert Counter(problem.layout for problem in of_set("gemm.json", "train")) == {"nn": 77, "tn": 73, "nt": 10}
    assert {problem.layout for problem in load("gemm.json") if "train" not in problem.sets} == {"nn"}


def test_the_recurrent_cells_are_deepbenchs():
    cells = {
        chosen: dict(Counter(problem.cell for problem in of_set("recurrent.json", chosen)))
        for chosen in ("train", "inference_server", "inference_device")
    }
    assert cells == {
        "train": {"vanilla": 12, "lstm": 22, "gru": 19},
        "inference_server": {"lstm": 15, "gru": 54},
        "inference_device": {"vanilla": 2, "lstm": 1},
    }


def test_ten_training_convolutions_read_the_networks_input():
    first = [problem for problem in of_set("convolution.json", "train") if problem.network_input]
    assert len(first) == 10
    assert {problem.c for problem in first} == {1, 3}
    assert all("bwd_data" not in problem.directions for problem in first)


def test_the_filters_of_speech_are_twenty_by_five_and_ten_by_five():
    outputs = {
        (layer.filter_w, layer.filter_h): (layer.out_w, layer.out_h)
        for layer in of_set("convolution.json", "train")
        if isinstance(layer, Convolution) and (layer.w, layer.h) in ((700, 161), (341, 79)) and layer.filter_w != 5
    }
    assert outputs == {(20, 5): (341, 79), (10, 5): (166, 38)}


@pytest.mark.parametrize("name", sorted(SMOKE))
def test_the_smoke_set_is_the_one_that_was_timed(name):
    assert {problem.id for problem in of_set(name, "smoke")} == set(SMOKE[name].split())


def test_the_smoke_set_has_fifty_one_of_deepbench_and_a_lite_size_of_flagperfs():
    assert sum(len(ids.split()) for ids in SMOKE.values()) == 51
    for name in ("computation.json", "memory.json", "operator.json"):
        assert of_set(name, "smoke"), name
        assert not {problem.id for problem in of_set(name, "smoke")} & {p.id for p in of_set(name, "flagperf")}


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_the_smoke_set_is_large(name):
    for problem in of_set(name, "smoke"):
        for precision in getattr(problem, "dtypes", ("fp32",)):
            for direction in problem.directions:
                assert (problem.bytes(precision, direction) or 0) <= 512 * 2**20, problem.id
                assert (problem.flops(direction) or 0) <= 50e9, problem.id


@pytest.mark.parametrize(
    ("name", "id", "words"),
    [
        ("gemm.json", "m512-n24000-k1536-nn", "1530"),
        ("gemm.json", "m1024-n6000-k1536-nn", "1530"),
        ("gemm.json", "m1760-n7133-k1760-nt", "6574"),
        ("gemm.json", "m4096-n7133-k4096-nt", "8935"),
        ("convolution.json", "w151-h40-c1-n1-k32-filter20x5-pad8x8-stride8x2", "Commented out"),
        ("convolution.json", "w7-h7-c2048-n8-k512-filter1x1-pad3x3-stride2x2", "7x7 again"),
        ("recurrent.json", "vanilla-h64-n1-t96", "hidden = 32"),
        ("recurrent.json", "lstm-h256-n1-t150", "batch 2 and 4"),
        ("sparse_gemm.json", "m7680-n6000-k2560-s95", "7860"),
        ("all_reduce.json", "elements16777216", "16777217"),
        ("all_reduce.json", "elements38360000", "not in its kernel spreadsheet"),
        ("computation.json", "m4096-n4096-k4096", "each vendor"),
        ("memory.json", "capacity-64GiB", "101.95 %"),
        ("interconnect.json", "all_reduce-server-4GiB", "doubles"),
        ("operator.json", "triu-51200x51200", "square"),
        ("operator.json", "all-1024x1024x1024", "int64"),
        ("operator.json", "mm-8192x8192", "652.78 %"),
        ("operator.json", "relu-1024x1024x1024", "zeros"),
        ("operator.json", "bitwise_and-1024x1024x1024", "-1"),
    ],
)
def test_every_correction_has_a_note(name, id, words):
    assert words in find(name, id).note


def test_the_notes_are_as_many_as_the_corrections():
    assert sum("1530" in problem.note for problem in load("gemm.json")) == 14
    assert sum("7133" in problem.note for problem in load("gemm.json")) == 3
    assert sum("7860" in problem.note for problem in load("sparse_gemm.json")) == 8
    assert not [problem for problem in load("sparse_gemm.json") if problem.m == 7860]


def test_flagperfs_base_list_has_one_size_for_everybody():
    full = [(p.m, p.n, p.k) for p in of_set("computation.json", "flagperf")]
    assert full == [(4096, 4096, 4096)]
    assert {(p.kind, p.scope) for p in of_set("interconnect.json", "flagperf")} == {
        ("host_to_device", "host"),
        ("device_to_device", "server"),
        ("device_to_device", "cluster"),
        ("all_reduce", "server"),
        ("all_reduce", "cluster"),
    }
    assert {p.kind for p in of_set("memory.json", "flagperf")} == {"bandwidth", "capacity"}


def test_flagperfs_operation_list_has_fifty_two_operators_nine_of_them_backward():
    full, lite = of_set("operator.json", "flagperf"), of_set("operator.json", "smoke")
    names = {problem.name for problem in full}
    assert len(full) == len(names) == 52
    assert {problem.name for problem in lite} == names
    backward = "cross_entropy_loss log_softmax native_dropout native_group_norm relu sigmoid silu softmax tanh"
    assert " ".join(sorted(problem.name for problem in full if problem.backward)) == backward
    assert {problem.name: problem.backward for problem in full} == {problem.name: problem.backward for problem in lite}


def test_a_lite_operator_is_its_full_one_but_for_the_sizes():
    lite = {problem.name: problem for problem in of_set("operator.json", "smoke")}
    for problem in of_set("operator.json", "flagperf"):
        small = lite[problem.name]
        assert [len(shape) for shape in small.inputs] == [len(shape) for shape in problem.inputs]
        same = ("dtypes", "flops_model", "flops_per_element", "input_dtypes", "output_dtypes", "arguments")
        assert [getattr(small, field) for field in same] == [getattr(problem, field) for field in same]


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("add", 2 * 2**30),
        ("silu", 4 * 2**30),
        ("gelu", 9 * 2**30),
        ("mul", 2**30),
        ("mm", 2 * 8192**3),
        ("bmm", 2 * 2 * 4096**3),
        ("addmm", 2 * 4096**3 + 3 * 4096**2),
        ("mv", 1024 * 1024 + 1024 * 1023),
        ("outer", 10240**2),
        ("amax", 81920**2),
        ("layer_norm", 9 * 20 * 6 * 2**20),
        ("log_softmax", 4 * 10 * 2**20),
        ("cross_entropy_loss", 3 * 1024 * 128000),
        ("triu", 51200 * 51199 // 2),
    ],
)
def test_operator_flops_are_flagperfs_counts_for_one_call(name, flops):
    problem = next(p for p in of_set("operator.json", "flagperf") if p.name == name)
    assert problem.flops("fwd") == flops


def test_outputs_have_the_shapes_the_operators_give():
    for problem in load("operator.json"):
        assert isinstance(problem, Operator)
        if problem.flops_model == "per_element" and len(problem.outputs[0]) == len(problem.inputs[0]):
            assert math.prod(problem.outputs[0]) == math.prod(problem.inputs[0]), problem.id


GOOD = {
    "schema_version": 1,
    "family": "gemm",
    "title": "Products",
    "source": {"name": "Ours", "url": "https://example.org", "license": "Apache-2.0"},
    "problems": [{"m": 2, "n": 3, "k": 4, "sets": ["train"]}],
}


def written(directory: Path, **changed: Any) -> Path:
    path = directory / "mine.json"
    path.write_text(json.dumps({**GOOD, **changed}), encoding="utf-8")
    return path


def test_a_file_that_is_right_is_read_with_its_checksum(tmp_path):
    path = written(tmp_path)
    read = catalogue.read(path)
    assert [problem.id for problem in read.problems] == ["m2-n3-k4-nn"]
    assert read.problems[0].source == "Ours"
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2; this version reads 1"),
        ({"family": "spmm"}, "unknown family 'spmm'"),
        ({"titel": "x"}, "titel"),
        ({"problems": [*GOOD["problems"], {"m": "2", "n": 3, "k": 4, "sets": ["train"]}]}, "problem 2: Expected `int`"),
        ({"problems": [{"m": 2, "n": 3, "sets": ["train"]}]}, "problem 1: gemm needs k"),
        ({"problems": [{"m": 2, "n": 3, "k": 4, "sparsity": 0.9, "sets": ["train"]}]}, "gemm has no sparsity"),
        ({"problems": [{"m": 2, "n": 3, "k": -4, "sets": ["train"]}]}, "k is -4"),
        (
            {"problems": [{"m": 2, "n": 3, "k": 4, "sets": ["trian"]}]},
            "problem 1 (m2-n3-k4-nn): its sets are ['trian']",
        ),
        ({"problems": [{"m": 2, "n": 3, "k": 4}]}, "at least one, of train"),
        ({"problems": GOOD["problems"] * 2}, "problem 2 (m2-n3-k4-nn): the file has it before"),
        ({"problems": [{"family": "gemm", **GOOD["problems"][0]}]}, "the family is the file's"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name_and_problem(tmp_path, changed, message):
    path = written(tmp_path, **changed)
    with pytest.raises(ConfigurationError) as refused:
        catalogue.load(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)


def test_a_file_that_is_not_there_or_not_json_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.json: cannot be read"):
        catalogue.load(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"schema_version": 1,', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"torn\.json: not a file of problems"):
        catalogue.load(tmp_path / "torn.json")


# --- the documentation


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)


def test_the_table_of_the_documentation_has_the_counts_of_the_files():
    rows = re.findall(r"^\| .* \| `(\w+)` \| `(\w+\.json)` \| (.*) \| \w.* \|$", reference_page(), re.MULTILINE)
    assert sorted(name for _, name, _ in rows) == FILES
    sets = ("train", "inference_server", "inference_device", "flagperf", "smoke")
    for _, name, counts in rows:
        problems = load(name)
        expected = [len(problems), *(sum(p.occurrences_in(chosen) for p in problems) for chosen in sets)]
        assert [int(count) for count in counts.split(" | ")] == expected, name


def reference_page() -> str:
    return (ROOT / "docs" / "reference" / "operators.md").read_text(encoding="utf-8")


def test_the_file_of_the_how_to_is_read(tmp_path):
    (tmp_path / "ours.json").write_text(blocks("how-to/add-an-operator.md", "json")[0], encoding="utf-8")
    assert [problem.id for problem in catalogue.load(tmp_path / "ours.json")] == [
        "m4096-n512-k1024-nn",
        "m1024-n512-k4096-tn",
    ]


def test_the_operator_of_the_how_to_can_be_added_to_the_list(tmp_path):
    lines = [json.loads(line) for line in blocks("how-to/add-an-operator.md", "json")[1].splitlines()]
    listed = json.loads((PROBLEMS / "operator.json").read_text(encoding="utf-8"))
    (tmp_path / "operator.json").write_text(json.dumps({**listed, "problems": [*listed["problems"], *lines]}))
    added = catalogue.load(tmp_path / "operator.json")[-2:]
    assert [problem.id for problem in added] == ["exp2-1024x1024x1024", "exp2-128x128x128"]


def test_the_suite_of_the_how_to_is_short_and_is_collected(tmp_path):
    suite = blocks("how-to/add-an-operator.md", "python")[0]
    assert len(suite.splitlines()) < 30
    (tmp_path / "test_ours.py").write_text(suite, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "--rootdir=."]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "test_our_layers[train-bf16-fwd-m4096-n512-k1024-nn]" in found.stdout, found.stdout + found.stderr
    assert "2 tests collected" in found.stdout

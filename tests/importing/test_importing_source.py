"""FlagPerf's Python and YAML files are read as data: what is data, what is named, and that nothing runs."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_flagperf import ConfigurationError
from pytest_flagperf.importing import hosts
from pytest_flagperf.importing import source


@pytest.fixture
def read(tmp_path):
    """Reads a text as a Python file."""

    def one(text: str | bytes) -> source.Source:
        path = tmp_path / "config.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return source.read(path)

    return one


def values(found: source.Source) -> dict[str, object]:
    return {name: value.value for name, value in found.values.items()}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'text'", "text"),
        ("-1e-5", -1e-5),
        ("128 * 4 + 2 ** 3", 520),
        ("7 // 2 - 1 % 2", 2),
        ("one + 1", 2),
        ("'a' + \"b\"", "ab"),
        ("[1] + [one, 'x']", [1, 1, "x"]),
        ("(1, [2, None])", (1, [2, None])),
        ("{'a': {'b': [True]}}", {"a": {"b": [True]}}),
        ("f'{folder}/x{one}'", "/srv/x1"),
        ("'--a ' \\\n    '--b'", "--a --b"),
    ],
)
def test_literals_and_what_is_made_of_them_are_data(read, expression, value):
    found = read(f"one = 1\nfolder = '/srv'\nx: object = {expression}\n")
    assert values(found)["x"] == value
    assert found.not_taken == ()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("x = len([1])", "a call"),
        ("x = os.environ", "an attribute"),
        ("x = [i for i in (1, 2)]", "a comprehension"),
        ("x = known['a']", "a subscript"),
        ("x = unknown", "unknown is not known here"),
        ("x = 1 if known else 2", "a condition"),
        ("x = 'a' * 10", "arithmetic with a str"),
        ("x = 9 ** 9 ** 9", "a power that large"),
        ("x = 10 ** 30", "it is no 64-bit number"),
        ("x = 1e400", "it is not a finite number"),
        ("x = 1 / 0", "division by zero"),
        ("x = f'{1:99999999999}'", "a format"),
        ("x = lambda: 1", "a function"),
        ("x = (y := 1)", "an assignment inside an expression"),
        ("x = {**known}", "an unpacking"),
        ("x, y = 1, 2", "an assignment to Tuple"),
        ("def x(): pass", "a function"),
        ("class x: y = 1", "a class"),
        ("for x in (1,): pass", "a loop"),
        ("while True: x = 1", "a loop"),
        ("if known: x = 1", "a condition"),
        ("try: x = 1\nfinally: pass", "a try block"),
        ("print('x')", "a call"),
        ("known.update(x=1)", "a call"),
    ],
)
def test_everything_else_is_named_with_its_line(read, statement, reason):
    found = read(f"known = {{'a': 1}}\n{statement}\n")
    assert "x" not in found.values
    (one,) = found.not_taken
    assert (one.line, one.needed) == (2, True)
    assert statement.splitlines()[0] in one.what or one.what.startswith("entry of x")
    assert reason in one.reason


@pytest.mark.parametrize(
    "change", ["x = compute()", "if y: x = 2", "def x(): pass", "import x", "for x in y: pass", "del x", "x += len(y)"]
)
def test_a_name_that_may_have_changed_is_not_used_with_its_old_value(read, change):
    found = read(f"x = 1\ny = [1]\n{change}\nz = x\n")
    assert "x" not in found.values
    assert "z" not in found.values


def test_a_dictionary_keeps_the_entries_that_are_data_with_their_lines(read):
    entries = ["'a': '/a'", "'b': find()", "('c', 1): '/c'", "**more", "'a': '/z'"]
    found = read("CASES = {\n" + ",\n".join(entries) + "\n}\nCASES['d'] = '/d'\neverything = CASES\n")
    assert "everything" not in found.values
    assert [(item.key, item.value.value, item.value.line) for item in found.tables["CASES"]] == [
        ("a", "/z", 6),
        ("d", "/d", 8),
    ]
    assert [(one.line, one.reason.partition(":")[0]) for one in found.not_taken] == [
        (3, "is not data"),
        (4, "is not data"),
        (5, "is not data"),
        (6, "stands there already; Python keeps the last"),
        (9, "is not data"),
    ]


def test_names_come_from_a_file_beside_as_flagperf_layers_them(read, tmp_path):
    (tmp_path / "config_common.py").write_text("vendor = 'acme'\nsize = 8\nCASES = {'a': 1}\n")
    found = read("from config_common import *\nfrom config_common import size as each\ntotal = each * 8\nimport os\n")
    assert values(found) == {"vendor": "acme", "size": 8, "CASES": {"a": 1}, "each": 8, "total": 64}
    assert found.values["vendor"].file == tmp_path / "config_common.py"
    (one,) = found.not_taken
    assert (one.what, one.needed) == ("import os", False)


def test_files_that_import_each_other_end(read, tmp_path):
    (tmp_path / "other.py").write_text("from config import *\na = 1\n")
    found = read("from other import *\nb = a\n")
    assert values(found) == {"a": 1, "b": 1}
    assert [one.reason for one in found.not_taken] == ["is not data: the files import each other"]


PAYLOAD = """
VENDOR = "acme"
__import__("os").system("touch {0}")
open("{0}", "w").write("x")
class Side:
    made = open("{0}", "w")
def effect(x=open("{0}", "w")): ...
@print
def decorated(): ...
CASES = {{"resnet50:pytorch:A1:1:8:1": __import__("os").popen("touch {0}").read()}}
x = [open("{0}", "w") for _ in "a"]
eval("open('{0}', 'w')")
y = f"{{open('{0}', 'w')}}"
import payload
from payload import *
after = 1
"""


def test_a_payload_is_not_run(read, tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "payload.py").write_text(f"open({str(marker)!r}, 'w')\nCASES = 5\n")
    found = read(PAYLOAD.format(marker))
    assert not marker.exists()
    assert "payload" not in sys.modules
    assert values(found)["after"] == 1
    # The same text does harm where it is run: the test could fail.
    harmful = f'open("{marker}", "w").write("x")'
    assert harmful in PAYLOAD.format(marker)
    exec(harmful)
    assert marker.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"x = '\xe9'\n", "is not UTF-8 (byte 5)"),
        (b"x = 1\0", "null bytes"),
        ("x = (", "is not Python: '(' was never closed"),
        ("x = " + "[" * 5000, "is not Python"),
        ("x = " + "-" * 200_000 + "1", "is nested too deeply"),
        ("x = " + "1+" * 100_000 + "1", "is nested too deeply"),
        ("x = a" + ".a" * 200_000, "is nested too deeply"),
        ("#" * (source.FILE_LIMIT + 1), "is larger than 1024 KiB"),
    ],
    ids=["latin-1", "null", "open", "brackets", "signs", "sum", "attributes", "size"],
)
def test_a_hostile_file_is_named_and_nothing_is_taken(read, text, reason):
    found = read(text)
    assert found.values == {}
    assert reason in found.not_taken[0].reason


@pytest.mark.parametrize("start", ["x = ['a']", "x = 'a'"])
def test_a_value_that_doubles_is_refused_before_it_fills_the_memory(read, start):
    made = "[x, x]" if "[" in start else "x + x"
    found = read(f"{start}\n" + f"x = {made}\n" * 64)
    assert "it is too large" in found.not_taken[0].reason
    assert len(str(found.values)) < 4 * source.WEIGHT_LIMIT


PIECES = [*"x=1[]{}:,+*-()\n ", "'a'", "**", "for", "if", "f'{x}'"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join).map(str.encode) | st.binary(max_size=60))
def test_no_text_makes_the_reader_raise(read, text):
    found = read(text)
    assert all(one.reason for one in found.not_taken)
    assert all(-(2**63) <= value < 2**63 for value in values(found).values() if isinstance(value, int))


def test_a_directory_and_a_missing_file_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.py"):
        assert "is not a file" in source.read(path).not_taken[0].reason


HOST = """# one host
VENDOR: "acme"
HOSTS: ["node1"]
CASES:
    "resnet50:pytorch_1.13": "/datasets/imagenet"
    "resnet50:pytorch_1.13": "/datasets/other"
"""


def yaml_file(path, text):
    (path / "host.yaml").write_text(text)
    return path / "host.yaml"


def test_yaml_gives_values_and_cases_with_their_lines(tmp_path):
    found = hosts.read(yaml_file(tmp_path, HOST))
    assert values(found)["HOSTS"] == ["node1"]
    (item,) = found.tables["CASES"]
    assert (item.key, item.value.value) == ("resnet50:pytorch_1.13", "/datasets/other")
    assert [(one.line, one.what) for one in found.not_taken] == [(6, "resnet50:pytorch_1.13")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/object/apply:os.system ['true']", "is a tag"),
        ("a: !!bool 5", "is a tag"),
        ("a: 2020-99-99", "month must be in"),
        (f"? {'0x' + 'f' * 9000}\n: 1", "Exceeds the limit"),
        ("a: &x [1]\nb: *x", "is an anchor or alias"),
        ("[" * 60_000, "is nested too deeply"),
        ("#" * 70_000, "is larger than 64 KiB"),
        ("a: [1", "is not YAML"),
        ("- 1", "holds no keys"),
        ("", "holds no keys"),
    ],
    ids=["tag", "boolean", "date", "number", "alias", "nested", "size", "open", "list", "empty"],
)
def test_yaml_that_is_no_host_file_is_named(tmp_path, text, reason):
    found = hosts.read(yaml_file(tmp_path, text))
    assert found.values == {}
    assert reason in found.not_taken[0].reason


def test_without_pyyaml_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError, match=r"host\.yaml: .*pip install 'pytest-flagperf\[import\]'"):
        hosts.read(yaml_file(tmp_path, HOST))


def test_thousands_of_entries_are_refused_at_once_and_not_compared_with_each_other(tmp_path):
    path = tmp_path / "test_conf.py"
    path.write_text("A = {" + ", ".join(f'"{number}": call({number})' for number in range(8000)) + "}\n")
    began = time.process_time()
    found = source.read(path)
    assert time.process_time() - began < 3
    assert [one.reason for one in found.not_taken] == ["is not data: it has 8,000 entries, more than 2,000"]

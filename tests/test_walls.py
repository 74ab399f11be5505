"""The walls between the rooms: who imports what, and what is written nowhere."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


PACKAGE = ROOT / "pytest_flagperf"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "suites").rglob("*.py")])

HEAVY = (
    "torch",
    "paddle",
    "mindspore",
    "onnx",
    "onnxruntime",
    "openvino",
    "numpy",
    "msgspec",
    "tabulate",
    "allure",
    "psutil",
    "pytest_flagperf.case",
    "pytest_flagperf.datasets",
    "pytest_flagperf.session",
    "pytest_flagperf.result",
)

RUN = """
import sys, pytest
code = pytest.main(sys.argv[1:])
print("LOADED", *(name for name in {heavy!r} if name in sys.modules))
print("PLUGIN", "pytest_flagperf.plugin" in sys.modules, int(code))
"""


def loaded(directory: Path, *arguments: str) -> tuple[list[str], str]:
    """What of the heavy modules a pytest of its own has imported, and its last line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLAGPERF_", "PYTEST_"))}
    # Other plugins import what they like.
    others = ["-p", "no:allure_pytest", "-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:anyio"]
    command = [sys.executable, "-c", RUN.format(heavy=HEAVY), "-p", "no:cacheprovider", *others, *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=True)
    found, last = done.stdout.splitlines()[-2:]
    return found.split()[1:], last


def test_help_imports_no_framework_and_none_of_our_dependencies(tmp_path):
    assert loaded(tmp_path, "--help") == ([], "PLUGIN True 0")


def test_a_session_without_a_case_imports_no_framework_and_none_of_our_dependencies(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(tmp_path): pass\n")
    assert loaded(tmp_path, "test_it.py") == ([], "PLUGIN True 0")


@pytest.mark.parametrize("kind", ["training", "inference"])
def test_a_collected_suite_imports_no_framework_and_no_engine(tmp_path, kind):
    source = ROOT / "suites" / kind / "resnet50" / "test_resnet50.py"
    (tmp_path / "test_resnet50.py").write_text(source.read_text())
    modules, last = loaded(tmp_path, "--collect-only", "-q", "test_resnet50.py")
    assert last == "PLUGIN True 0"
    assert not {"torch", "paddle", "mindspore", "onnx", "onnxruntime", "openvino"} & set(modules)


def imports(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


def starts_with(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


@pytest.mark.parametrize("path", sorted((PACKAGE / "worker").rglob("*.py")), ids=lambda path: path.name)
def test_a_worker_imports_neither_pytest_nor_another_room(path):
    rooms = ("perflog", "errors", "bounds", "launch.context", "operators.problems", "worker")
    allowed = [f"pytest_flagperf.{room}" for room in rooms]
    wrong = [name for name in imports(path) if starts_with(name, "pytest", "_pytest", "pytest_flagperf")]
    assert not [name for name in wrong if not starts_with(name, *allowed)]


@pytest.mark.parametrize("name", ["perflog", "errors", "launch.context"])
def test_what_a_worker_imports_is_standard_library_only(name):
    path = PACKAGE / (name.replace(".", "/") + ".py")
    assert all(module.partition(".")[0] in sys.stdlib_module_names for module in imports(path))


def test_the_pytest_process_imports_no_framework_and_no_engine():
    frameworks = ("torch", "paddle", "mindspore", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "tvm", "acl")
    outside = [path for path in PACKAGE.rglob("*.py") if "worker" not in path.parts]
    assert not [(path, name) for path in outside for name in imports(path) if starts_with(name, *frameworks)]


def test_reports_read_results_and_compute_nothing():
    forbidden = [f"pytest_flagperf.{room}" for room in ("metrics", "verdict", "launch", "launching", "rounds")]
    for path in (PACKAGE / "reports").rglob("*.py"):
        assert not [name for name in imports(path) if starts_with(name, *forbidden)], path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_vendor_is_data_and_no_shell_and_no_eval_is_used(path):
    assert not forbidden(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "if vendor == 'nvidia': pass",
        "if 'nvidia' != case.vendor: pass",
        "if session.vendor.name in ('nvidia', 'kunlunxin'): pass",
        'if case["vendor"] == "nvidia": pass',
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=wanted)",
        "os.system('ls')",
        "eval('1')",
    ],
)
def test_the_check_above_finds_what_it_looks_for(source):
    assert forbidden(source)


def forbidden(source: str) -> list[str]:
    """What ``source`` does that no room may do."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and _compares_vendor(node):
            wrong.append(f"line {node.lineno}: compares a vendor with a name")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in (
                "eval",
                "exec",
                "os.system",
                "os.popen",
                "subprocess.getoutput",
                "subprocess.getstatusoutput",
            ):
                wrong.append(f"line {node.lineno}: calls {called}")
            shell = [keyword.value for keyword in node.keywords if keyword.arg == "shell"]
            if any(not (isinstance(value, ast.Constant) and value.value is False) for value in shell):
                wrong.append(f"line {node.lineno}: asks for a shell")
    return wrong


def _compares_vendor(node: ast.Compare) -> bool:
    sides = [node.left, *node.comparators]
    named = any(ast.unparse(side).lower().split(".")[-1] in ("vendor", "vendor_name") for side in sides)
    named |= any(ast.unparse(side).lower().endswith(("vendor.name", 'vendor"]', "vendor']")) for side in sides)
    literal = any(isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) for s in sides for leaf in ast.walk(s))
    return named and literal and any(not isinstance(side, ast.Subscript) and _is_text(side) for side in sides)


def _is_text(side: ast.expr) -> bool:
    if isinstance(side, (ast.Tuple, ast.List, ast.Set)):
        return any(_is_text(item) for item in side.elts)
    return isinstance(side, ast.Constant) and isinstance(side.value, str)

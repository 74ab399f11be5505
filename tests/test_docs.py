"""The documentation: links resolve, tables say what the code says, the example suite runs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_flagperf import errors
from pytest_flagperf import metrics
from pytest_flagperf import options
from pytest_flagperf import perflog
from pytest_flagperf import result
from pytest_flagperf.datasets import registry
from pytest_flagperf.devices import catalogue
from pytest_flagperf.devices import outputs
from pytest_flagperf.devices import vendor
from tests.conftest import ROOT


DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
ADD_A_MODEL = DOCS / "how-to" / "add-a-model.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [text for kind, text in _FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


def named(path: Path, language: str) -> dict[str, str]:
    """The blocks whose first line is a comment with a file's name, by that name."""
    found = {}
    for text in blocks(path, language):
        first, _, rest = text.partition("\n")
        if re.fullmatch(r"# [\w/.-]+\.(py|toml)", first):
            found[first.removeprefix("# ")] = rest
    return found


def write(files: dict[str, str], directory: Path) -> None:
    """Put the named blocks on disk."""
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")


def pytest_run(directory: Path, *arguments: str, code: int = 0) -> str:
    """The output of a pytest of its own in ``directory``."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(path: Path) -> list[list[str]]:
    """The cells of every table row of a page."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    assert not [page for page in DOCS.rglob("*.md") if page != index and page not in listed]


def test_both_readmes_show_the_same_commands_and_links() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert blocks(english, "console") == blocks(chinese, "console")
    links = [set(_LINK.findall(prose(page))) - {"README.md", "README.zh-CN.md"} for page in (english, chinese)]
    assert links[0] == links[1]
    # What is typed in the tables, too.
    typed = [
        [cell for row in rows(page) for cell in row if cell.startswith(("`-", "`flagperf"))]
        for page in (english, chinese)
    ]
    assert typed[0] == typed[1]


def test_the_table_of_options_is_that_of_the_code() -> None:
    expected = [
        [
            " ".join(f"`{flag}`" for flag in option.flags),
            f"`{option.metavar}`",
            option.help,
            f"`{option.key}`",
            f"`{option.variable}`",
            "yes" if option.many else "",
        ]
        for option in options.TABLE
    ]
    page = [[*row, ""][:6] for row in rows(DOCS / "reference" / "options.md") if row[0].startswith("`--")]
    assert page == expected
    assert f"`{options.JUNIT_PROPERTIES}`" in (DOCS / "reference" / "options.md").read_text(encoding="utf-8")


def test_the_table_of_vendors_is_that_of_the_code() -> None:
    shipped = [vendor.load(path) for path in vendor.names([vendor.bundled()]).values()]
    expected = ["| " + " | ".join(catalogue.vendor_row(one)) + " |" for one in shipped]
    page = (DOCS / "reference" / "vendors.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in page if line.startswith("| ")][1:] == expected


def test_the_tables_of_metrics_are_those_of_the_code() -> None:
    page = {row[0].strip("`"): tuple(row[1:4]) for row in rows(DOCS / "reference" / "metrics.md") if row[0][0] == "`"}
    # A metric that another test registered is none of the plugin's.
    code = {m.name: (m.unit, m.better, m.description) for m in metrics.known().values() if m.name in page}
    assert page == code
    done = subprocess.run(
        [sys.executable, "-c", "from pytest_flagperf import metrics; print(*metrics.known())"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(page) == set(done.stdout.split())


def test_every_error_has_a_section() -> None:
    names = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, (errors.FlagPerfError, AssertionError))
    }
    assert {name.lower() for name in names} <= anchors(DOCS / "reference" / "errors.md")


def test_every_event_is_described() -> None:
    text = (DOCS / "reference" / "events.md").read_text(encoding="utf-8")
    assert not [name for name in perflog.EVENTS if f"`{name}`" not in text]


def test_every_field_of_a_result_is_described() -> None:
    text = (DOCS / "reference" / "result.md").read_text(encoding="utf-8")
    structs = (result.Result, result.RoundResult, result.CaseInfo, result.DatasetInfo, result.TargetResult)
    fields = {field for struct in structs for field in struct.__struct_fields__}
    assert not [field for field in sorted(fields) if f"`{field}`" not in text]
    assert f"`{result.SCHEMA_VERSION}`" in text


def test_python_in_the_pages_compiles() -> None:
    for page in (DOCS / "concepts.md", DOCS / "reference" / "metrics.md", *DOCS.glob("how-to/*.md")):
        for text in blocks(page, "python"):
            compile(text, str(page), "exec")


def test_the_vendor_file_and_the_overlay_in_concepts_are_read(tmp_path: Path) -> None:
    write(named(DOCS / "concepts.md", "toml"), tmp_path)
    acme = vendor.find("acme-npu", [tmp_path / "vendors"])
    found = acme.chip("Acme A1")
    assert found is not None
    assert found[1].peak["bf16"] == 240
    # The hook is that of Add a vendor, the overlay is one of the real ResNet-50.
    hooks = DOCS / "how-to" / "add-a-vendor.md"
    (hook,) = [text for text in blocks(hooks, "python") if "def pytest_flagperf_vendors" in text]
    (tmp_path / "conftest.py").write_text(hook, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    shutil.copytree(ROOT / "suites" / "training" / "resnet50", tmp_path / "resnet50")
    options = ("--vendor=acme", "--topology=1x8", "--scale=full", "--framework=pytorch")
    output = pytest_run(tmp_path, "resnet50", "--collect-only", "-q", *options)
    assert "test_converges[pytorch-fp32-1x8-full]" in output


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The suite of the how-to, on disk."""
    directory = tmp_path / "example"
    files = named(ADD_A_MODEL, "python")
    assert {"conftest.py", "perceptron/test_perceptron.py", "perceptron/images.py", "perceptron/pytorch.py"} == set(
        files
    )
    write(files, directory)
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    return directory


def test_the_example_is_collected(example: Path) -> None:
    output = pytest_run(example, "perceptron", "--collect-only", "-q", "--framework=pytorch", "--scale=full,lite")
    assert "test_perceptron.py::test_converges[pytorch-fp32-1x1-full]" in output
    assert "test_perceptron.py::test_throughput[pytorch-fp32-1x1-lite]" in output
    assert "4 tests collected" in output
    assert "mnist" not in registry.known()


@pytest.mark.slow
@pytest.mark.pytorch
def test_the_example_passes(example: Path) -> None:
    output = pytest_run(example, "perceptron", "--flagperf-dir=results")
    assert "2 passed" in output
    output = pytest_run(example, "perceptron", "-m", "convergence", "--topology=1x2", "--flagperf-dir=results")
    assert "1 passed" in output


@pytest.mark.slow
def test_a_missing_dataset_of_the_example_says_what_to_get(example: Path) -> None:
    empty = f"--data-root={example / 'data'}"
    output = pytest_run(example, "perceptron", "-m", "throughput", "--framework=pytorch", "--scale=full", empty, code=1)
    assert "download the four files of MNIST" in output
    assert "--dataset mnist=/path/to/mnist" in output


def test_the_example_table_is_read_by_the_pattern_beside_it(tmp_path: Path) -> None:
    page = DOCS / "how-to" / "add-a-vendor.md"
    (table,) = [text for text in blocks(page, "text") if "Zebra" in text]
    output = named(page, "toml")["vendors/zebra/output.toml"]
    head = 'schema_version = 1\nname = "zebra"\ntitle = "Zebra"\nprecisions = ["fp32"]\nframeworks = {}\n'
    write({"zebra/vendor.toml": head + output}, tmp_path)
    found = vendor.load(tmp_path / "zebra" / "vendor.toml")
    first, second = outputs.parse(found, "table", table)
    assert (first.name, first.temperature, first.power, first.utilization) == ("Zebra Z1", 41.0, 120.0, 0.25)
    assert (first.memory_used, first.memory_total) == (0.5, 64.0)
    assert [(process.pid, process.memory) for process in first.processes] == [(4711, 0.5)]
    assert (second.power, second.memory_used, second.processes) == (None, 0.0, ())
    cut = table.replace("|     | idle      |  N/A |            0% |\n", "")
    with pytest.raises(errors.ProbeError, match="2 devices begin in it, 1 are whole"):
        outputs.parse(found, "table", cut)


def test_the_example_parser_of_a_vendor_reads_and_refuses(tmp_path: Path) -> None:
    files = named(DOCS / "how-to" / "add-a-vendor.md", "python")
    write(files, tmp_path)
    spec = importlib.util.spec_from_file_location("smi", tmp_path / "vendors" / "acme" / "smi.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [(one.index, one.temperature) for one in module.table("0 41\n1 N/A\n")] == [(0, 41.0), (1, None)]
    with pytest.raises(errors.ProbeError):
        module.table("0 41 x\n")

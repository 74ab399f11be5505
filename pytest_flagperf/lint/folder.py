"""A vendor's folder: ``vendor.toml``, overlays, parser modules, and whatever else lies in it."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import overlay
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing import source
from pytest_flagperf.importing.overlays import toml
from pytest_flagperf.lint import text as texts
from pytest_flagperf.lint.problem import Problem
from pytest_flagperf.lint.problem import line_of


Cases = Mapping[str, Any]

_SHELL = (".sh", ".bash", ".zsh", ".csh", ".ksh", ".fish")
_SHEBANG = re.compile(r"#!.*\b(?:ba|z|k|c|da|fi)?sh\b")
_SHELL_CALLS = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_UNSOURCED = re.compile(r"\W*(?:todo|tbd|fixme|unknown|internal|n/?a|none|measured|x+)?\W*", re.IGNORECASE)
_ALWAYS_READ = re.compile(r"README(\.[\w-]+)?\.md|LICENSE.*|NOTICE.*|__init__\.py")


def looks_like_an_overlay(path: Path) -> bool:
    """Whether a TOML file has ``[[overlay]]``."""
    try:
        return bool(re.search(r"^\s*\[\[\s*overlay\s*\]\]", source.text_of(path), re.MULTILINE))
    except ValueError:
        return False


def check(directory: Path, cases: Cases) -> Iterator[Problem]:
    """The problems of one vendor's folder. ``cases`` are those that overlays are checked against."""
    path = directory / "vendor.toml"
    vendor: Vendor | None = None
    if path.is_file():
        problems, vendor = _vendor(path)
        yield from problems
    else:
        # Overlays alone, as flagperf import writes them, are for a vendor that is known.
        known = vendors.names([*vendors.installed(), vendors.bundled()])
        vendor = vendors.load(known[directory.name]) if directory.name in known else None
    modules = _modules(vendor) if path.is_file() and vendor is not None else set()
    for one in sorted(directory.glob("*.toml")):
        if one != path:
            yield from _overlay(one, cases, vendor)
            modules |= _workloads(one)
    read = {*_reached(directory, modules), path, *directory.glob("*.toml")}
    for one in sorted(directory.rglob("*")):
        if one.is_file() and "__pycache__" not in one.parts:
            yield from _file(one, directory, read, understood=vendor is not None)


def _vendor(path: Path) -> tuple[list[Problem], Vendor | None]:
    try:
        text = source.text_of(path)
        document = msgspec.toml.decode(text)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        line = re.search(r"line (\d+)", str(error))
        return [Problem(path, int(line[1]) if line else 1, "FP001", str(error))], None
    problems = list(_figures(path, text, document.get("chips", {}) if isinstance(document, dict) else {}))
    try:
        return problems, vendors.load(path)
    except ConfigurationError as error:
        message = str(error).replace(f"{path}: ", "", 1)
        # What is wrong with a figure was said above, of all of them.
        if all(one.is_warning for one in problems) or not re.search("above zero|source", message):
            problems.append(Problem(path, _line(text, message), "FP001", message))
        return problems, None


def _line(text: str, message: str) -> int:
    """The line that a message of the schema is about: where the last word in it that is a key stands."""
    for word in reversed(re.findall(r"[\w-]+", message)):
        line = next((n for n, one in enumerate(text.split("\n"), 1) if re.match(rf"\s*{re.escape(word)}\s*=", one)), 0)
        if line:
            return line
    return 1


def _figures(path: Path, text: str, chips: Any) -> Iterator[Problem]:
    for name, chip in chips.items() if isinstance(chips, dict) else ():
        if not isinstance(chip, dict):
            continue
        line = line_of(text, f"chips.{name}") or line_of(text, f'chips."{name}"')
        peaks = chip.get("peak", {})
        figures = {f"peak.{key}": value for key, value in peaks.items()} if isinstance(peaks, dict) else {}
        figures |= {key: chip[key] for key in ("memory", "memory_bandwidth", "tdp") if key in chip}
        for key, value in figures.items():
            if isinstance(value, (int, float)) and not 0 < value < float("inf"):
                where = line_of(text, key.partition(".")[0], after=line)
                yield Problem(path, where, "FP006", f"{name}: {key} is {value:g}: leave out what is not known")
        if not peaks:
            yield Problem(path, line, "W001", f"{name} has no peak: no utilization can be told, and none is refused")
        link = chip.get("link")
        sources = [("source", chip.get("source"))]
        sources += chip["sources"].items() if isinstance(chip.get("sources"), dict) else []
        sources += [("link.source", link.get("source"))] if isinstance(link, dict) else []
        for key, value in sources:
            if value is None or (isinstance(value, str) and _UNSOURCED.fullmatch(value)):
                where = line_of(text, key.rpartition(".")[2], after=line)
                yield Problem(path, where, "FP005", f"{name}: {key} is {value!r}: say where the figures can be read")


def _overlay(path: Path, cases: Cases, vendor: Vendor | None) -> Iterator[Problem]:
    case = cases.get(path.stem)
    if case is None:
        known = ", ".join(sorted(cases)) or "none"
        yield Problem(path, 1, "FP004", f"no suite has a training case {path.stem}; there are {known}: --suites DIR")
        return
    reason = _refusal(path, case, vendor)
    if not reason:
        return
    try:
        source.text_of(path)
    except ValueError as error:
        yield Problem(path, 0, "FP002", str(error))
        return
    found = list(_entries(path, case, vendor))
    # Broken as a whole, or only in how its entries go together.
    yield from found or [Problem(path, 1, "FP002", reason)]


def _entries(path: Path, case: Any, vendor: Vendor | None) -> Iterator[Problem]:
    """The problems of each key by itself: reading an overlay stops at the first."""
    text = source.text_of(path)
    headers = [n for n, line in enumerate(text.split("\n"), 1) if re.match(r"\s*\[\[\s*overlay\s*\]\]", line)]
    try:
        entries = msgspec.toml.decode(text).get("overlay", [])
    except (ValueError, RecursionError, msgspec.DecodeError):
        return
    targets = {target.metric for scale in case.scales.values() for target in scale.targets}
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        line = headers[number] if number < len(headers) else 1
        config = entry.get("config") if isinstance(entry, dict) else None
        if not isinstance(config, dict):
            config, selectors = {}, entry
        else:
            # What is wrong with the selectors is wrong with every key: said once.
            selectors = {**entry, "config": _harmless(case, entry.get("scale"))}
        reason = _refusal_of(selectors, path, case, vendor)
        if reason:
            yield Problem(path, line, "FP002", reason)
            continue
        for key in config:
            reason = _refusal_of({**entry, "config": {key: config[key]}}, path, case, vendor)
            if reason:
                code = "FP003" if key in targets or key.startswith("target_") else "FP002"
                yield Problem(path, line_of(text, key, after=line), code, reason)


def _harmless(case: Any, scale: object) -> dict[str, Any]:
    """A configuration that changes nothing and breaks no rule."""
    chosen = case.scales.get(scale if isinstance(scale, str) else "full")
    standard = {**case.config, **(chosen.config if chosen else {})}
    return {key: standard[key] for key in sorted(case.tunable) if key in standard}


def _refusal_of(entry: Any, path: Path, case: Any, vendor: Vendor | None) -> str:
    """Why an overlay with this entry alone would not load, beside the modules that are beside ``path``."""
    if not isinstance(entry, dict):
        return "is no table"
    with tempfile.TemporaryDirectory() as directory:
        for module in path.parent.glob("*.py"):
            (Path(directory) / module.name).touch()
        alone = Path(directory) / path.name
        lines = [f"{key} = {toml(value)}" for key, value in entry.items()]
        alone.write_text("\n".join(["[[overlay]]", *lines, ""]), encoding="utf-8")
        return _refusal(alone, case, vendor)


def _refusal(path: Path, case: Any, vendor: Vendor | None) -> str:
    try:
        overlay.read(path, case, vendor)
    except RecursionError:
        return "is nested too deeply"
    except ConfigurationError as error:
        return re.sub(r"^overlay 1: ", "", str(error).replace(f"{path}: ", "", 1))
    return ""


def _modules(vendor: Vendor) -> set[str]:
    """The files that ``vendor.toml`` names."""
    named = [probe.library for probe in vendor.probe] + [output.parser for output in vendor.output.values()]
    return {text.partition(":")[0] for text in named if text}


def _workloads(path: Path) -> set[str]:
    try:
        entries = msgspec.toml.decode(source.text_of(path)).get("overlay", [])
    except (ValueError, RecursionError, msgspec.DecodeError):
        return set()
    named = [entry.get("workload") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {f"{text.partition(':')[0]}.py" for text in named if isinstance(text, str) and text}


def _reached(directory: Path, names: set[str]) -> set[Path]:
    """The modules with these names and those beside them that they import."""
    reached: set[Path] = set()
    waiting = [directory / name for name in sorted(names)]
    while waiting:
        path = waiting.pop()
        if path in reached or not path.is_file():
            continue
        reached.add(path)
        try:
            tree = ast.parse(source.text_of(path))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or "", *(alias.name for alias in node.names)]
            else:
                continue
            waiting += [directory / f"{name.rpartition('.')[2]}.py" for name in imported if name]
    return reached


def _file(path: Path, directory: Path, read: set[Path], *, understood: bool) -> Iterator[Problem]:
    relative = path.relative_to(directory)
    is_baseline = relative.parts[0] == "baselines" and path.suffix == ".toml"
    try:
        text = source.text_of(path)
    except ValueError as error:
        yield Problem(path, 0, "FP029", f"nobody reads this: it {error}")
        return
    if path.suffix in _SHELL or _SHEBANG.match(text):
        yield Problem(path, 1, "FP028", "is a shell script, and none is run: say it in vendor.toml, or in Python")
    elif understood and path not in read and not is_baseline and not _ALWAYS_READ.fullmatch(path.name):
        yield Problem(path, 1, "FP029", "neither vendor.toml nor an overlay names it")
    yield from texts.check(path, text)
    if path.suffix == ".py":
        yield from _calls(path, text)


def _calls(path: Path, text: str) -> Iterator[Problem]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield Problem(path, getattr(error, "lineno", None) or 1, "FP028", f"is not Python: {error}")
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""
        shell = [keyword.value for keyword in node.keywords if keyword.arg == "shell"]
        if called in _SHELL_CALLS:
            yield Problem(path, node.lineno, "FP028", f"calls {called}")
        elif shell and not (isinstance(shell[0], ast.Constant) and shell[0].value is False):
            yield Problem(path, node.lineno, "FP028", f"calls {called} with a shell")

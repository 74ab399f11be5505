"""A vendor's configuration of a FlagPerf case → an overlay of ours, checked by the rules that overlays have."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_flagperf import overlay
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing.findings import NotTaken
from pytest_flagperf.importing.findings import Refused
from pytest_flagperf.importing.findings import Source
from pytest_flagperf.importing.findings import Value
from pytest_flagperf.importing.findings import shown
from pytest_flagperf.importing.layout import VendorConfig
from pytest_flagperf.importing.names import Names
from pytest_flagperf.importing.ours import Ours


@dataclass(frozen=True)
class Entry:
    """One ``[[overlay]]`` and the configuration it was taken from."""

    config: VendorConfig
    vendor: str
    model: str
    framework: str
    precision: str
    settings: Mapping[str, Any]
    note: str = ""

    @property
    def text(self) -> str:
        """The entry as TOML."""
        selectors = {"chip": self.config.hardware, "topology": self.config.topology, "framework": self.framework}
        if self.precision:
            selectors["precision"] = self.precision
        selectors["scale"] = "full"
        comments = [f"# {self.origin}", *([f"# {self.note}"] if self.note else [])]
        lines = [*comments, "[[overlay]]", *(f"{key} = {toml(value)}" for key, value in selectors.items())]
        inner = ", ".join(f"{key} = {toml(value)}" for key, value in sorted(self.settings.items()))
        return "\n".join([*lines, f"config = {{ {inner} }}", ""])

    @property
    def origin(self) -> str:
        """Where it was taken from, below FlagPerf's ``training``."""
        return "/".join(self.config.path.parts[-4:])


def precision_of(source: Source, names: Names, check: Callable[[str], None]) -> tuple[str | None, list[NotTaken]]:
    """The precision that a vendor's configuration asks for, ``""`` where it says none.

    ``None`` where ``check`` raises ``Refused`` of it: the configuration is for something that cannot be run.
    """
    asked: dict[str, tuple[str, Value]] = {}
    refused = []
    for name, value in source.values.items():
        if name in names.precisions and value.value is True:
            asked.setdefault(names.precisions[name], (name, value))
        elif name == "precision" and isinstance(value.value, str):
            text = names.precision_texts.get(value.value.lower())
            if text is None:
                refused.append(value.refused(f"precision = {shown(value.value)}", "is no precision of ours"))
            else:
                asked.setdefault(text, (name, value))
    if len(asked) > 1:
        _, value = list(asked.values())[-1]
        several = ", ".join(asked)
        return "", [*refused, value.refused("the precision", f"is asked for as {several}; give --precision yourself")]
    for precision, (name, value) in asked.items():
        try:
            check(precision)
        except Refused as error:
            reason = f"{error}: the command has the default precision, and there is no overlay"
            return None, [*refused, value.refused(f"{name} = {shown(value.value)}", reason)]
    return next(iter(asked), ""), refused


def take(config: VendorConfig, source: Source, ours: Ours) -> tuple[Entry | None, list[NotTaken]]:
    """The overlay entry of one configuration, ``None`` where it changes nothing. Raises ``Refused`` without a case."""
    vendor = ours.vendor(config.vendor)
    framework = ours.framework(config.framework)
    case = ours.case("training", config.model, framework)
    precision, not_taken = precision_of(
        source, ours.names, lambda asked: ours.check_precision(asked, vendor, framework, case)
    )
    not_taken += source.not_taken
    taken = _keys(source, case, ours.names, not_taken)
    settings, note = _settings(taken, config, case, framework)
    chips = {*vendor.chips, *(chip.family for chip in vendor.chips.values() if chip.family)}
    if config.hardware not in chips:
        reason = f"{vendor.name} has no chip or family {config.hardware}; it has {', '.join(sorted(chips)) or 'none'}"
        return None, [*not_taken, NotTaken(config.path, 0, config.path.name, reason)]
    if precision is None:
        return None, not_taken
    entry = Entry(config, vendor.name, case.model, framework, precision, settings, note)
    for key in sorted(settings):
        reason = _refusal(entry, {key: settings[key]}, case, vendor)
        if reason:
            del settings[key]
            not_taken.append(taken[key].refused(f"{key} = {shown(taken[key].value)}", reason))
    return (entry if settings else None), not_taken


def _keys(source: Source, case: Any, names: Names, not_taken: list[NotTaken]) -> dict[str, Value]:
    """The values of a configuration by our keys; those that have none are added to ``not_taken``."""
    taken = {}
    for name, value in source.values.items():
        if name in names.precisions or name == "precision":
            continue
        try:
            taken[_key(name, value, case, names)] = value
        except Refused as refused:
            needed = name not in names.ignored
            not_taken.append(value.refused(f"{shown(name)} = {shown(value.value)}", str(refused), needed=needed))
    return taken


def _key(name: str, value: Value, case: Any, names: Names) -> str:
    if name in names.targets or name.startswith("target_"):
        raise Refused(_about_target(name, value, case, names))
    if name in names.ignored:
        raise Refused(names.ignored[name])
    key = names.keys.get(name)
    if key is None:
        raise Refused(f"is no key of {case.model}")
    if value.value is None:
        raise Refused("is None: what the case says holds")
    try:
        toml(value.value).encode()
    except UnicodeEncodeError as error:
        raise Refused("is no text that can be written") from error
    if key not in case.tunable:
        tunable = ", ".join(sorted(case.tunable)) or "nothing"
        raise Refused(f"{key} is not tunable in {case.model}; tunable: {tunable}")
    return key


def _about_target(name: str, value: Value, case: Any, names: Names) -> str:
    always = f"is a target; a vendor cannot change a target of {case.model}"
    foreign = names.targets.get(name)
    own = next((one for one in case.scales["full"].targets if foreign and one.metric == foreign.metric), None)
    if own is None or foreign is None or isinstance(value.value, bool) or not isinstance(value.value, (int, float)):
        return always
    bound = value.value / 100 if foreign.percent else value.value
    lowered = bound < own.bound if own.direction == "at least" else bound > own.bound
    return f"is a {'lowered ' if lowered else ''}target; a vendor cannot change {own} ({own.source})"


def _plain(value: Any) -> Any:
    """A number that is whole is an ``int``, as FlagPerf writes 1e4 for steps; a list of one is its element."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return _plain(value[0])
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    return list(value) if isinstance(value, tuple) else value


def _settings(
    taken: Mapping[str, Value], config: VendorConfig, case: Any, framework: str
) -> tuple[dict[str, Any], str]:
    """The overlay's configuration: what differs from the standard case, which else were listed as a deviation.

    FlagPerf's learning rate is that of the global batch; ours is that of ``reference_batch_size`` samples, where the
    case has one. The text says so.
    """
    standard = _standard(case, framework)
    settings = {key: _plain(value.value) for key, value in taken.items()}
    effective, note = {**standard, **settings}, ""
    rate, reference = settings.get("learning_rate"), effective.get("reference_batch_size")
    sizes = [effective.get("batch_size"), effective.get("gradient_accumulation_steps", 1)]
    if isinstance(rate, (int, float)) and reference and all(isinstance(size, int) and size > 0 for size in sizes):
        samples = math.prod((*sizes, config.nodes, config.devices))
        settings["learning_rate"] = float(f"{rate * reference / samples:.12g}")
        note = f"learning_rate: FlagPerf's {rate:g} is that of {samples} samples, ours that of {reference}"
    changed = {key: value for key, value in settings.items() if key not in standard or standard[key] != value}
    return changed, note if "learning_rate" in changed else ""


def _standard(case: Any, framework: str) -> dict[str, Any]:
    scale = case.scales["full"]
    return {**case.config, **scale.config, **scale.frameworks.get(framework, {})}


def _refusal(entry: Entry, settings: Mapping[str, Any], case: Any, vendor: Vendor) -> str:
    """Why an overlay with these settings would not load; the rules are those of ``overlay.py`` alone."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"{entry.model}.toml"
        path.write_text(replace(entry, settings=settings).text, encoding="utf-8")
        try:
            overlay.read(path, case, vendor)
        except ConfigurationError as error:
            return str(error).replace(f"{path}: overlay 1: ", "").replace(f"{path}: ", "")
    return ""


def toml(value: Any) -> str:
    """A text, number, list or table as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's; U+007F is a control character in TOML alone.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(str(key))} = {toml(one)}' for key, one in value.items())} }}"
    return repr(value)

"""What FlagPerf's names are matched with: our cases, vendors and datasets."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf import datasets
from pytest_flagperf import suites
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.importing import names as foreign
from pytest_flagperf.importing.findings import Refused
from pytest_flagperf.importing.names import Names


@dataclass(frozen=True)
class Ours:
    """Our side. ``suites`` are pytest's arguments that name the suites."""

    names: Names
    cases: Mapping[tuple[str, str], Any]
    vendor_directories: Sequence[Path]
    suites: tuple[str, ...]

    @classmethod
    def bundled(cls) -> Ours:
        """The suites that come with the plugin, its vendors and those of installed packages."""
        directory = suites.bundled()
        installed = directory.name == "flagperf_suites"
        arguments = ("--pyargs", directory.name) if installed else (directory.name,)
        return cls(foreign.load(), suites.cases(directory), (*vendors.installed(), vendors.bundled()), arguments)

    def vendor(self, name: str) -> Vendor:
        """Our vendor for FlagPerf's ``name``. Raises ``Refused`` where there is none, and for a damaged file."""
        own = self.names.vendor(name)
        known = vendors.names(self.vendor_directories)
        if own not in known:
            raise Refused(f"there is no vendor {own} here; there are {', '.join(sorted(known))}")
        return vendors.load(known[own])

    def case(self, kind: str, model: str, framework: str | None = None) -> Any:
        """Our case of FlagPerf's ``model``. Raises ``Refused`` where our suites have none, or not at full scale."""
        own = self.names.model(kind, model)
        case = self.cases.get((kind, own))
        if case is None:
            there = {name: one.scales for (its_kind, name), one in self.cases.items() if its_kind == kind}
            have = ", ".join(sorted(name for name, scales in there.items() if "full" in scales))
            raise Refused(f"our suites have no {kind} case {own}; they have {have or 'none of this kind'}")
        if framework is not None and framework not in getattr(case, "workloads", ()):
            raise Refused(f"{own} has no workload for {framework}; it has {', '.join(case.workloads)}")
        if "full" not in case.scales:
            raise Refused(f"{own} has no scale full; it has {', '.join(case.scales)}")
        return case

    def family(self, name: str) -> Any:
        """Our case of a family of operators. Raises ``Refused`` where the suites have none."""
        case = self.cases.get(("operator", name))
        if case is None:
            raise Refused(f"our suites have no operators of the family {name}")
        return case

    def operators(self) -> set[str]:
        """The names in our list of FlagPerf's operators; none where the suites do not have it."""
        case = self.cases.get(("operator", "operator"))
        directory = suites.bundled() / "operators"
        return {problem.name for problem in case.load(directory)} if case is not None else set()

    def framework(self, text: str) -> str:
        """Our framework for FlagPerf's ``pytorch_1.13``. Raises ``Refused`` for those this version does not launch."""
        found = self.names.framework(text)
        if found is None:
            raise Refused(f"{text} is launched by no launcher of ours; frameworks: {', '.join(self.frameworks)}")
        return found

    def check_precision(self, precision: str, vendor: Vendor, framework: str, case: Any) -> None:
        """Raises ``Refused`` where the vendor, its framework or the case has not this precision."""
        support = vendor.frameworks.get(framework)
        narrowed = support.precisions if support is not None else None
        for whose, known in (
            (f"{vendor.name}'s {framework}", narrowed),
            (vendor.name, vendor.precisions),
            (case.model, case.precisions),
        ):
            if known is not None and precision not in known:
                raise Refused(f"is {precision}, which {whose} has not; it has {', '.join(known)}")

    @property
    def frameworks(self) -> list[str]:
        """Our frameworks, each once."""
        return list(dict.fromkeys(self.names.frameworks.values()))

    def dataset(self, model: str, case: Any) -> str:
        """The dataset that FlagPerf's data directory of ``model`` is. Raises ``Refused`` where ours reads another."""
        name: str = case.scales["full"].dataset
        if name not in datasets.known() or not self.names.has_layout(model, name):
            raise Refused(f"{case.model} reads {name}, laid out otherwise: prepare it and give --dataset {name}=PATH")
        return name

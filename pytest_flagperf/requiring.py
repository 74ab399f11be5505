"""The tests that ``--require`` adds: each a figure across cases, checked by the reporting process after all others.

They are items that pytest runs as any other, so every report has them. Under xdist no worker could: none of them knows
what the others measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf.errors import RequirementMissed
from pytest_flagperf.judging import requirements
from pytest_flagperf.judging.derived import Derived
from pytest_flagperf.judging.requirements import Requirement


class RequirementItem(pytest.Item):
    """One requirement."""

    requirement: Requirement
    derived: Derived

    def runtest(self) -> None:
        """Pass where the requirement is met; else raise ``RequirementMissed``."""
        __tracebackhide__ = True
        found = self.requirement.check(self.derived)
        if not found.met:
            raise RequirementMissed(requirements.message(found, self.derived))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> str:
        """What is not met; where in the plugin that was found out helps nobody."""
        return f"{excinfo.typename}: {excinfo.value}"

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """It is written in no file."""
        return self.config.rootpath / "flagperf", None, self.name


def run(session: pytest.Session, wanted: Sequence[Requirement], derived: Derived) -> None:
    """Run a test for each requirement, in this process, as the last ones of the session."""
    session.testscollected += len(wanted)
    for one in wanted:
        name = f"require {one}"
        item = RequirementItem.from_parent(session, name=name, nodeid=f"flagperf::{name}")
        item.requirement, item.derived = one, derived
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

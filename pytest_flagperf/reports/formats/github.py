"""GitHub Actions: the step summary as Markdown, and annotations as workflow commands for standard output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import markdown
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


VARIABLE = "GITHUB_STEP_SUMMARY"
# GitHub shows no more of each level a step, and takes 1 MiB of summary, of which steps may write several.
_MOST_ANNOTATIONS = 10
_LIMIT = 400_000
_LONGEST_MESSAGE = 4_000


def render(sessions: Sequence[SessionFiles], output: Path | None) -> str | None:
    """The annotations, which GitHub reads on standard output; the summary goes to ``output``.

    Without an output it is added to the file that ``GITHUB_STEP_SUMMARY`` names, and where that is not set either, the
    summary is the first part of the text.
    """
    # Characters of the summary's own are ASCII; the limit in bytes holds for text in other scripts too.
    summary = markdown.text(sessions, _LIMIT // 4)
    lines = "".join(f"{line}\n" for line in workflow_commands(sessions))
    if output is not None:
        reading.write(output, summary.encode())
        return lines or None
    given = os.environ.get(VARIABLE)
    if not given:
        return summary + "\n" + lines
    try:
        with open(given, "a", encoding="utf-8") as file:
            file.write(summary + "\n")
    except OSError as error:
        raise ConfigurationError(
            f"the step summary cannot be written to {given}, which {VARIABLE} names: {error}"
        ) from error
    return lines or None


def workflow_commands(sessions: Sequence[SessionFiles]) -> list[str]:
    """A workflow command for each requirement and case that does not hold; what is undecided is a ``warning``."""
    found = sorted((one for _, one in common.results(sessions)), key=lambda one: reading.severity(one.verdict))
    amiss = [one for one in found if not common.is_well(one)]
    levels = {"error": [one for one in amiss if one.verdict != "inconclusive"]}
    levels["warning"] = [one for one in amiss if one.verdict == "inconclusive"]
    unmet = [
        f"::error title={_property(f'required, not met: {one.text}')}::{_data(reading.said(one)[:_LONGEST_MESSAGE])}"
        for session in sessions
        for one in reading.not_met(session)
    ]
    cases = {level: [_annotation(level, one) for one in ones] for level, ones in levels.items()}
    return [*[*unmet, *cases["error"]][:_MOST_ANNOTATIONS], *cases["warning"][:_MOST_ANNOTATIONS]]


def _annotation(level: str, result: Result) -> str:
    file = result.case.node_id.partition("::")[0]
    title = f"{result.verdict}: {common.label(result)}"
    place = f"file={_property(file)}," if file else ""
    message = "\n".join([*common.reasons(result), *common.remarks(result)])[:_LONGEST_MESSAGE]
    return f"::{level} {place}title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    """A workflow command's message: its own escapes, so that no line of it is a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

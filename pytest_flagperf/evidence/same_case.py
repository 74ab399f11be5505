"""The case that a result is of, beside the ``case.json`` that its ranks were given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_flagperf.evidence import recorded
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.result import Result


def same_case(result: Result, document: Mapping[str, Any], file: str, told_by: str, findings: Findings) -> None:
    """What the result in ``told_by`` says of the case, beside what the ranks were given by ``file``."""
    case = result.case
    for key in ("id", "model", "role", "framework", "precision", "topology", "scale", "vendor"):
        findings.same(told_by, f"case.{key}", getattr(case, key), document.get(key), file)
    # Of before there was an open division.
    findings.same(told_by, "case.division", case.division, document.get("division", "closed"), file)
    findings.same(told_by, "case.devices", case.devices, document["device"].get("indices"), file)
    findings.same(told_by, "case.stand_in", case.stand_in, document["device"].get("stand_in", ""), file)
    # Each round has a seed of its own; the rest is the same in all of them.
    for key in ("container", "vendor_file", "environment"):
        findings.same(told_by, f"case.{key}", getattr(case, key), document.get(key, {}), file)
    said = {key: setting.value for key, setting in result.configuration.items()}
    findings.same_table(told_by, "configuration.", said, document["config"], file)
    findings.same(told_by, "deviations", result.deviations, document["deviations"], file)
    findings.same(told_by, "diff", result.diff, document.get("diff", ""), file)
    data = document["dataset"]
    for key in ("name", "checksum", "synthetic"):
        findings.same(told_by, f"dataset.{key}", getattr(result.dataset, key), data.get(key), file)
    if case.kind == "inference":
        findings.same(told_by, "case.engine", case.engine, document.get("engine"), file)
        _same_weights(result, document["weights"], file, told_by, findings)
    if case.role == "convergence" or case.kind == "inference":
        keys = ("metric", "bound", "direction", "source")
        wanted = recorded.targets(document, case.kind)
        asked = [{key: getattr(target, key) for key in keys} for target in wanted]
        told = [{key: getattr(target, key) for key in keys} for target in result.targets]
        findings.same(told_by, "targets", told, asked, file)


def _same_weights(result: Result, given: Mapping[str, Any], file: str, told_by: str, findings: Findings) -> None:
    told = result.weights
    for key in ("name", "origin", "checksum"):
        findings.same(told_by, f"weights.{key}", getattr(told, key, None), given.get(key), file)

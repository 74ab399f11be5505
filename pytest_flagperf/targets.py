"""``--target`` beside the cases that were selected: a bound that none of them has would change nothing."""

from __future__ import annotations

import pytest

from pytest_flagperf import marker_expression
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.session import Session


def check(config: pytest.Config, session: Session, items: list[pytest.Item]) -> None:
    """Refuse a metric on the command line that no selected case has as a target: nobody would miss what it bounds.

    What the ini file and the environment say holds for whatever runs on this machine, now this and then that.
    """
    if session.options.explicit.get("target") != "command line":
        return
    found = [item.callspec.params.get("case") for item in items if hasattr(item, "callspec")]
    ours = [case for case in found if isinstance(case, (ResolvedCase, ResolvedOperator))]
    has = {target.metric for case in ours if isinstance(case, ResolvedCase) for target in case.targets}
    unused = sorted({*session.options.targets} - has)
    if ours and unused:
        there = f"they have {', '.join(sorted(has))}" if has else "they have none"
        message = f"--target: no selected case has {' or '.join(unused)} as a target; {there}"
        marker_expression.refuse(config, items, message)

"""Fixtures of a suite's tests: ``devices``, ``dataset``, ``launcher``, ``operators``; ``case`` is their parameter.

Imported at every start of pytest: what a fixture needs, it imports when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import TypeVar
from typing import cast

import pytest

from pytest_flagperf import words


if TYPE_CHECKING:
    from pytest_flagperf.case import ResolvedCase
    from pytest_flagperf.launching import Launcher
    from pytest_flagperf.operators.case import ResolvedOperator
    from pytest_flagperf.operators.measuring import Operators
    from pytest_flagperf.provision import Data
    from pytest_flagperf.provision import Devices


T = TypeVar("T")


@pytest.fixture
def devices(request: pytest.FixtureRequest, case: ResolvedCase | ResolvedOperator) -> Devices:
    """The vendor's devices this case may use, as far as the caller's own visible-devices variable allows."""
    __tracebackhide__ = True
    from pytest_flagperf import provision

    session = request.config.stash[words.SESSION]
    if case.case.kind == "operator":
        reason = _found(request, case, lambda: provision.too_few(session, cast("ResolvedOperator", case)))
        if reason:
            pytest.skip(reason)
    elif case.case.kind == "inference":
        reason = _found(request, case, lambda: provision.lacks_engine(session, cast("ResolvedCase", case)))
        if reason:
            pytest.skip(reason)
    return _found(request, case, lambda: provision.find_devices(session, case))


@pytest.fixture
def dataset(request: pytest.FixtureRequest, case: ResolvedCase) -> Data:
    """The case's dataset: found, verified, and where a package ships it prepared once on this machine."""
    __tracebackhide__ = True
    from pytest_flagperf import provision

    stash = request.config.stash
    return _found(request, case, lambda: provision.find_dataset(stash[words.SESSION], case, stash[words.PROGRESS].say))


def _found(request: pytest.FixtureRequest, case: ResolvedCase | ResolvedOperator, find: Callable[[], T]) -> T:
    """What ``find`` gives. Where it fails the case has a Result all the same, and every report its row.

    The error says what to do next; where in the plugin it was raised helps nobody.
    """
    __tracebackhide__ = True
    from pytest_flagperf.case import ResolvedCase
    from pytest_flagperf.errors import FlagPerfError

    try:
        return find()
    except FlagPerfError as error:
        config = request.config
        session, progress = config.stash[words.SESSION], config.stash[words.PROGRESS]
        if isinstance(case, ResolvedCase):
            from pytest_flagperf import launching

            launching.Launcher(session, request.node, progress).refuse(case, error)
        else:
            from pytest_flagperf.operators import measuring

            measuring.Operators(config, request.node, progress).refuse(case, error)
        raise error.with_traceback(None) from None


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    """Runs a case in processes of its own and gives what was measured."""
    from pytest_flagperf import launching
    from pytest_flagperf.reports import progress

    config = request.config
    with progress.terminated_like_interrupted():
        yield launching.Launcher(config.stash[words.SESSION], request.node, config.stash[words.PROGRESS])


@pytest.fixture
def operators(request: pytest.FixtureRequest) -> Iterator[Operators]:
    """Measures problems of an operator family in warm workers, which stay for the tests that follow."""
    from pytest_flagperf.operators import measuring
    from pytest_flagperf.reports import progress

    config = request.config
    with progress.terminated_like_interrupted():
        yield measuring.Operators(config, request.node, config.stash[words.PROGRESS])

"""Of models that read or write text."""

from __future__ import annotations

from pytest_flagperf.weights import WeightsSet


SETS: tuple[WeightsSet, ...] = ()

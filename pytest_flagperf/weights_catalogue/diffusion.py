"""Of models that make images."""

from __future__ import annotations

from pytest_flagperf.weights import WeightsSet


SETS: tuple[WeightsSet, ...] = ()

"""Datasets of recordings."""

from __future__ import annotations

from pytest_flagperf.datasets.model import Dataset


CATALOGUE: tuple[Dataset, ...] = ()

"""Datasets of images, of the full scales."""

from __future__ import annotations

from pytest_flagperf.datasets.model import Dataset


CATALOGUE: tuple[Dataset, ...] = ()

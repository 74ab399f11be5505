"""Datasets: a registry, how each one is found, verified and, where a pip package ships it, prepared.

Importing this room costs nothing but the standard library: the pytest process imports it. What needs
numpy runs in a child process, ``python -m pytest_flagperf.datasets prepare ...``.
"""

from __future__ import annotations

from pytest_flagperf.datasets.finding import default_data_root
from pytest_flagperf.datasets.finding import locate
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import FoundDataset
from pytest_flagperf.datasets.model import Preparation
from pytest_flagperf.datasets.model import Source
from pytest_flagperf.datasets.model import Survey
from pytest_flagperf.datasets.model import Surveyor
from pytest_flagperf.datasets.registry import get
from pytest_flagperf.datasets.registry import known
from pytest_flagperf.datasets.registry import register


__all__ = [
    "Dataset",
    "FoundDataset",
    "Preparation",
    "Source",
    "Survey",
    "Surveyor",
    "default_data_root",
    "get",
    "known",
    "locate",
    "register",
]

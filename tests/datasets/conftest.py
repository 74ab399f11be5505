"""Real datasets, prepared once for all tests, and a toy one whose preparation can go wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_flagperf.datasets import locate
from pytest_flagperf.datasets import registry


HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def prepared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with digits and flights; tests read it and never change it."""
    root = tmp_path_factory.mktemp("prepared")
    for name in ("digits", "flights"):
        locate(name, overrides={}, data_root=root)
    return root


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.fixture
def toy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package ``toypackage`` (for this process and its children) that ships one file."""
    site = tmp_path / "site"
    (site / "toypackage").mkdir(parents=True)
    (site / "toypackage" / "__init__.py").write_text("raise RuntimeError('a data package is never imported')\n")
    (site / "toypackage" / "data.txt").write_bytes(b"what the package ships")
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(HERE), os.environ.get("PYTHONPATH", "")]))
    return site


@pytest.fixture
def make_toy(toy_package: Path, monkeypatch: pytest.MonkeyPatch):
    """Register the toy with one preparer or another, replacing the one before."""

    def make(preparer: str = "prepare", **changes):
        from toy_datasets import toy_dataset  # the folder is importable with any --import-mode from here on

        dataset = toy_dataset(preparer, **changes)
        monkeypatch.setitem(registry._registered, dataset.name, dataset)
        return dataset

    return make

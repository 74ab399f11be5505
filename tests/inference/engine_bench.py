"""A workload of one matrix, and modules that stand in for packages nobody has here. The tests' own."""

from __future__ import annotations

import ctypes
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


class Rows(InferenceWorkload):
    """Ten samples of four numbers; what stands in for a model doubles them."""

    input_names = ("rows",)
    output_names = ("doubled",)

    def setup(self):
        self.rows = np.arange(40, dtype=np.float32).reshape(10, 4)

    def samples(self):
        return 10

    def inputs(self, indices):
        return (self.rows[np.asarray(indices)],)


def workload() -> Rows:
    return Rows(Config({}), Data("none", None, True), Weights(), seed=1, batch_size=4, device="cpu")


def options(directory: Path, **changes: Any) -> CompileOptions:
    return CompileOptions(
        **{
            "precision": "fp16",
            "batch_sizes": (4,),
            "dynamic": True,
            "directory": directory,
            "device": "cpu",
            "threads": 1,
            **changes,
        }
    )


def put(monkeypatch: Any, name: str, **members: Any) -> Any:
    """A module of that name, and its parents, in ``sys.modules``."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)
    parent, _, child = name.rpartition(".")
    if parent:
        if parent not in sys.modules:
            put(monkeypatch, parent)
        setattr(sys.modules[parent], child, module)
    return module


class Numbers:
    """Memory as a device's library has it: addresses."""

    def __init__(self) -> None:
        self.taken: dict[int, Any] = {}

    def take(self, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        self.taken[ctypes.addressof(block)] = block
        return ctypes.addressof(block)


def at(address: int, shape: tuple[int, ...]) -> Any:
    """float32 at an address."""
    count = int(np.prod(shape))
    return np.frombuffer((ctypes.c_float * count).from_address(address), np.float32).reshape(shape)

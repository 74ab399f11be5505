"""Compilers of static shapes: one compiled model for each batch size, behind one that looks like any other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import Compiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


def is_static(workload: InferenceWorkload, options: CompileOptions) -> bool:
    """Whether one compiled model of static shapes will do: no other size comes. It is faster."""
    return not workload.dynamic and len(options.batch_sizes) == 1


def refuse_dynamic(engine: str, workload: InferenceWorkload) -> None:
    """Raises ``ConfigurationError`` for a model with other axes than the batch whose size varies."""
    if workload.dynamic:
        axes = ", ".join(f"{name} {sorted(found)}" for name, found in workload.dynamic.items())
        raise ConfigurationError(
            f"engine {engine} compiles for fixed shapes, and axes of this model's inputs vary ({axes}): run it with "
            "another engine"
        )


class BySize(BaseCompiled):
    """``make(size)`` for each of ``sizes``. Where one cannot be made those before it are released."""

    def __init__(self, engine: str, sizes: Sequence[int], make: Callable[[int], Compiled]) -> None:
        self.engine = engine
        self.compiled: dict[int, Compiled] = {}
        try:
            for size in sizes:
                self.compiled[size] = make(size)
        except BaseException:
            self.release()
            raise
        self.chosen = self.compiled[sizes[0]]
        self.size_bytes = sum(one.size_bytes for one in self.compiled.values())

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        size = len(inputs[0])
        if size not in self.compiled:
            sizes = ", ".join(map(str, self.compiled))
            raise ConfigurationError(f"engine {self.engine} was compiled for batches of {sizes}; one of {size} came")
        self.chosen = self.compiled[size]
        self.chosen.load(inputs)

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.chosen.execute()

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        return self.chosen.outputs()

    def precision(self) -> dict[str, Any]:
        """What the one that ran last tells."""
        return self.chosen.precision()

    def memory(self) -> dict[str, float]:
        """What the one that ran last tells: allocators are the process's."""
        return self.chosen.memory()

    def release(self) -> None:
        """All of them, also where one fails to."""
        with contextlib.ExitStack() as stack:
            for one in self.compiled.values():
                stack.callback(one.release)
            self.compiled = {}

"""MindSpore's PyNative mode, cell by cell: the reference of its other engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from mindspore import nn


class MindSporeEager(BaseEngine):
    """The cell as it is, in PyNative mode and fp32."""

    name = "eager"
    framework = "mindspore"
    packages: Mapping[str, str] = {"mindspore": "mindspore"}

    def compile(self, model: nn.Cell, workload: InferenceWorkload, options: CompileOptions) -> Cell:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`; nothing is compiled."""
        import mindspore as ms

        ms.set_context(mode=ms.PYNATIVE_MODE)
        return Cell(model, options, sum(int(one.nbytes) for one in model.get_parameters()))


class Cell(BaseCompiled):
    """Calls a cell."""

    def __init__(self, cell: nn.Cell, options: CompileOptions, size_bytes: int) -> None:
        import mindspore as ms

        self.ms, self.cell, self.device, self.size_bytes = ms, cell, str(options.device), size_bytes
        self.arguments: tuple[Any, ...] = ()
        self.results: tuple[Any, ...] = ()

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`.

        MindSpore copies to a device when an operator wants a tensor: what is not on the host's processor is copied by
        an operator here, before the clock runs.
        """
        found = [self.ms.Tensor.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        if self.device != "CPU":
            found = [one + self.ms.Tensor(0, one.dtype) for one in found]
            self.ms.runtime.synchronize()
        self.arguments = tuple(found)

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        results = self.cell(*self.arguments)
        self.results = tuple(results) if isinstance(results, (tuple, list)) else (results,)
        if self.device == "CPU":
            # It costs nothing here, and is right even where operators run in other threads.
            for one in self.results:
                one.asnumpy()
        else:
            self.ms.runtime.synchronize()

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        return tuple(np.array(one.asnumpy()) for one in self.results)

    def precision(self) -> dict[str, Any]:
        """The types of the parameters, and of what the last forward pass gave."""
        kinds = sorted({str(one.dtype) for one in self.cell.get_parameters()})
        outputs = sorted({str(one.dtype) for one in self.results})
        return {"parameters": ", ".join(kinds), "outputs": ", ".join(outputs)}

    def memory(self) -> dict[str, float]:
        """What MindSpore's allocator reserved at most."""
        if self.device == "CPU":
            return {}
        return {"memory_peak": self.ms.runtime.max_memory_reserved() / 2**30}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.cell, self.arguments, self.results = None, (), ()
        if self.device != "CPU":
            self.ms.runtime.empty_cache()
            self.ms.runtime.reset_max_memory_reserved()

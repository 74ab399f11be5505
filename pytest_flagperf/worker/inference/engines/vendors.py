"""What the engines of vendors' own software stacks have in common."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import Compiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.by_size import BySize
from pytest_flagperf.worker.inference.engines.by_size import refuse_dynamic
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn


class FromOnnx(BaseEngine):
    """Compiles an ONNX file of static shapes for each batch size. ``stack`` names what the vendor installs."""

    modules: Sequence[str] = ()
    stack = ""

    def available(self) -> str:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        missing = [module for module in self.modules if find_spec(module) is None]
        if missing:
            return f"engine {self.name} needs {', '.join(missing)}, not installed here: install {self.stack}"
        return super().available()

    def export(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a directory with a file for each size."""
        refuse_dynamic(self.name, workload)
        folder = options.directory / "onnx"
        for size in options.batch_sizes:
            # The compiler makes the precision: the file is of fp32.
            one = replace(options, precision="fp32", batch_sizes=(size,), dynamic=False)
            onnxruntime.export(model, workload, one, file_of(folder, size))
        return folder

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> BySize:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a compiled model for each size."""
        assert options.exported is not None
        folder = options.exported

        def one(size: int) -> Compiled:
            return self.compile_one(file_of(folder, size), workload, replace(options, batch_sizes=(size,)))

        return BySize(self.name, options.batch_sizes, one)

    def compile_one(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> Compiled:
        """The model at ``path``, compiled for ``options.batch_size``."""
        raise NotImplementedError


def file_of(folder: Path, size: int) -> Path:
    """The ONNX file of a batch size."""
    return folder / f"model.{size}.onnx"


def succeeded(engine: str, what: str) -> Callable[[Any], Any]:
    """Looks at a status that has ``ok()``; raises ``InvalidMeasurement`` that says what failed."""

    def check(status: Any) -> Any:
        if not status.ok():
            raise InvalidMeasurement(f"engine {engine}: {what} failed: {status}")
        return status

    return check


def index_of(device: Any) -> int:
    """The number of the framework's device."""
    return getattr(device, "index", None) or 0


def as_float32(array: Any) -> Any:
    """A fresh array; floats of 16 bits as float32."""
    return np.array(array, dtype=np.float32 if array.dtype == np.float16 else array.dtype)

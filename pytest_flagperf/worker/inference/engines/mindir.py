"""MindIR: MindSpore's own graph format, loaded and executed as one compiled graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.by_size import BySize
from pytest_flagperf.worker.inference.engines.by_size import refuse_dynamic
from pytest_flagperf.worker.inference.engines.mindspore_eager import Cell
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from mindspore import nn


class MindIr(BaseEngine):
    """``mindspore.export``, ``load`` and ``GraphCell`` in fp32, with a graph for each batch size."""

    name = "mindir"
    framework = "mindspore"
    packages: Mapping[str, str] = {"mindspore": "mindspore"}

    def export(self, model: nn.Cell, workload: InferenceWorkload, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a directory with a file for each size."""
        import mindspore as ms

        refuse_dynamic(self.name, workload)
        folder = options.directory / "mindir"
        folder.mkdir(parents=True, exist_ok=True)
        for size in options.batch_sizes:
            example = [ms.Tensor.from_numpy(np.ascontiguousarray(one)) for one in workload.inputs(range(size))]
            ms.export(model, *example, file_name=str(_file(folder, size)), file_format="MINDIR")
        return folder

    def compile(self, model: nn.Cell, workload: InferenceWorkload, options: CompileOptions) -> BySize:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: MindSpore compiles at the first call."""
        import mindspore as ms
        from mindspore import nn

        assert options.exported is not None
        folder = options.exported

        def graph(size: int) -> Cell:
            file = _file(folder, size)
            found = Cell(nn.GraphCell(ms.load(str(file))), options, file.stat().st_size)
            found.run(workload.inputs(range(size)))
            return found

        return BySize(self.name, options.batch_sizes, graph)


def _file(folder: Path, size: int) -> Path:
    return folder / f"model.{size}.mindir"

"""AOTInductor: ``torch.export``, compiled ahead of time to a package that is loaded and executed without Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import Compiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.by_size import BySize
from pytest_flagperf.worker.inference.engines.by_size import is_static
from pytest_flagperf.worker.inference.engines.eager import TYPES
from pytest_flagperf.worker.inference.engines.eager import Loaded
from pytest_flagperf.worker.inference.engines.eager import free_and_total
from pytest_flagperf.worker.inference.engines.eager import give_back
from pytest_flagperf.worker.inference.engines.eager import in_precision
from pytest_flagperf.worker.inference.engines.eager import kinds_of
from pytest_flagperf.worker.inference.engines.files import inductor_caches
from pytest_flagperf.worker.inference.engines.files import read
from pytest_flagperf.worker.inference.engines.files import written
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn

# Of a program for any batch; one for a single size has that in its name.
ANY = 0


class AotInductor(BaseEngine):
    """``torch.export.export`` and ``torch._inductor.aoti_compile_and_package``.

    One program for any batch where several sizes come, else one of static shapes. In bf16 and fp16 the whole model is
    cast first. Its caches are in a directory of the run's own, as those of :mod:`.inductor`.
    """

    name = "aotinductor"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"torch": "torch"}

    def export(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a directory of exported programs."""
        import torch

        placed = in_precision(model, options)
        folder = options.directory / "exported"
        for size in _sizes(workload, options):
            # A batch of one would be taken for a constant.
            arrays = workload.inputs(range(size or min(2, workload.samples())))
            arguments = tuple(_tensor(array, options) for array in arrays)
            with inductor_caches(options.directory), torch.inference_mode():
                program = torch.export.export(placed, arguments, dynamic_shapes=None if size else _any_batch(workload))
            with written(_program(folder, size)):
                torch.export.save(program, _program(folder, size))
        return folder

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Compiled:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a package for each exported program."""
        import torch

        assert options.exported is not None
        folder = options.exported
        device = torch.device(options.device)
        # The export has had the model on the device.
        give_back(device)
        before = free_and_total(device)
        sizes = _sizes(workload, options)
        with inductor_caches(options.directory):
            if sizes == (ANY,):
                return packaged(_program(folder, ANY), before, options)
            return BySize(self.name, sizes, lambda size: packaged(_program(folder, size), before, options))


def _sizes(workload: InferenceWorkload, options: CompileOptions) -> tuple[int, ...]:
    static = is_static(workload, options) or not (options.dynamic or workload.dynamic)
    return options.batch_sizes if static else (ANY,)


def _program(folder: Path, size: int) -> Path:
    return folder / f"program.{size or 'any'}.pt2"


def _any_batch(workload: InferenceWorkload) -> tuple[Any, ...]:
    """The batch axis, and the axes that the workload names, left open."""
    import torch

    auto = torch.export.Dim.AUTO
    return tuple({0: auto, **dict.fromkeys(workload.dynamic.get(name, {}), auto)} for name in workload.input_names)


def _tensor(array: Any, options: CompileOptions) -> Any:
    import torch

    tensor = torch.from_numpy(array)
    kind = getattr(torch, TYPES[options.precision]) if tensor.is_floating_point() else tensor.dtype
    return tensor.to(options.device, kind)


def packaged(program: Path, before: tuple[int, int] | None, options: CompileOptions) -> Loaded:
    """An exported program, compiled to a package and loaded from there; the package takes its weights' memory itself.

    ``before`` is :func:`free_and_total` of when none was loaded.
    """
    import torch

    with read(program, "aotinductor"):
        exported = torch.export.load(program)
    # Parameters are part of the package: what this program has is what is compiled.
    kinds = kinds_of(exported)
    path = torch._inductor.aoti_compile_and_package(exported, package_path=str(program.with_suffix(".package.pt2")))
    device = torch.device(options.device)
    # The program has had the parameters on the device once more.
    del exported
    give_back(device)
    index = -1 if device.type == "cpu" else device.index or 0
    call = torch._inductor.aoti_load_package(path, device_index=index)
    return Loaded(call, kinds, Path(path).stat().st_size, before, options)

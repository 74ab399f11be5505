"""TorchInductor: ``torch.compile`` in the running process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.eager import TYPES
from pytest_flagperf.worker.inference.engines.eager import Eagerly
from pytest_flagperf.worker.inference.engines.eager import in_precision
from pytest_flagperf.worker.inference.engines.files import inductor_caches
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn

# Compilations beyond one for each batch size: as many as PyTorch allows of code that takes one.
SPARE = 8


class Inductor(BaseEngine):
    """``torch.compile(model)`` with static shapes, one compilation for each batch size.

    In bf16 and fp16 the whole model is cast first. ``inductor_mode`` of the configuration is ``torch.compile``'s
    ``mode``, ``default`` where it is not set. Its caches are in a directory of the run's own: what ``compile_time`` is
    must not depend on who has compiled this before.
    """

    name = "inductor"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"torch": "torch"}

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> JustInTime:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        import torch

        placed = in_precision(model, options)
        with contextlib.ExitStack() as stack, inductor_caches(options.directory):
            # Of a whole graph, one compilation too many is an error, and a server's batches are of ten sizes and more.
            limit = len(options.batch_sizes) + SPARE
            stack.enter_context(torch._dynamo.config.patch(recompile_limit=limit))
            # Anything but whole graphs would be measured as Inductor and run eagerly.
            call = torch.compile(
                placed,
                fullgraph=True,
                dynamic=bool(workload.dynamic),
                mode=options.settings.get("inductor_mode"),
            )
            compiled = JustInTime(placed, call, options)
            for size in options.batch_sizes:
                compiled.run(workload.inputs(range(size)))
            compiled.forget_peak()
            compiled.settings = stack.pop_all()
        return compiled


class JustInTime(Eagerly):
    """Compiled code that may compile again, and so keeps the compiler's ``settings`` until it is released."""

    settings: contextlib.ExitStack | None = None

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        super().release()
        if self.settings is not None:
            self.settings.close()

"""TorchInductor: ``torch.compile`` in the running process."""

from __future__ import annotations

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


class Inductor(BaseEngine):
    """``torch.compile(model)`` with static shapes, one compilation for each batch size.

    In bf16 and fp16 the whole model is cast first. ``inductor_mode`` of the configuration is ``torch.compile``'s
    ``mode``, ``default`` where it is not set. Its caches are in a directory of the run's own: what ``compile_time`` is
    must not depend on who has compiled this before.
    """

    name = "inductor"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"torch": "torch"}

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Eagerly:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        import torch

        placed = in_precision(model, options)
        with inductor_caches(options.directory):
            # Anything but whole graphs would be measured as Inductor and run eagerly.
            call = torch.compile(
                placed,
                fullgraph=True,
                dynamic=bool(workload.dynamic),
                mode=options.settings.get("inductor_mode"),
            )
            compiled = Eagerly(placed, call, options)
            for size in options.batch_sizes:
                compiled.run(workload.inputs(range(size)))
        return compiled

"""MetaX: the MACA execution provider of MetaX's build of ONNX Runtime.

Written to MetaX's interface as FlagPerf uses it (inference_engine/metax/macart.py); untested on hardware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.onnxruntime import OnnxRuntime
from pytest_flagperf.worker.inference.engines.onnxruntime import Session
from pytest_flagperf.worker.inference.engines.onnxruntime import kind_of
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn

PROVIDER = "MACAExecutionProvider"
_BUILD = "MetaX's build of onnxruntime, from its MACA SDK"


class MacaRt(OnnxRuntime):
    """ONNX Runtime's session on a MetaX device. int8 is left out: nothing public says which form it takes."""

    name = "macart"
    precisions = ("fp32", "fp16")

    def available(self) -> str:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        missing = super().available()
        if missing:
            return f"{missing.partition(': pip')[0]}: install {_BUILD}"
        import onnxruntime

        there = onnxruntime.get_available_providers()
        if PROVIDER in there:
            return ""
        return f"engine macart needs {PROVIDER}, onnxruntime here has {', '.join(there)}: install {_BUILD}"

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Session:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a session."""
        if kind_of(options.device) == "cpu":
            raise ConfigurationError(f"engine macart executes on MetaX's devices, not on {options.device}")
        assert options.exported is not None
        return MacaSession(options.exported, workload, options)


class MacaSession(Session):
    """A session whose inputs and outputs stay on the host: ``execute`` has both copies in it."""

    name = "macart"
    provider = PROVIDER
    advice = f"Install {_BUILD}"

    def _device(self) -> str:
        return "cpu"

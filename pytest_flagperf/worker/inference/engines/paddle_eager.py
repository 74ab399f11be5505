"""PaddlePaddle's own eager execution: the reference of its other engines."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from paddle import nn

TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class PaddleEager(BaseEngine):
    """The layer as it is. bf16 and fp16 are ``paddle.amp`` at level O2, which leaves normalization in fp32."""

    name = "eager"
    framework = "paddle"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"paddle": "paddlepaddle"}

    def compile(self, model: nn.Layer, workload: InferenceWorkload, options: CompileOptions) -> PaddleEagerly:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`; nothing is compiled."""
        return PaddleEagerly(model, options)


class PaddleEagerly(BaseCompiled):
    """Calls the layer."""

    def __init__(self, model: nn.Layer, options: CompileOptions) -> None:
        import paddle

        self.paddle, self.device = paddle, str(options.device)
        self.type = TYPES[options.precision]
        self.model = model
        if self.type != "float32":
            self._require_autocast(options.precision)
            self.model = paddle.amp.decorate(copy.deepcopy(model), level="O2", dtype=self.type)
            self.model.eval()
        self.size_bytes = sum(int(np.prod(one.shape)) * one.element_size() for one in self.model.state_dict().values())
        self.arguments: tuple[Any, ...] = ()
        self.results: Any = ()

    def _require_autocast(self, precision: str) -> None:
        # Where it cannot be had Paddle warns and goes on in fp32.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._product()
        if found != self.type:
            raise PrecisionUnavailable(
                f"PaddlePaddle {self.paddle.__version__} computes in {found} on {self.device}: {precision} is not in "
                "force"
            )

    def _product(self) -> str:
        """The type that matrix products really have."""
        with self.paddle.no_grad(), self._autocast():
            ones = self.paddle.ones([2, 2])
            return _name(self.paddle.matmul(ones, ones).dtype)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.type == "float32":
            return contextlib.nullcontext()
        return self.paddle.amp.auto_cast(level="O2", dtype=self.type)  # type: ignore[no-any-return]

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.arguments = tuple(self._placed(array) for array in inputs)
        self._synchronize()

    def _placed(self, array: Any) -> Any:
        tensor = self.paddle.to_tensor(array, place=self.device)
        return tensor.astype(self.type) if tensor.is_floating_point() else tensor

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        with self.paddle.no_grad(), self._autocast():
            self.results = self.model(*self.arguments)
        self._synchronize()

    def _synchronize(self) -> None:
        if self.device != "cpu":
            self.paddle.device.synchronize()

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = self.results if isinstance(self.results, (tuple, list)) else (self.results,)
        return tuple(np.array((one.astype("float32") if one.is_floating_point() else one).numpy()) for one in found)

    def precision(self) -> dict[str, Any]:
        """The types of the parameters, and of a matrix product."""
        kinds = sorted({_name(one.dtype) for one in self.model.parameters()})
        return {"parameters": ", ".join(kinds), "product": self._product()}

    def memory(self) -> dict[str, float]:
        """What Paddle's allocator reserved at most."""
        if self.device == "cpu":
            return {}
        found = {"memory_peak": self.paddle.device.max_memory_reserved(self.device) / 2**30}
        # A build for some devices exports the function without what it calls.
        with contextlib.suppress(AttributeError, NameError):
            found["memory_total"] = self.paddle.device.get_device_properties(self.device).total_memory / 2**30
        return found

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.model = None
        self.arguments, self.results = (), ()
        if self.device != "cpu":
            self.paddle.device.empty_cache()
            with contextlib.suppress(AttributeError):  # of newer releases
                self.paddle.device.reset_max_memory_reserved(self.device)


def _name(dtype: Any) -> str:
    """``float32`` for ``paddle.float32``."""
    return str(dtype).rpartition(".")[2]

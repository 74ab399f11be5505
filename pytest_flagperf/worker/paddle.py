"""PaddlePaddle: device, distribution, precision, timing and memory, for any device that Paddle or its plug-ins know."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import time
import warnings
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import Tensor
from paddle import nn

from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.host import host_memory
from pytest_flagperf.worker.workload import Workload


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext


# The whole model in this type; "amp" keeps the weights in fp32 and casts inside autocast.
MODEL_DTYPES = {"fp64": "float64", "bf16": "bfloat16", "fp16": "float16"}


class PaddleWorkload(Workload):
    """A model in PaddlePaddle: its network, its optimizer, its data, its loss and its evaluation."""

    def model(self) -> nn.Layer:
        """The network with its initial weights, on this rank's device."""
        raise NotImplementedError

    def optimizer(self, model: nn.Layer) -> tuple[paddle.optimizer.Optimizer, Any | None]:
        """The optimizer, and its learning-rate schedule stepped once an optimizer step, or ``None``."""
        raise NotImplementedError

    def loss(self, model: nn.Layer, batch: Any) -> Tensor:
        """Mean loss over the samples of ``batch``, a scalar."""
        raise NotImplementedError


class Backend:
    """The adapter the loop drives; see :class:`pytest_flagperf.worker.loop.Backend`. ``device`` is Paddle's name."""

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        self.rank, self.world_size = context.rank, context.world_size
        self._device_settings = case["device"]
        self._precision = case["precision"]
        if module := self._device_settings.get("module"):
            importlib.import_module(module)
        self.device = self._pick_device(context.local_rank)
        self.seed = int(case["seed"])
        paddle.seed(self.seed)
        if self.world_size > 1:
            if backend := self._device_settings.get("backend"):
                # The launcher guesses from the devices it sees, which are not always those of the case.
                os.environ["PADDLE_DISTRI_BACKEND"] = backend
            dist.init_parallel_env()
        self._put_precision_in_force()
        self.core_time = 0.0
        self._losses: list[Tensor] = []
        self._timings: list[tuple[Any, Any]] = []

    def _pick_device(self, local_rank: int) -> str:
        name = self._device_settings["device"]
        wanted = "cpu" if name == "cpu" else f"{name}:{local_rank}"
        try:
            paddle.set_device(wanted)
            # Setting a device does not touch it.
            paddle.zeros([1]).numpy()
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            raise DeviceUnavailable(
                f"rank {self.rank} needs device {wanted!r}, which PaddlePaddle {paddle.__version__} cannot use: "
                f"{_reason(error)}"
            ) from error
        return wanted

    def _put_precision_in_force(self) -> None:
        wanted = self._precision
        if wanted in ("fp8", "int8"):
            raise PrecisionUnavailable(f"training in {wanted} is not something the Paddle adapter can put in force")
        if wanted == "tf32" and self.device == "cpu":
            raise PrecisionUnavailable("TF32 is a mode of matrix units; a CPU has none")
        if wanted == "tf32" and not self._tf32_switches():
            raise PrecisionUnavailable("the vendor file names no tf32_switches for PaddlePaddle")
        # Off unless asked for: fp32 with TF32 products is not fp32.
        for switch in self._tf32_switches():
            switch_function(switch, "set")(wanted == "tf32")
            if switch_function(switch, "get")() is not (wanted == "tf32"):
                raise PrecisionUnavailable(f"{switch} did not change when it was set")
        if wanted == "fp64":
            paddle.set_default_dtype("float64")
        self._autocast_level = {"amp": "O1", "bf16": "O2", "fp16": "O2"}.get(wanted)
        self._autocast_dtype = MODEL_DTYPES.get(wanted, "float32")
        if wanted == "amp":
            self._autocast_dtype = MODEL_DTYPES[self._device_settings.get("amp_dtype", "bf16")]
        self._scaler = None
        if self._autocast_level:
            self._check_autocast()
        if wanted == "amp" and self._autocast_dtype == "float16":
            self._scaler = paddle.amp.GradScaler()

    def _check_autocast(self) -> None:
        # Where autocast cannot work Paddle warns and goes on in fp32.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self._matmul_dtype()
        if found != self._autocast_dtype:
            why = "; ".join(str(warning.message) for warning in caught)
            raise PrecisionUnavailable(
                f"{self._precision} asks for {self._autocast_dtype}, but on {self.device!r} PaddlePaddle "
                f"{paddle.__version__} computes in {found}: {why or 'it gives no reason'}"
            )

    def _matmul_dtype(self) -> str:
        """The type matrix products really have inside autocast."""
        with paddle.no_grad(), self._autocast():
            ones = paddle.ones([2, 2])
            return _name(paddle.matmul(ones, ones).dtype)

    def _tf32_switches(self) -> list[str]:
        return [] if self.device == "cpu" else list(self._device_settings.get("tf32_switches", []))

    def precision(self) -> dict[str, Any]:
        """What is in force, read back from the framework rather than from the request."""
        state: dict[str, Any] = {
            "asked": self._precision,
            "parameters": _name(_trainable(self._model)[0].dtype),
            "autocast": self._matmul_dtype() if self._autocast_level else None,
            "loss_scaling": self._scaler is not None,
            "device_name": "cpu" if self.device == "cpu" else paddle.device.get_device_properties(self.device).name,
        }
        for switch in self._tf32_switches():
            state[switch] = switch_function(switch, "get")()
        if self._tf32_switches():
            state["tf32"] = tf32.state({switch: state[switch] for switch in self._tf32_switches()})
        return state

    def prepare(self, workload: PaddleWorkload) -> None:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        self._workload = workload
        self._model = workload.model()
        if self._autocast_level == "O2":
            # Leaves normalization layers in fp32: their kernels take no other statistics.
            self._model = paddle.amp.decorate(self._model, level="O2", dtype=self._autocast_dtype)
        self._optimizer, self._schedule = workload.optimizer(self._model)
        self._trained: nn.Layer = paddle.DataParallel(self._model) if self.world_size > 1 else self._model

    def parameters(self) -> int:
        """Trainable parameters. Paddle lists the running statistics of normalization layers as parameters too."""
        return sum(int(np.prod(p.shape)) for p in _trainable(self._model))

    def to_device(self, batch: Any) -> Any:
        """Tensors and NumPy arrays, in tuples, lists and dicts, on the device; floats in the model's type."""
        if isinstance(batch, dict):
            return {key: self.to_device(value) for key, value in batch.items()}
        if isinstance(batch, (tuple, list)):
            return type(batch)(self.to_device(value) for value in batch)
        if isinstance(batch, np.ndarray):
            batch = paddle.to_tensor(batch, place=self.device)
        if not isinstance(batch, Tensor):
            return batch
        dtype = MODEL_DTYPES.get(self._precision) if paddle.is_floating_point(batch) else None
        return batch.to(self.device, dtype=dtype, blocking=False)

    def train_step(self, batches: Sequence[Any]) -> None:
        """Zero, then forward and backward of each micro-batch, then the optimizer: what ``p_core`` counts."""
        model, last = self._trained, len(batches) - 1
        with self._timed():
            self._optimizer.clear_grad(set_to_zero=False)
            total: Any = 0.0
            for index, batch in enumerate(batches):
                # Gradients are reduced once, with the last micro-batch.
                wait = model.no_sync() if self.world_size > 1 and index < last else contextlib.nullcontext()
                with wait:
                    with self._autocast():
                        loss = self._workload.loss(model, batch)
                    scaled = loss / len(batches)
                    (self._scaler.scale(scaled) if self._scaler else scaled).backward()
                    total = total + scaled.detach()
            if self._scaler:
                self._scaler.step(self._optimizer)
                self._scaler.update()
            else:
                self._optimizer.step()
        if self._schedule is not None:
            self._schedule.step()
        self._losses.append(total)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._autocast_level is None:
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(level=self._autocast_level, dtype=self._autocast_dtype)  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Adds to the core time: device events where there is a device, so that nothing has to wait for it."""
        if self.device == "cpu":
            start = time.perf_counter()
            yield
            self.core_time += time.perf_counter() - start
            return
        begin = paddle.device.Event(enable_timing=True)
        end = paddle.device.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._timings.append((begin, end))

    def losses(self) -> list[float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if not self._losses:
            return []
        values: list[float] = paddle.stack(self._losses).astype("float32").tolist()
        self._losses.clear()
        if self._timings:
            self._timings[-1][1].synchronize()
            self.core_time += sum(begin.elapsed_time(end) for begin, end in self._timings) / 1e3
            self._timings.clear()
        return values

    def evaluate(self, workload: PaddleWorkload) -> dict[str, float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`. All ranks use the same normalization statistics."""
        self._average_statistics()
        self._model.eval()
        with paddle.no_grad(), self._autocast():
            quality = workload.evaluate(self._model)
        self._model.train()
        return quality

    def _average_statistics(self) -> None:
        # Each rank has its own batch-norm statistics; without this the quality would depend on who evaluates what.
        if self.world_size == 1:
            return
        with paddle.no_grad():
            for tensor in [*self._model.parameters(), *self._model.buffers()]:
                if tensor.stop_gradient and paddle.is_floating_point(tensor):
                    dist.all_reduce(tensor)
                    tensor.set_value(tensor / self.world_size)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`. Added up in double precision whatever the device has."""
        columns = zip(*self._from_all([float(value) for value in values]), strict=True)
        return [sum(column) for column in columns]

    def gather(self, array: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.workload.Ranks`."""
        return np.concatenate(self._from_all(array))

    def _from_all(self, value: Any) -> list[Any]:
        """Every rank's ``value``, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = []
        dist.all_gather_object(values, value)
        return values

    def synchronize(self) -> None:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if self.device != "cpu":
            paddle.device.synchronize()

    def digests(self) -> list[str]:
        """SHA-256 of all trainable parameters, of every rank."""
        sha = hashlib.sha256()
        for parameter in _trainable(self._model):
            sha.update(np.ascontiguousarray(parameter.numpy()))
        return self._from_all(sha.hexdigest())

    def memory(self) -> dict[str, float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if self.device == "cpu":
            return host_memory()
        found = {"memory_peak": paddle.device.max_memory_reserved(self.device) / 2**30}
        # A build for some devices exports the function without what it calls.
        with contextlib.suppress(AttributeError, NameError):
            found["memory_total"] = paddle.device.get_device_properties(self.device).total_memory / 2**30
        return found

    def teardown(self) -> None:
        """Leave the process group; called once the rank's outcome is on disk."""
        if self.world_size > 1:
            dist.destroy_process_group()


def _trainable(model: nn.Layer) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if not parameter.stop_gradient]


def _name(dtype: Any) -> str:
    """``float32`` for ``paddle.float32``."""
    return str(dtype).rpartition(".")[2]


def switch_function(switch: str, action: str) -> Any:
    """Of the switch ``paddle.base.core.cublas_switch`` the function that sets or gets it: ``set_cublas_switch``."""
    module, _, name = switch.rpartition(".")
    try:
        return getattr(importlib.import_module(module), f"{action}_{name}")
    except (AttributeError, ImportError) as error:
        raise PrecisionUnavailable(f"PaddlePaddle {paddle.__version__} has no switch {switch!r}: {error}") from error


def _reason(error: Exception) -> str:
    """The line of Paddle's many-line messages that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error:" in line or "(" in line[:1]), lines[-1] if lines else repr(error))

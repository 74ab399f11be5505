"""MindSpore: device, distribution, precision, timing and memory, for any target that ``mindspore.set_device`` knows."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore import nn
from mindspore import ops

from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker.host import host_memory
from pytest_flagperf.worker.workload import Workload


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext


# The whole model computes in this type; "amp" leaves it to MindSpore's lists which operators do. Weights stay in fp32.
MODEL_DTYPES = {"bf16": ms.bfloat16, "fp16": ms.float16}


class MindSporeWorkload(Workload):
    """A model in MindSpore: its network, its optimizer, its data, its loss and its evaluation."""

    def model(self) -> nn.Cell:
        """The network with its initial weights."""
        raise NotImplementedError

    def optimizer(self, model: nn.Cell) -> nn.Optimizer:
        """The optimizer, its learning-rate schedule inside. A measurement may take it past ``total_steps``."""
        raise NotImplementedError

    def loss(self, model: nn.Cell, batch: Any) -> Tensor:
        """Mean loss over the samples of ``batch``, a scalar. ``mindspore.jit`` compiles it: no NumPy, no printing.

        The output of ``model`` may be in a lower precision: cast it to fp32.
        """
        raise NotImplementedError


class AdamW(nn.Optimizer):  # type: ignore[misc]
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017), step for step that of PyTorch.

    ``parameters`` are groups ``{"params": ..., "weight_decay": ...}``. MindSpore's own ``nn.AdamWeightDecay`` leaves
    out the bias correction, so its first steps are three times too long; ``mint.optim.AdamW`` is for Ascend only.
    """

    def __init__(
        self, parameters: list[dict[str, Any]], learning_rate: Any, betas: Any = (0.9, 0.999), epsilon: float = 1e-8
    ) -> None:
        super().__init__(learning_rate, parameters)
        self.beta1, self.beta2, self.epsilon = betas[0], betas[1], epsilon
        self.moments1 = self.parameters.clone(prefix="moments1", init="zeros")
        self.moments2 = self.parameters.clone(prefix="moments2", init="zeros")
        self.update = ops.AdamWeightDecay()

    def construct(self, gradients: Any) -> Any:
        rate, decays = self.get_lr(), self.get_weight_decay()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        step = self.global_step.astype(ms.float32).reshape(())
        first, second = 1 - ops.pow(self.beta1, step), ops.sqrt(1 - ops.pow(self.beta2, step))
        # The fused operator corrects no bias: what it is given does. It multiplies the decay by the corrected rate.
        corrected, shrink, epsilon = rate * second / first, first / second, self.epsilon * second
        done = True
        for index in range(len(gradients)):
            done = self.update(
                self.parameters[index],
                self.moments1[index],
                self.moments2[index],
                corrected,
                self.beta1,
                self.beta2,
                epsilon,
                decays[index] * shrink,
                gradients[index],
            )
        return done


class Backend:
    """The adapter the loop drives; see :class:`pytest_flagperf.worker.loop.Backend`."""

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        self.rank, self.world_size = context.rank, context.world_size
        self._device_settings = case["device"]
        self._precision = case["precision"]
        if module := self._device_settings.get("module"):
            importlib.import_module(module)
        self.device: str = self._device_settings["device"]
        if self.device == "CPU":
            self._use_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._pick_device(context.local_rank)
        self.seed = int(case["seed"])
        ms.set_seed(self.seed)
        if self.world_size > 1:
            self._join()
        self._put_precision_in_force()
        self.core_time = 0.0
        self._losses: list[Tensor] = []
        self._timings: list[tuple[Any, Any]] = []
        self._accumulation = int(case["config"].get("gradient_accumulation_steps", 1))

    @staticmethod
    def _use_threads(count: int) -> None:
        # MindSpore hands every operator from queue to queue, and each queue's thread waits by spinning: with fewer free
        # cores than threads a step takes ten times as long. The switch runs operators in the thread that calls them.
        # It is read at the first operator, not at import.
        os.environ.setdefault("MS_DEV_HOST_BLOCKING_RUN", "1")
        ms.runtime.dispatch_threads_num(1)
        ms.device_context.cpu.op_tuning.threads_num(count)

    def _pick_device(self, local_rank: int) -> None:
        name = self.device
        target = getattr(ms.device_context, name.lower(), None)
        if target is None or not target.is_available():
            raise DeviceUnavailable(f"MindSpore {ms.__version__} sees no {name}, which the vendor file asks for")
        if name != "CPU" and local_rank >= target.device_count():
            raise DeviceUnavailable(
                f"rank {self.rank} needs {name} device {local_rank}, MindSpore sees {target.device_count()}"
            )
        ms.set_device(name, local_rank)
        self._local_rank = local_rank

    def _join(self) -> None:
        """Meet the other ranks, at the scheduler process that the launcher started."""
        ms.communication.init(self._device_settings.get("backend") or None)
        found = ms.communication.get_rank(), ms.communication.get_group_size()
        if found != (self.rank, self.world_size):
            raise LaunchFailed(
                f"this is rank {self.rank} of {self.world_size}, but MindSpore made it rank {found[0]} of {found[1]}"
            )

    def _put_precision_in_force(self) -> None:
        wanted = self._precision
        if wanted in ("fp64", "fp8", "int8"):
            raise PrecisionUnavailable(f"training in {wanted} is not something the MindSpore adapter can put in force")
        if wanted == "tf32" and self.device == "CPU":
            raise PrecisionUnavailable("TF32 is a mode of matrix units; a CPU has none")
        # Off unless asked for: fp32 with TF32 (or Ascend's HF32) products is not fp32.
        self._switches = {} if self.device == "CPU" else dict.fromkeys(self._device_settings.get("tf32_switches", []))
        if wanted == "tf32" and not self._switches:
            raise PrecisionUnavailable(f"the vendor file names no tf32_switches for MindSpore on {self.device}")
        for switch in self._switches:
            setter: Any = ms
            for part in switch.split(".")[1:]:
                setter = getattr(setter, part)
            setter(wanted == "tf32")
            self._switches[switch] = wanted == "tf32"
        self._amp_dtype = ms.float16 if self._device_settings.get("amp_dtype", "bf16") == "fp16" else ms.bfloat16
        if dtype := self._amp_dtype if wanted == "amp" else MODEL_DTYPES.get(wanted):
            self._require_products(dtype)
        # The defaults of PyTorch's GradScaler.
        self._scaler = (
            ms.amp.DynamicLossScaler(2**16, 2, 2000) if wanted == "amp" and self._amp_dtype is ms.float16 else None
        )

    def _require_products(self, dtype: Any) -> None:
        """Raises ``PrecisionUnavailable`` where the device has no matrix product of ``dtype``."""
        if self.device == "CPU" and dtype is ms.float16:
            raise PrecisionUnavailable("on a CPU MindSpore casts fp16 to fp32, computes, and casts back")
        try:
            ops.matmul(ops.ones((2, 2), dtype), ops.ones((2, 2), dtype)).asnumpy()
        except (RuntimeError, TypeError) as error:
            # The types that it does have fill a page, and the page after that is for framework developers.
            told = re.sub(r"The supported data types are .*, but get", "It gets", " ".join(str(error).split()))
            raise PrecisionUnavailable(
                f"MindSpore computes no {dtype} on this {self.device}: {told.split(' ---')[0]}"
            ) from error

    def precision(self) -> dict[str, Any]:
        """What is in force. MindSpore's switches can be set but not read: those are as they were set."""
        return {
            "asked": self._precision,
            "parameters": str(self._model.trainable_params()[0].dtype),
            "autocast": str(self._amp_dtype) if self._precision == "amp" else None,
            "model": str(MODEL_DTYPES.get(self._precision, ms.float32)),
            "loss_scaling": self._scaler is not None,
            "device_name": "CPU" if self.device == "CPU" else ms.hal.get_device_name(self._local_rank, self.device),
            **self._switches,
        }

    def prepare(self, workload: MindSporeWorkload) -> None:
        """See :class:`~pytest_flagperf.worker.loop.Backend`. Nothing is compiled before the first step."""
        self._model = workload.model()
        self._trained = self._model
        if self._precision == "amp":
            self._trained = ms.amp.auto_mixed_precision(self._model, "auto", self._amp_dtype)
        elif dtype := MODEL_DTYPES.get(self._precision):
            self._trained = ms.amp.auto_mixed_precision(self._model, "O3", dtype)
        self._trained.set_train(True)
        self._compile(workload, self._trained, workload.optimizer(self._model))

    def _compile(self, workload: MindSporeWorkload, model: nn.Cell, optimizer: nn.Optimizer) -> None:
        """Make the graphs a step may consist of. They are closures: a graph cannot look into ``self``."""
        scaler, accumulation, reduce = self._scaler, self._accumulation, None
        if self.world_size > 1:
            reduce = nn.DistributedGradReducer(optimizer.parameters, mean=True, degree=self.world_size)

        def forward(*batch: Any) -> Any:
            loss = workload.loss(model, batch)
            scaled = loss / accumulation
            if scaler is not None:
                scaled = scaler.scale(scaled)
            return scaled, loss

        differentiate = ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)

        def backward(*batch: Any) -> Any:
            (_, loss), gradients = differentiate(*batch)
            return loss, gradients

        def apply(*gradients: Any) -> Any:
            if reduce is not None:
                gradients = reduce(gradients)
            if scaler is None:
                return optimizer(gradients)
            gradients = scaler.unscale(gradients)
            finite = ms.amp.all_finite(gradients)
            scaler.adjust(finite)
            if finite:
                optimizer(gradients)
            return finite

        def whole(*batch: Any) -> Any:
            loss, gradients = backward(*batch)
            # Whoever has the loss knows that the parameters are updated.
            return ops.depend(loss, apply(*gradients))

        self._backward: Callable[..., Any] = ms.jit(backward)
        self._apply: Callable[..., Any] = ms.jit(apply)
        self._whole: Callable[..., Any] = ms.jit(whole)

    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(parameter.size for parameter in self._model.trainable_params())

    def to_device(self, batch: Any) -> Any:
        """NumPy arrays, in tuples and lists, as tensors; MindSpore copies them when an operator needs them."""
        if isinstance(batch, (tuple, list)):
            return tuple(self.to_device(value) for value in batch)
        return Tensor.from_numpy(np.ascontiguousarray(batch)) if isinstance(batch, np.ndarray) else batch

    def train_step(self, batches: Sequence[Any]) -> None:
        """Forward and backward of each micro-batch, then the optimizer: what ``p_core`` counts."""
        with self._timed():
            loss = self._step(batches)
        self._losses.append(loss)

    def _step(self, batches: Sequence[Any]) -> Tensor:
        if len(batches) == 1:
            loss = self._whole(*batches[0])
        else:
            loss, total = self._backward(*batches[0])
            for batch in batches[1:]:
                one, gradients = self._backward(*batch)
                loss = loss + one
                total = [a + b for a, b in zip(total, gradients, strict=True)]
            loss = ops.depend(loss / len(batches), self._apply(*total))
        if self.device == "CPU":
            # Costs nothing here, and the clock of the host is right even if the step ran in other threads.
            loss.asnumpy()
        return loss

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Adds to the core time: device events where there is a device, so that nothing has to wait for it."""
        if self.device == "CPU":
            start = time.perf_counter()
            yield
            self.core_time += time.perf_counter() - start
            return
        begin, end = ms.runtime.Event(enable_timing=True), ms.runtime.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._timings.append((begin, end))

    def losses(self) -> list[float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        values = [float(loss.asnumpy()) for loss in self._losses]
        self._losses.clear()
        if self._timings:
            self._timings[-1][1].synchronize()
            self.core_time += sum(begin.elapsed_time(end) for begin, end in self._timings) / 1e3
            self._timings.clear()
        return values

    def evaluate(self, workload: MindSporeWorkload) -> dict[str, float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`. All ranks use the same normalization statistics."""
        self._average_statistics()
        self._trained.set_train(False)
        quality = workload.evaluate(self._trained)
        self._trained.set_train(True)
        return quality

    def _average_statistics(self) -> None:
        # Each rank has its own batch-norm statistics; without this the quality would depend on who evaluates what.
        if self.world_size == 1:
            return
        reduce = ops.AllReduce()
        for parameter in self._model.get_parameters():
            if not parameter.requires_grad and parameter.dtype == ms.float32:
                # In place: after set_data the compiled step would go on with a tensor that nobody else sees.
                ops.assign(parameter, reduce(parameter) / self.world_size)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`. Not every device sums fp64, so the host does."""
        return [float(sum(column)) for column in zip(*self._gather_objects(list(values)), strict=True)]

    def gather(self, array: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.workload.Ranks`."""
        return np.concatenate(self._gather_objects(array))

    def _gather_objects(self, value: Any) -> list[Any]:
        """``value`` of every rank, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        ms.mint.distributed.all_gather_object(values, value)
        return values

    def synchronize(self) -> None:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if self.device != "CPU":
            ms.runtime.synchronize()

    def digests(self) -> list[str]:
        """SHA-256 of all trainable parameters, of every rank."""
        sha = hashlib.sha256()
        for parameter in self._model.trainable_params():
            sha.update(np.ascontiguousarray(parameter.asnumpy()))
        return self._gather_objects(sha.hexdigest())

    def memory(self) -> dict[str, float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if self.device == "CPU":
            return host_memory()
        return {"memory_peak": ms.runtime.max_memory_reserved() / 2**30}

    def teardown(self) -> None:
        """Leave the job's group; called once the rank's outcome is on disk."""
        if self.world_size > 1:
            ms.communication.release()

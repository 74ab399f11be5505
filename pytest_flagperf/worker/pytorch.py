"""PyTorch: device, distribution, precision, timing and memory, for any accelerator that ``torch.accelerator`` knows."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch import nn

from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.host import host_memory
from pytest_flagperf.worker.workload import Workload


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext


# A rank that has lost its peers must not wait for gloo's 30 minutes.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)

# The whole model in this type; "amp" keeps the weights in fp32 and casts inside autocast.
MODEL_DTYPES = {"fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}


class PyTorchWorkload(Workload):
    """A model in PyTorch: its network, its optimizer, its data, its loss and its evaluation."""

    def model(self) -> nn.Module:
        """The network with its initial weights, on the CPU; the adapter moves it."""
        raise NotImplementedError

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any | None]:
        """The optimizer, and a learning-rate schedule stepped once an optimizer step, or ``None``."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean loss over the samples of ``batch``, a scalar."""
        raise NotImplementedError


class Backend:
    """The adapter the loop drives; see :class:`pytest_flagperf.worker.loop.Backend`."""

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        self.rank, self.world_size = context.rank, context.world_size
        self._device_settings = case["device"]
        self._precision = case["precision"]
        if module := self._device_settings.get("module"):
            importlib.import_module(module)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.device = self._pick_device(context.local_rank)
        self.seed = int(case["seed"])
        torch.manual_seed(self.seed)
        if self.world_size > 1:
            dist.init_process_group(self._device_settings["backend"], timeout=COLLECTIVE_TIMEOUT)
        self._put_precision_in_force()
        self.core_time = 0.0
        self._losses: list[Tensor] = []
        self._timings: list[tuple[Any, Any]] = []

    def _pick_device(self, local_rank: int) -> torch.device:
        name = self._device_settings["device"]
        if name == "cpu":
            return torch.device("cpu")
        if not torch.accelerator.is_available():
            raise DeviceUnavailable(
                f"PyTorch {torch.__version__} sees no accelerator; the vendor file asks for {name!r}"
            )
        found = torch.accelerator.current_accelerator()
        if found is None or found.type != name:
            raise DeviceUnavailable(f"PyTorch sees {found}, the vendor file asks for {name!r}")
        if local_rank >= torch.accelerator.device_count():
            raise DeviceUnavailable(
                f"rank {self.rank} needs device {local_rank}, PyTorch sees {torch.accelerator.device_count()}"
            )
        torch.accelerator.set_device_index(local_rank)
        return torch.device(name, local_rank)

    def _put_precision_in_force(self) -> None:
        wanted = self._precision
        if wanted in ("fp8", "int8"):
            raise PrecisionUnavailable(f"training in {wanted} is not something the PyTorch adapter can put in force")
        if wanted == "tf32" and self.device.type == "cpu":
            raise PrecisionUnavailable("TF32 is a mode of matrix units; a CPU has none")
        # Off unless asked for: fp32 with TF32 products is not fp32.
        torch.set_float32_matmul_precision("high" if wanted == "tf32" else "highest")
        for switch in self._tf32_switches():
            holder, _, name = switch.rpartition(".")
            target: Any = torch
            for part in holder.split(".")[1:]:
                target = getattr(target, part)
            setattr(target, name, wanted == "tf32")
        self._amp_dtype = torch.float16 if self._device_settings.get("amp_dtype", "bf16") == "fp16" else torch.bfloat16
        self._scaler = (
            torch.amp.GradScaler(self.device.type) if wanted == "amp" and self._amp_dtype is torch.float16 else None
        )

    def _tf32_switches(self) -> list[str]:
        return [] if self.device.type == "cpu" else list(self._device_settings.get("tf32_switches", []))

    def precision(self) -> dict[str, Any]:
        """What is in force, read back from the framework rather than from the request."""
        state: dict[str, Any] = {
            "asked": self._precision,
            "parameters": str(next(self._model.parameters()).dtype),
            "autocast": str(self._amp_dtype) if self._precision == "amp" else None,
            "float32_matmul": torch.get_float32_matmul_precision(),
            "loss_scaling": self._scaler is not None,
            "device_name": self._device_name(),
        }
        for switch in self._tf32_switches():
            value: Any = torch
            for part in switch.split(".")[1:]:
                value = getattr(value, part)
            state[switch] = value
        if self._tf32_switches():
            reduced = {"float32_matmul": state["float32_matmul"] != "highest"}
            state["tf32"] = tf32.state(reduced | {switch: state[switch] for switch in self._tf32_switches()})
        return state

    def _device_name(self) -> str:
        if self.device.type == "cpu":
            return "cpu"
        return str(torch.get_device_module(self.device).get_device_name(self.device))

    def prepare(self, workload: PyTorchWorkload) -> None:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        self._workload = workload
        self._model = workload.model().to(self.device)
        if dtype := MODEL_DTYPES.get(self._precision):
            self._model.to(dtype)
        self._optimizer, self._schedule = workload.optimizer(self._model)
        self._trained: nn.Module = self._model
        if self.world_size > 1:
            ids = None if self.device.type == "cpu" else [self.device.index]
            self._trained = nn.parallel.DistributedDataParallel(self._model, device_ids=ids)

    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self._model.parameters() if p.requires_grad)

    def to_device(self, batch: Any) -> Any:
        """Tensors and NumPy arrays, in tuples, lists and dicts, on the device; floats in the model's type."""
        if isinstance(batch, np.ndarray):
            batch = torch.from_numpy(batch)
        if isinstance(batch, Tensor):
            dtype = MODEL_DTYPES.get(self._precision) if batch.is_floating_point() else None
            # A call that changes nothing costs as much as one that does.
            if batch.device == self.device and dtype in (None, batch.dtype):
                return batch
            return batch.to(self.device, dtype=dtype, non_blocking=True)
        if isinstance(batch, dict):
            return {key: self.to_device(value) for key, value in batch.items()}
        if isinstance(batch, (tuple, list)):
            return type(batch)([self.to_device(value) for value in batch])
        return batch

    def train_step(self, batches: Sequence[Any]) -> None:
        """Zero, then forward and backward of each micro-batch, then the optimizer: what ``p_core`` counts."""
        begin = self._mark()
        self._optimizer.zero_grad(set_to_none=True)
        *accumulated, last = batches
        losses = []
        if accumulated:
            # Gradients are reduced once, with the last micro-batch.
            with self._trained.no_sync() if self.world_size > 1 else contextlib.nullcontext():
                losses = [self._backward(batch, len(batches)) for batch in accumulated]
        loss = sum(losses, start=self._backward(last, len(batches)))
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._add_core_time(begin)
        if self._schedule is not None:
            self._schedule.step()
        self._losses.append(loss)

    def _backward(self, batch: Any, parts: int) -> Tensor:
        """Forward and backward of one of ``parts`` micro-batches. Returns its part of the step's loss."""
        # A step enters only what it needs: a division by one and empty contexts take 1 % of a small model's step.
        if self._precision == "amp":
            with self._autocast():
                loss = self._workload.loss(self._trained, batch)
        else:
            loss = self._workload.loss(self._trained, batch)
        if parts > 1:
            loss = loss / parts
        (self._scaler.scale(loss) if self._scaler else loss).backward()
        return loss.detach()

    def _autocast(self) -> Any:
        if self._precision != "amp":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._amp_dtype)

    def _mark(self) -> Any:
        """Now: on the device's own clock where there is a device, so that nothing has to wait for it."""
        if self.device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(self.device, enable_timing=True)
        event.record()
        return event

    def _add_core_time(self, begin: Any) -> None:
        if self.device.type == "cpu":
            self.core_time += time.perf_counter() - begin
        else:
            self._timings.append((begin, self._mark()))

    def losses(self) -> list[float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if not self._losses:
            return []
        values: list[float] = torch.stack(self._losses).float().tolist()
        self._losses.clear()
        if self._timings:
            self._timings[-1][1].synchronize()
            self.core_time += sum(begin.elapsed_time(end) for begin, end in self._timings) / 1e3
            self._timings.clear()
        return values

    def evaluate(self, workload: PyTorchWorkload) -> dict[str, float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`. All ranks use the same normalization statistics."""
        self._average_buffers()
        self._model.eval()
        with torch.no_grad(), self._autocast():
            quality = workload.evaluate(self._model)
        self._model.train()
        return quality

    def _average_buffers(self) -> None:
        # Each rank has its own batch-norm statistics; without this the quality would depend on who evaluates what.
        if self.world_size == 1:
            return
        for buffer in self._model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(self.world_size)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if self.world_size == 1:
            return [float(value) for value in values]
        # Not every device has fp64, and fp32 cannot count the samples of an ImageNet run: the hosts add.
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, [float(value) for value in values])
        return [math.fsum(column) for column in zip(*parts, strict=True)]

    def gather(self, array: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.workload.Ranks`."""
        if self.world_size == 1:
            return array
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, array)
        return np.concatenate(parts)

    def synchronize(self) -> None:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def digests(self) -> list[str]:
        """SHA-256 of all trainable parameters, of every rank."""
        sha = hashlib.sha256()
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                sha.update(parameter.detach().cpu().flatten().contiguous().view(torch.uint8).numpy())
        if self.world_size == 1:
            return [sha.hexdigest()]
        digests: list[Any] = [None] * self.world_size
        dist.all_gather_object(digests, sha.hexdigest())
        return digests

    def save(self, path: str) -> None:
        """Parameters and running statistics as an ``.npz``, by the network's names, in its order."""
        np.savez(path, **{name: value.detach().cpu().numpy() for name, value in self._model.state_dict().items()})

    def memory(self) -> dict[str, float]:
        """See :class:`~pytest_flagperf.worker.loop.Backend`."""
        if self.device.type == "cpu":
            return host_memory()
        found = {"memory_peak": torch.accelerator.max_memory_reserved(self.device) / 2**30}
        get_info = getattr(torch.accelerator, "get_memory_info", None)
        if get_info is not None:
            found["memory_total"] = get_info(self.device)[1] / 2**30
        return found

    def teardown(self) -> None:
        """Leave the process group; called once the rank's outcome is on disk."""
        if self.world_size > 1:
            dist.destroy_process_group()

"""PyTorch in inference: where a model runs, and the base of its workloads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import nn

from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.pytorch import Backend


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext


class PyTorchInferenceWorkload(InferenceWorkload):
    """A network in PyTorch, and the data it answers to. Its arguments are ``input_names``, its results tensors."""

    def network(self) -> nn.Module:
        """The network with random weights, on the CPU."""
        raise NotImplementedError

    def model(self) -> nn.Module:
        """See :class:`InferenceWorkload`. Raises ``DatasetError`` where the weights are of another network."""
        torch.manual_seed(self.seed)
        network = self.network()
        if not self.weights.random:
            load_state(network, self.state(), f"weights {self.weights.name}: {self.weights.path}")
        return network.eval()

    def state(self) -> dict[str, Any]:
        """Name → tensor of the weights' file, by the network's names; what a file calls otherwise is renamed here."""
        path = self.weights.path
        assert path is not None
        if path.suffix not in (".npz", ".safetensors"):
            try:
                # Nothing but tensors is unpickled.
                found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                # torch.load raises what pickle, zipfile and the tensors themselves do.
                raise DatasetError(f"weights {self.weights.name}: {path} cannot be read: {error}") from error
            return found
        return {name: torch.from_numpy(array) for name, array in self.weights.arrays().items()}


def load_state(network: nn.Module, state: dict[str, Any], where: str) -> None:
    """Load all of ``state`` into all of ``network``. Raises ``DatasetError`` that names what does not fit."""
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DatasetError(f"{where} are not those of this network: {error}") from error


class Runtime(Backend):
    """The framework of an inference case: its device, fp32 that is fp32, its versions. See :mod:`.flow`."""

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        # The engine puts the precision in force; the reference is fp32 whatever that is.
        super().__init__(context, {**case, "precision": "fp32"})
        self.threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def count(self, model: nn.Module) -> int:
        """Parameters that are trained."""
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def state(self) -> dict[str, Any]:
        """What holds for every engine: the device's name, and whether products of fp32 are made in TF32."""
        found: dict[str, Any] = {"device_name": self._device_name()}
        switches = self._tf32_switches()
        if switches:
            on = {switch: self._switch(switch) for switch in switches}
            found["tf32"] = tf32.state({"float32_matmul": torch.get_float32_matmul_precision() != "highest", **on})
        return found

    def _switch(self, name: str) -> bool:
        value: Any = torch
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        return bool(value)

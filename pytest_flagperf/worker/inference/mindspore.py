"""MindSpore in inference: where a model runs, and the base of its workloads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.inference.from_pytorch import fitted
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.mindspore import Backend


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext

# What PyTorch calls the parameters of a layer that MindSpore calls otherwise.
ROLES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


class MindSporeInferenceWorkload(InferenceWorkload):
    """A network in MindSpore, and the data it answers to. Its arguments are ``input_names``, its results tensors."""

    def network(self) -> nn.Cell:
        """The network with random weights."""
        raise NotImplementedError

    def model(self) -> nn.Cell:
        """See :class:`InferenceWorkload`. Raises ``DatasetError`` where the weights are of another network."""
        ms.set_seed(self.seed)
        network = self.network()
        if not self.weights.random:
            wanted = {name: tuple(one.shape) for name, one in network.parameters_and_names()}
            arrays = fitted(self.weights, wanted, roles=ROLES)
            for name, parameter in network.parameters_and_names():
                parameter.set_data(ms.Tensor(np.ascontiguousarray(arrays[name], np.float32)))
        network.set_train(False)
        return network


class Runtime(Backend):
    """The framework of an inference case: its device, fp32 that is fp32, its versions. See :mod:`.flow`."""

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        # The engine puts the precision in force; the reference is fp32 whatever that is.
        super().__init__(context, {**case, "precision": "fp32"})
        self.threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def count(self, model: nn.Cell) -> int:
        """Parameters that are trained."""
        return sum(int(parameter.size) for parameter in model.trainable_params())

    def state(self) -> dict[str, Any]:
        """The device's name. MindSpore's switches of TF32 can be set but not read: they are as they were set."""
        name = "CPU" if self.device == "CPU" else ms.hal.get_device_name(self._local_rank, self.device)
        found: dict[str, Any] = {"device_name": name}
        if self._switches:
            found["tf32"] = tf32.state(self._switches)
        return found

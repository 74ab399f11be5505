"""PaddlePaddle in inference: where a model runs, and the base of its workloads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import paddle
from paddle import nn

from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.inference.from_pytorch import fitted
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.paddle import Backend
from pytest_flagperf.worker.paddle import switch_function


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext

# What PyTorch calls the parameters of a layer that Paddle calls otherwise.
ROLES = {"_mean": "running_mean", "_variance": "running_var"}


class PaddleInferenceWorkload(InferenceWorkload):
    """A network in PaddlePaddle, and the data it answers to. Its arguments are ``input_names``, its results tensors."""

    def network(self) -> nn.Layer:
        """The network with random weights."""
        raise NotImplementedError

    def model(self) -> nn.Layer:
        """See :class:`InferenceWorkload`. Raises ``DatasetError`` where the weights are of another network."""
        paddle.seed(self.seed)
        network = self.network()
        if not self.weights.random:
            state = {name: tuple(one.shape) for name, one in network.state_dict().items()}
            arrays = fitted(self.weights, state, roles=ROLES, transposed=_transposed(network))
            network.set_state_dict({name: np.ascontiguousarray(one, np.float32) for name, one in arrays.items()})
        network.eval()
        return network


def _transposed(network: nn.Layer) -> set[str]:
    """Weights of linear layers: Paddle has [in, out], PyTorch [out, in]."""
    return {f"{name}.weight" for name, layer in network.named_sublayers() if isinstance(layer, nn.Linear)}


class Runtime(Backend):
    """The framework of an inference case: its device, fp32 that is fp32, its versions. See :mod:`.flow`."""

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        # The engine puts the precision in force; the reference is fp32 whatever that is.
        super().__init__(context, {**case, "precision": "fp32"})
        self.threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def count(self, model: nn.Layer) -> int:
        """Parameters that are trained; Paddle lists the running statistics of normalization layers too."""
        return sum(int(np.prod(one.shape)) for one in model.parameters() if not one.stop_gradient)

    def state(self) -> dict[str, Any]:
        """What holds for every engine: the device's name, and whether products of fp32 are made in TF32."""
        name = "cpu" if self.device == "cpu" else paddle.device.get_device_properties(self.device).name
        found: dict[str, Any] = {"device_name": name}
        if switches := self._tf32_switches():
            found["tf32"] = tf32.state({switch: switch_function(switch, "get")() for switch in switches})
        return found

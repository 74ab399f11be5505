"""PyTorch's weights in another framework's network: each where it belongs, or refused with what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker.inference.from_pytorch import fitted
from pytest_flagperf.worker.inference.workload import Weights


ROLES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
# In PyTorch's order; the four of a normalization layer are of one shape.
THEIRS = {
    "conv1.weight": np.full((2, 1, 3, 3), 1.0, np.float32),
    "bn1.weight": np.full(2, 2.0, np.float32),
    "bn1.bias": np.full(2, 3.0, np.float32),
    "bn1.running_mean": np.full(2, 4.0, np.float32),
    "bn1.running_var": np.full(2, 5.0, np.float32),
    "bn1.num_batches_tracked": np.array(7),
    "fc.weight": np.arange(9, dtype=np.float32).reshape(3, 3),
    "fc.bias": np.zeros(3, np.float32),
}
# In MindSpore's.
OURS = {
    "conv1.weight": (2, 1, 3, 3),
    "bn1.moving_mean": (2,),
    "bn1.moving_variance": (2,),
    "bn1.gamma": (2,),
    "bn1.beta": (2,),
    "fc.weight": (3, 3),
    "fc.bias": (3,),
}


@pytest.fixture
def weights(tmp_path):
    def make(**arrays):
        np.savez(tmp_path / "weights.npz", **(arrays or THEIRS))
        return Weights("set", tmp_path / "weights.npz")

    return make


def renamed(names, **changes):
    return {f"{changes.get(name.split('.')[0], name.split('.')[0])}.{name.split('.')[1]}": one for name, one in names}


def test_each_parameter_is_the_one_of_its_role_though_all_have_one_shape(weights):
    found = fitted(weights(), OURS, roles=ROLES)
    assert list(found) == list(OURS)
    values = {name: float(found[f"bn1.{name}"][0]) for name in ROLES}
    assert values == {"gamma": 2, "beta": 3, "moving_mean": 4, "moving_variance": 5}


def test_a_matrix_that_the_framework_has_the_other_way_around_is_turned_even_where_it_is_square(weights):
    found = fitted(weights(), OURS, roles=ROLES, transposed={"fc.weight"})
    assert found["fc.weight"].tolist() == THEIRS["fc.weight"].T.tolist()


def test_layers_of_other_names_come_in_the_order_of_the_file(weights):
    wanted = renamed(OURS.items(), conv1="stem", bn1="norm", fc="head")
    assert fitted(weights(), wanted, roles=ROLES)["head.weight"].tolist() == THEIRS["fc.weight"].tolist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fc.weight": (4, 3)}, r"fc\.weight is \(3, 3\), the network's fc\.weight is \(4, 3\)"),
        ({"fc2.weight": (3, 3)}, "they are of 3 layers, the network has 4"),
        ({"fc.gain": (3,)}, "fc has bias, weight, the network's fc wants bias, gain, weight"),
    ],
    ids=["shape", "count", "parameter"],
)
def test_weights_of_another_network_are_refused_with_what_does_not_fit(weights, change, reason):
    with pytest.raises(DatasetError, match=f"weights set: .*weights.npz are not those of this network: .*{reason}"):
        fitted(weights(), {**OURS, **change}, roles=ROLES)


def test_an_order_that_says_nothing_is_not_relied_on(tmp_path):
    from safetensors.numpy import save_file

    save_file(THEIRS, tmp_path / "weights.safetensors")
    found = Weights("set", tmp_path / "weights.safetensors")
    assert float(fitted(found, OURS, roles=ROLES)["bn1.beta"][0]) == 3
    with pytest.raises(DatasetError, match=r"have no layer head, and their order says nothing: save them as \.npz"):
        fitted(found, renamed(OURS.items(), fc="head"), roles=ROLES)


def test_a_file_that_only_pytorch_reads_says_what_to_save(tmp_path):
    with pytest.raises(DatasetError, match=r"can be read by PyTorch alone: save it as \.npz or \.safetensors"):
        fitted(Weights("set", tmp_path / "weights.pth"), OURS, roles=ROLES)

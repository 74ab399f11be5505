"""Weights of PyTorch's names for the same network in another framework.

The names may differ; the layers come in the same order, and their parameters have the same shapes.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker.inference.workload import Weights


# PyTorch counts the batches that a normalization layer has seen; nobody else does.
_LEFT_OUT = "num_batches_tracked"
_FORMATS = (".npz", ".safetensors")


def fitted(
    weights: Weights,
    wanted: Mapping[str, tuple[int, ...]],
    *,
    roles: Mapping[str, str],
    transposed: Collection[str] = (),
) -> dict[str, Any]:
    """The network's name → array, for every name in ``wanted`` (name → shape, in the network's order).

    ``roles`` says what PyTorch calls a layer's parameter: ``{"gamma": "weight"}``. Those in ``transposed`` are matrices
    that PyTorch has the other way around. Layers are found by their names where these are PyTorch's, else by their
    order in the file. Raises ``DatasetError`` that names what does not fit.
    """
    assert weights.path is not None
    where = f"weights {weights.name}: {weights.path}"
    if weights.path.suffix not in _FORMATS:
        raise DatasetError(f"{where} can be read by PyTorch alone: save it as {' or '.join(_FORMATS)}")
    arrays = {name: one for name, one in weights.arrays().items() if _split(name)[1] != _LEFT_OUT}
    theirs = _layers(arrays, {})
    ours = _layers(wanted, roles)
    found = {}
    for layer, source in _pairs(ours, theirs, where, ordered=weights.path.suffix == ".npz"):
        if set(ours[layer]) != set(theirs[source]):
            raise DatasetError(
                f"{where} are not those of this network: {source} has {', '.join(sorted(theirs[source]))}, the "
                f"network's {layer} wants {', '.join(sorted(ours[layer]))}"
            )
        for role, name in ours[layer].items():
            array = arrays[theirs[source][role]]
            array = array.T if name in transposed else array
            if tuple(array.shape) != tuple(wanted[name]):
                raise DatasetError(
                    f"{where} are not those of this network: {theirs[source][role]} is {tuple(array.shape)}, the "
                    f"network's {name} is {tuple(wanted[name])}"
                )
            found[name] = array
    return found


def _split(name: str) -> tuple[str, str]:
    layer, _, parameter = name.rpartition(".")
    return layer, parameter


def _layers(names: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Layer → {what PyTorch calls the parameter: its name}, in order."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        layer, parameter = _split(name)
        found.setdefault(layer, {})[roles.get(parameter, parameter)] = name
    return found


def _pairs(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, *, ordered: bool) -> list[tuple[str, str]]:
    """Each of our layers with that of the file."""
    if set(ours) == set(theirs):
        return [(layer, layer) for layer in ours]
    if len(ours) != len(theirs):
        raise DatasetError(
            f"{where} are not those of this network: they are of {len(theirs)} layers, the network has {len(ours)}"
        )
    if not ordered:
        # Such a file has its names in the order of the alphabet.
        one = sorted(set(ours) - set(theirs))[0]
        raise DatasetError(f"{where} have no layer {one}, and their order says nothing: save them as .npz")
    return list(zip(ours, theirs, strict=True))

"""The names of published checkpoints, which are those of the network only in transformers before 5."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from typing import Any


# What the checkpoints call a layer, and transformers 5 its network's.
PUBLISHED = (
    ("vit.encoder.layer.", "vit.layers."),
    ("attention.attention.query.", "attention.q_proj."),
    ("attention.attention.key.", "attention.k_proj."),
    ("attention.attention.value.", "attention.v_proj."),
    ("attention.output.dense.", "attention.o_proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
)


def by_own_names(state: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """``state`` by the names that the network has, ``own``; what has no such name keeps its own."""
    found = {}
    for name, value in state.items():
        renamed = name
        for theirs, ours in PUBLISHED:
            renamed = renamed.replace(theirs, ours)
        found[renamed if renamed in own else name] = value
    return found

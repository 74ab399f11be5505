"""Which engines there are: those that ship, and those of other packages.

Another package brings one by an entry point of the group ``pytest_flagperf.engines``, named ``<framework>.<engine>``:

.. code-block:: toml

    [project.entry-points."pytest_flagperf.engines"]
    "pytorch.fastrt" = "flagperf_somebody.fastrt:FastRt"

Standard library only: pytest lists engines by this module, and loads none.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from pytest_flagperf.errors import ConfigurationError


if TYPE_CHECKING:
    from pytest_flagperf.worker.inference.engine import Engine


GROUP = "pytest_flagperf.engines"

_ENGINES = "pytest_flagperf.worker.inference.engines"

# (framework that brings the model, engine) → module:Class
BUILT_IN: Mapping[tuple[str, str], str] = {
    ("pytorch", "eager"): f"{_ENGINES}.eager:Eager",
    ("pytorch", "inductor"): f"{_ENGINES}.inductor:Inductor",
    ("pytorch", "aotinductor"): f"{_ENGINES}.aotinductor:AotInductor",
    ("pytorch", "onnxruntime"): f"{_ENGINES}.onnxruntime:OnnxRuntime",
    ("pytorch", "openvino"): f"{_ENGINES}.openvino:OpenVino",
    ("pytorch", "tensorrt"): f"{_ENGINES}.tensorrt:TensorRt",
    ("pytorch", "torch_tensorrt"): f"{_ENGINES}.torch_tensorrt:TorchTensorRt",
    ("pytorch", "xtcl"): f"{_ENGINES}.xtcl:Xtcl",
    ("pytorch", "ixrt"): f"{_ENGINES}.ixrt:IxRt",
    ("pytorch", "magicmind"): f"{_ENGINES}.magicmind:MagicMind",
    ("pytorch", "cann"): f"{_ENGINES}.cann:Cann",
    ("pytorch", "macart"): f"{_ENGINES}.macart:MacaRt",
    ("paddle", "eager"): f"{_ENGINES}.paddle_eager:PaddleEager",
    ("paddle", "paddle_inference"): f"{_ENGINES}.paddle_inference:PaddleInference",
    ("mindspore", "eager"): f"{_ENGINES}.mindspore_eager:MindSporeEager",
    ("mindspore", "mindir"): f"{_ENGINES}.mindir:MindIr",
}


@cache
def known() -> Mapping[tuple[str, str], str]:
    """Every engine as (framework, engine) → ``module:Class``. One of another package never replaces one that ships."""
    found = dict(BUILT_IN)
    for point in entry_points(group=GROUP):
        framework, separator, engine = point.name.partition(".")
        if not separator or not engine.isidentifier():
            raise ConfigurationError(
                f"entry point {point.name!r} = {point.value!r} of {GROUP}: its name is not written <framework>.<engine>"
            )
        if (framework, engine) in BUILT_IN:
            raise ConfigurationError(f"entry point {point.name!r} = {point.value!r} of {GROUP}: that engine ships")
        found[framework, engine] = point.value
    return found


def names() -> list[str]:
    """The names of all engines, those that ship first."""
    return list(dict.fromkeys(engine for _, engine in known()))


def is_built_in(name: str) -> bool:
    """Whether the engine ships with the plugin."""
    return any(engine == name for _, engine in BUILT_IN)


def check(name: str) -> None:
    """Raises ``ConfigurationError`` with the nearest name for an engine that is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"unknown engine {name!r}.{hint} Known: {', '.join(names())}")


def has(framework: str, name: str) -> bool:
    """Whether the engine executes models of the framework."""
    return (framework, name) in known()


def load(framework: str, name: str) -> Engine:
    """The engine. Raises ``ConfigurationError`` where there is none of that name for the framework."""
    check(name)
    place = known().get((framework, name))
    if place is None:
        of = ", ".join(other for other, engine in known() if engine == name)
        raise ConfigurationError(f"engine {name} does not execute models of {framework}; it does those of {of}")
    module, _, attribute = place.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"engine {name} at {place} cannot be loaded: {error}") from error
    return engine

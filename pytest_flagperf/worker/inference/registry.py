"""Which engines there are: those that ship, and those of other packages.

Another package brings one by an entry point of the group ``pytest_flagperf.engines``, named ``<framework>.<engine>``:

.. code-block:: toml

    [project.entry-points."pytest_flagperf.engines"]
    "pytorch.fastrt" = "flagperf_somebody.fastrt:FastRt"

Those of the role ``generation`` continue text and are another list; another package's are of the group
``pytest_flagperf.generators``. The same name in both is the same engine, asked for something else.

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
GENERATOR_GROUP = "pytest_flagperf.generators"
GENERATION = "generation"

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


GENERATORS: Mapping[tuple[str, str], str] = {
    ("pytorch", "eager"): f"{_ENGINES}.eager_generation:EagerGeneration",
    ("pytorch", "vllm"): f"{_ENGINES}.vllm:Vllm",
    ("pytorch", "sglang"): f"{_ENGINES}.sglang:SgLang",
    ("pytorch", "openai"): f"{_ENGINES}.openai:OpenAi",
}


def known() -> Mapping[tuple[str, str], str]:
    """Every engine as (framework, engine) → ``module:Class``. One of another package never replaces one that ships.

    One that only generates is that of the role ``generation``.
    """
    return {**_of(GROUP), **{key: one for key, one in _of(GENERATOR_GROUP).items() if key not in _of(GROUP)}}


@cache
def _of(group: str) -> Mapping[tuple[str, str], str]:
    """Those of a group of entry points, with those that ship."""
    built_in = GENERATORS if group == GENERATOR_GROUP else BUILT_IN
    found = dict(built_in)
    for point in entry_points(group=group):
        framework, separator, engine = point.name.partition(".")
        if not separator or not engine.isidentifier():
            raise ConfigurationError(
                f"entry point {point.name!r} = {point.value!r} of {group}: its name is not written <framework>.<engine>"
            )
        if (framework, engine) in built_in:
            raise ConfigurationError(f"entry point {point.name!r} = {point.value!r} of {group}: that engine ships")
        found[framework, engine] = point.value
    return found


def of_role(role: str = "") -> Mapping[tuple[str, str], str]:
    """The engines that a role is measured by; without a role all of them."""
    if role:
        return _of(GENERATOR_GROUP if role == GENERATION else GROUP)
    return known()


def names() -> list[str]:
    """The names of all engines, those that ship first."""
    return list(dict.fromkeys(engine for _, engine in known()))


def is_built_in(name: str) -> bool:
    """Whether the engine ships with the plugin."""
    return any(engine == name for _, engine in (*BUILT_IN, *GENERATORS))


def check(name: str) -> None:
    """Raises ``ConfigurationError`` with the nearest name for an engine that is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"unknown engine {name!r}.{hint} Known: {', '.join(names())}")


def has(framework: str, name: str, role: str = "") -> bool:
    """Whether the engine executes models of the framework, in that role where one is given."""
    return (framework, name) in of_role(role)


def load(framework: str, name: str, role: str = "") -> Engine:
    """The engine. Raises ``ConfigurationError`` where there is none of that name for the framework and the role."""
    check(name)
    place = of_role(role).get((framework, name))
    if place is None:
        of = ", ".join(other for other, engine in of_role(role) if engine == name)
        if not of:
            can = ", ".join(engine for other, engine in of_role(role) if other == framework)
            raise ConfigurationError(f"engine {name} is none of the role {role}; those of {framework} are {can}")
        raise ConfigurationError(f"engine {name} does not execute models of {framework}; it does those of {of}")
    module, _, attribute = place.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"engine {name} at {place} cannot be loaded: {error}") from error
    return engine

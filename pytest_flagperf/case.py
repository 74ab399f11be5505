"""The vocabulary: what a benchmark case is made of.

A suite's test module holds one ``CASE``: the standard case, vendor-neutral, in plain sight. Nothing here knows a
framework, a vendor or pytest; a case is data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import ClassVar

from pytest_flagperf import bounds
from pytest_flagperf import metrics
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.words import ENGINES
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import PRECISIONS
from pytest_flagperf.words import SCALES


# The module that a framework is imported by.
FRAMEWORK_MODULES = {"pytorch": "torch", "paddle": "paddle", "mindspore": "mindspore"}

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TOPOLOGY = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})\Z")


@dataclass(frozen=True)
class Topology:
    """``nodes`` hosts with ``devices`` devices each; written ``1x8``."""

    nodes: int
    devices: int

    @classmethod
    def parse(cls, text: str) -> Topology:
        """``"2x8"`` → two nodes of eight devices. Raises ``ConfigurationError`` for anything else."""
        match = _TOPOLOGY.match(text)
        if match is None:
            raise ConfigurationError(f"malformed topology {text!r}: write NODESxDEVICES, for example 1x1, 1x8 or 2x8")
        return cls(int(match[1]), int(match[2]))

    @property
    def world_size(self) -> int:
        """Ranks in all: one a device."""
        return self.nodes * self.devices

    def __str__(self) -> str:
        return f"{self.nodes}x{self.devices}"


@dataclass(frozen=True)
class Target:
    """A bound that a metric has to hold, and where the bound comes from."""

    metric: str
    bound: float
    direction: str
    source: str

    def __post_init__(self) -> None:
        metric = metrics.get(self.metric)
        if not math.isfinite(self.bound):
            raise ConfigurationError(f"target {self.metric}: {self.bound} is not a bound")
        if metric.unit == "ratio" and not 0 <= self.bound <= 1:
            raise ConfigurationError(f"target {self.metric} is a ratio between 0 and 1, not {self.bound:g}")
        if self.direction not in bounds.DIRECTIONS:
            raise ConfigurationError(f"target {self.metric}: the direction is 'at least' or 'at most'")

    def holds(self, value: float | None) -> bool:
        """Whether ``value`` meets the bound. A value that was not measured, or is NaN, does not."""
        return bounds.holds(value, self.bound, self.direction)

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.direction == 'at least' else '<='} {self.bound:g}"


def at_least(metric: str, bound: float, *, source: str) -> Target:
    """A target for a metric where higher is better: ``at_least("top1", 0.759, source="MLPerf Training v0.7")``."""
    return Target(metric, bound, "at least", source)


def at_most(metric: str, bound: float, *, source: str) -> Target:
    """A target for a metric where lower is better: ``at_most("perplexity", 55, source="...")``."""
    return Target(metric, bound, "at most", source)


# Largest relative error of a sample's outputs against eager fp32. Half of a type's digits are left to sums that are
# made in another order, over many layers. int8 has no such bound: its quality decides.
OUTPUT_TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}


@dataclass(frozen=True)
class Scale:
    """How big a case is run: ``full`` is the reference dataset and target, ``lite`` fits two CPU cores.

    ``config`` holds the scale's hyper-parameters, ``frameworks`` what differs for one framework. ``flops`` is the
    model's floating-point operations a training sample (matrix products and convolutions, forward and backward,
    no recomputation), the numerator of ``mfu``; ``parameters`` the exact count of trainable parameters, asserted
    in every rank.

    Of inference: ``flops`` are those of the forward pass alone. ``weights`` names a set of weights, which is found like
    a dataset; without one the model is random, and measured for its speed only.
    """

    dataset: str
    targets: Sequence[Target]
    config: Mapping[str, Any] = field(default_factory=dict)
    frameworks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parameters: int | None = None
    flops: float | None = None
    weights: str = ""


@dataclass(frozen=True)
class ModelCase:
    """What the cases of models have in common.

    ``workloads`` names for each framework the class that brings the model: ``"pytorch:ResNet50"`` is the class
    ``ResNet50`` of ``pytorch.py`` beside the test module. ``tunable`` lists the configuration keys that a
    vendor's overlay may set; every other key is part of the standard case.
    """

    kind: ClassVar[str] = ""

    model: str
    title: str
    workloads: Mapping[str, str]
    scales: Mapping[str, Scale]
    tunable: frozenset[str] | set[str] = frozenset()
    config: Mapping[str, Any] = field(default_factory=dict)
    precisions: Sequence[str] = ("fp32", "tf32", "amp", "bf16")
    unit: str = "samples"

    def __post_init__(self) -> None:
        if not _NAME.match(self.model):
            raise ConfigurationError(f"case {self.model!r}: a model's name is a lower-case identifier (it is a marker)")
        for what, names, known in (
            ("framework", self.workloads, FRAMEWORKS),
            ("scale", self.scales, SCALES),
            ("precision", self.precisions, PRECISIONS),
        ):
            for name in names:
                if name not in known:
                    raise ConfigurationError(f"case {self.model}: unknown {what} {name!r}; known: {', '.join(known)}")
        for framework, workload in self.workloads.items():
            if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", workload):
                raise ConfigurationError(
                    f"case {self.model}: workload {workload!r} of {framework} is not written module:Class"
                )
        for name, scale in self.scales.items():
            for framework in scale.frameworks:
                if framework not in self.workloads:
                    raise ConfigurationError(f"case {self.model}, scale {name}: no workload for {framework!r}")
        unknown = sorted(set(self.tunable) - self.keys())
        if unknown:
            raise ConfigurationError(f"case {self.model}: tunable keys that no configuration has: {', '.join(unknown)}")

    def keys(self, only: str | None = None) -> set[str]:
        """Every configuration key of the case, over all scales or ``only`` one, and over all frameworks."""
        keys = set(self.config)
        for name, scale in self.scales.items():
            if only not in (None, name):
                continue
            keys |= set(scale.config)
            for overrides in scale.frameworks.values():
                keys |= set(overrides)
        return keys

    def targets(self, selection: Selection) -> tuple[Target, ...]:
        """What has to hold in one of the ways to run the case."""
        return tuple(self.scales[selection.scale].targets)


@dataclass(frozen=True)
class TrainingCase(ModelCase):
    """A model trained to a target."""

    kind: ClassVar[str] = "training"


@dataclass(frozen=True)
class InferenceCase(ModelCase):
    """A trained model that answers, executed by each of several ``engines``.

    The targets of a scale bound the quality of the engine's answers, and ``quality_ratio`` what of the quality of the
    framework's own execution in fp32 is kept. ``output_error`` is bounded beside them, see :data:`OUTPUT_TOLERANCE`;
    a target of the case's own takes its place. ``config`` may set, beside what the workload reads: ``batch_size``,
    ``repeat`` (passes over the dataset that are measured), ``warmup_batches``, ``calibration_samples``,
    ``compile_timeout`` (s), ``cpu_threads``, ``edge_threads``, ``minimum_time`` (s) and ``dynamic`` (whether one
    compiled model takes batches of any size; true where it is not set).
    """

    kind: ClassVar[str] = "inference"

    precisions: Sequence[str] = ("fp32", "bf16", "fp16", "int8")
    engines: Sequence[str] = ENGINES

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.engines:
            raise ConfigurationError(f"case {self.model}: it is defined for no engine")
        for name in self.engines:
            if not _NAME.match(name):
                raise ConfigurationError(f"case {self.model}: engine {name!r}: an engine's name is a marker, too")

    def targets(self, selection: Selection) -> tuple[Target, ...]:
        """Those of the scale, and the bound on what the engine's outputs may differ from eager fp32's."""
        own = super().targets(selection)
        bound = OUTPUT_TOLERANCE.get(selection.precision)
        if bound is None or any(target.metric == "output_error" for target in own):
            return own
        return (*own, at_most("output_error", bound, source=f"what {selection.precision} may differ from eager fp32"))


@dataclass(frozen=True)
class Selection:
    """One of the ways to run a case: what the parameters of a test id say. ``engine`` is empty but for inference."""

    framework: str
    precision: str
    topology: Topology
    scale: str
    engine: str = ""

    @property
    def id(self) -> str:
        """The stable ASCII id: ``pytorch-amp-1x8-full``, of inference ``pytorch-onnxruntime-fp32-1x1-lite``."""
        parts = (self.framework, self.engine, self.precision, str(self.topology), self.scale)
        return "-".join(filter(None, parts))


@dataclass(frozen=True)
class Setting:
    """One value of the effective configuration, and where it came from."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Replacement:
    """A vendor's own workload in the open division: ``module:Class``, the directory it is in, and the diff."""

    workload: str
    directory: Path
    diff: str


@dataclass(frozen=True, repr=False)
class ResolvedCase:
    """A case ready to run: selection, effective configuration and targets; what the ``case`` fixture gives.

    ``division`` is ``open`` where the vendor's overlay replaced the workload's code, by ``replaced``. ``stand_in``
    names the device that the workload runs on instead of the vendor's, in tests of vendor files.
    """

    case: ModelCase
    selection: Selection
    role: str
    vendor: str
    settings: Mapping[str, Setting]
    targets: tuple[Target, ...]
    directory: Path
    node_id: str = ""
    deviations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    recorded: Any = None
    division: str = "closed"
    replaced: Replacement | None = None
    stand_in: str = ""

    def __repr__(self) -> str:
        # Allure makes a test's history from the repr of its parameters: stable, and for a person.
        return self.id

    @property
    def model(self) -> str:
        """The model's name, which is also its marker."""
        return self.case.model

    @property
    def scale(self) -> Scale:
        """The scale this case runs at."""
        return self.case.scales[self.selection.scale]

    @property
    def id(self) -> str:
        """Unique among models and roles, and a directory name: ``resnet50-convergence-pytorch-fp32-1x1-lite``."""
        return f"{self.model}-{self.role}-{self.selection.id}"

    @property
    def label(self) -> str:
        """What a person reads in messages: ``resnet50 convergence [pytorch-fp32-1x1-lite]``."""
        return f"{self.model} {self.role} [{self.selection.id}]"

    @property
    def config(self) -> dict[str, Any]:
        """The effective configuration without its origins."""
        return {key: setting.value for key, setting in self.settings.items()}

    @property
    def workload(self) -> str:
        """``module:Class`` of the workload for the selected framework."""
        return self.replaced.workload if self.replaced else self.case.workloads[self.selection.framework]

    @property
    def workload_directory(self) -> Path:
        """Where the workload's module is looked for first."""
        return self.replaced.directory if self.replaced else self.directory

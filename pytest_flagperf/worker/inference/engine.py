"""What an engine is: something that compiles a framework's model and executes it.

An engine is a file in ``engines/`` or an entry point of another package, see :mod:`.registry`. Its module imports
nothing heavy before :meth:`Engine.export` or :meth:`Engine.compile` is called: :meth:`Engine.available` is asked often.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from typing import Protocol

from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


@dataclass(frozen=True)
class CompileOptions:
    """What to compile for.

    ``batch_sizes`` are all that will come, the usual one first; with ``dynamic`` one compiled model is to take any of
    them. ``directory`` is the engine's own, for exported and compiled files. ``device`` is the framework's word for the
    device. ``threads`` limits what runs on the host's processor. ``calibration`` gives batches of training data, for
    static quantisation. ``exported`` is what :meth:`Engine.export` gave.
    """

    precision: str
    batch_sizes: tuple[int, ...]
    dynamic: bool
    directory: Path
    device: Any
    threads: int
    calibration: Callable[[], Iterable[Arrays]] | None = None
    exported: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """The usual one."""
        return self.batch_sizes[0]


class Compiled(Protocol):
    """A model ready to execute. A call returns when the device is done; one thread calls at a time."""

    size_bytes: int

    def load(self, inputs: Arrays) -> None:
        """Put a batch on the device, in the model's types."""

    def execute(self) -> None:
        """The forward pass over the loaded batch, until the device is done: what ``p_inference_core`` counts."""

    def outputs(self) -> Arrays:
        """The outputs of the last forward pass on the host, in fresh arrays; floats as float32."""

    def run(self, inputs: Arrays) -> Arrays:
        """All three."""

    def precision(self) -> dict[str, Any]:
        """What is in force, read back from the engine and not from the request; what it does not tell is absent."""

    def memory(self) -> dict[str, float]:
        """``memory_peak`` and ``memory_total`` in GiB, where the engine's allocator tells; on a CPU the flow does."""

    def release(self) -> None:
        """Give back the device's memory and end what was started."""


class Engine(Protocol):
    """An engine, before it has compiled anything."""

    name: str
    framework: str
    precisions: Sequence[str]

    def available(self) -> str:
        """Empty where it can be used in this interpreter, else why not and what to install."""

    def versions(self) -> dict[str, str]:
        """Package → version of what executes the model, beside the framework."""

    def export(self, model: Any, workload: InferenceWorkload, options: CompileOptions) -> Path | None:
        """Write the model in the form that the engine reads, below ``options.directory``; ``None`` where it needs none.

        ``model`` is shared with the reference: it must be left as it is.
        """

    def compile(self, model: Any, workload: InferenceWorkload, options: CompileOptions) -> Compiled:
        """The compiled model. What is compiled at the first call is called here, once for each batch size.

        Raises ``PrecisionUnavailable`` where the precision cannot be put in force on this device. ``model`` is shared
        with the reference: it must be left as it is.
        """


class BaseEngine:
    """What most engines have in common. ``packages`` are those that it needs: module → what ``pip install`` wants."""

    name = ""
    framework = "pytorch"
    precisions: Sequence[str] = ("fp32",)
    packages: Mapping[str, str] = {}

    def available(self) -> str:
        """See :class:`Engine`."""
        missing = [(module, wanted) for module, wanted in self.packages.items() if find_spec(module) is None]
        if not missing:
            return ""
        modules, wanted = ", ".join(module for module, _ in missing), " ".join(package for _, package in missing)
        return f"engine {self.name} needs {modules}, not installed here: pip install {wanted}"

    def versions(self) -> dict[str, str]:
        """See :class:`Engine`."""
        found = {}
        for module in self.packages:
            try:
                found[module] = version(module)
            except PackageNotFoundError:
                continue
        return found

    def export(self, model: Any, workload: InferenceWorkload, options: CompileOptions) -> Path | None:
        """See :class:`Engine`; nothing is exported."""
        return None


class BaseCompiled:
    """What most compiled models have in common."""

    size_bytes = 0

    def load(self, inputs: Arrays) -> None:
        """See :class:`Compiled`."""
        raise NotImplementedError

    def execute(self) -> None:
        """See :class:`Compiled`."""
        raise NotImplementedError

    def outputs(self) -> Arrays:
        """See :class:`Compiled`."""
        raise NotImplementedError

    def run(self, inputs: Arrays) -> Arrays:
        """See :class:`Compiled`."""
        self.load(inputs)
        self.execute()
        return self.outputs()

    def precision(self) -> dict[str, Any]:
        """See :class:`Compiled`; it tells nothing."""
        return {}

    def memory(self) -> dict[str, float]:
        """See :class:`Compiled`; it tells nothing."""
        return {}

    def release(self) -> None:
        """See :class:`Compiled`; there is nothing to give back."""

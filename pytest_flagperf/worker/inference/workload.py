"""What a model brings to inference, whatever its framework and the engine that executes it."""

from __future__ import annotations

import hashlib
import importlib
import sys
import types
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


# What a model takes or gives for a batch: arrays on the host, the batch their first axis.
Arrays = tuple[Any, ...]
# Samples of a batch that quantisation is calibrated with.
CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Weights:
    """A set of weights on disk; without a path the model keeps its random ones, and only its speed is measured.

    ``origin`` says where they came from, ``checksum`` is the file's SHA-256.
    """

    name: str = ""
    path: Path | None = None
    origin: str = ""
    checksum: str = ""

    @property
    def random(self) -> bool:
        """Whether there are none."""
        return self.path is None

    def verify(self) -> None:
        """Raises ``DatasetError`` where the file is not the one whose checksum the result tells."""
        if self.path is None or not self.checksum:
            return
        try:
            found = checksum(self.path)
        except OSError as error:
            raise DatasetError(f"weights {self.name}: {self.path} cannot be read: {error}") from error
        if found != self.checksum:
            raise DatasetError(
                f"weights {self.name}: {self.path} changed since pytest found it: sha256 {found}, expected "
                f"{self.checksum}. Run again with a file that nobody writes to"
            )

    def arrays(self) -> dict[str, Any]:
        """Name → NumPy array, in the order of the file: of an ``.npz`` or a ``.safetensors``.

        Raises ``DatasetError`` for a file that cannot be read so. Nothing is unpickled.
        """
        assert self.path is not None
        try:
            if self.path.suffix == ".safetensors":
                from safetensors.numpy import load_file

                return dict(load_file(self.path))
            with np.load(self.path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except ImportError as error:
            raise DatasetError(
                f"weights {self.name}: {self.path} needs safetensors: pip install safetensors"
            ) from error
        except Exception as error:
            # safetensors raises its own type, NumPy four of Python's.
            raise DatasetError(f"weights {self.name}: {self.path} cannot be read: {error}") from error


class InferenceWorkload:
    """Base of every model's inference workload.

    Data is on the host as NumPy arrays, in one layout for every engine and framework. ``labels`` has one for each
    sample, or is empty where quality is none of labels. ``input_names`` and ``output_names`` are those of the model's
    arguments and results, in order. ``dynamic`` names the axes, beside the batch, whose size varies: ``{"tokens": {1:
    "length"}}``.
    """

    input_names: Sequence[str] = ("input",)
    output_names: Sequence[str] = ("output",)
    dynamic: Mapping[str, Mapping[int, str]] = {}
    labels: Any = ()

    def __init__(self, config: Config, data: Data, weights: Weights, seed: int, batch_size: int, device: Any) -> None:
        self.config = config
        self.data = data
        self.weights = weights
        self.seed = seed
        self.batch_size = batch_size
        self.device = device
        self.setup()
        # Last, for what reads the weights comes next.
        self.weights.verify()

    def setup(self) -> None:
        """Read what the evaluation needs, ``labels`` among it. Called once, before the model is loaded."""

    def model(self) -> Any:
        """The framework's model in evaluation mode with its weights loaded, on the host; the engine moves it."""
        raise NotImplementedError

    def samples(self) -> int:
        """Samples of the evaluation split."""
        raise NotImplementedError

    def inputs(self, indices: Sequence[int]) -> Arrays:
        """The model's arguments for the samples at ``indices``, in that order: the data pipeline, timed as ``whole``.

        Every call gives fresh arrays; a last batch has fewer samples.
        """
        raise NotImplementedError

    def calibration(self, count: int) -> Iterator[Arrays]:
        """Batches of about ``count`` samples of the *training* split, for static quantisation."""
        raise ConfigurationError(
            f"{type(self).__name__} has no calibration data, so it cannot be quantised: define calibration(count)"
        )

    def drawn(self, samples: Any, count: int) -> Iterator[Arrays]:
        """Batches of ``count`` of the ``samples``, or of all, in an order drawn by the seed; one input of the model.

        ``samples`` has a length and is indexed by an array, as arrays are.
        """
        chosen = np.random.default_rng(self.seed).choice(len(samples), min(count, len(samples)), replace=False)
        for start in range(0, len(chosen), CALIBRATION_BATCH):
            yield (samples[chosen[start : start + CALIBRATION_BATCH]],)

    def quality(self, outputs: Sequence[Arrays]) -> dict[str, float]:
        """Quality by registered names, from the outputs of every batch over the whole evaluation set in order."""
        raise NotImplementedError

    def judged(self, outputs: Arrays, indices: Sequence[int]) -> Arrays | None:
        """Where the outputs of all batches are too large to be kept: what :meth:`quality` needs of one, and is given.

        ``None`` keeps the outputs. Of those that are not kept, the answers to some samples are, to be compared.
        """
        return None

    def unit_count(self, outputs: Arrays) -> int:
        """Units of the case (images, tokens ...) in a batch's outputs: the samples, unless a model says otherwise."""
        return len(outputs[0])

    def answer(self, outputs: Arrays, row: int, index: int) -> Arrays:
        """What a batch's outputs say of the sample ``index``, which is their ``row``; padding is to be cut off here.

        The answer to a sample must not depend on the batch that it came in.
        """
        return tuple(np.array(output[row]) for output in outputs)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(directory: str, workload: str, *, standard: str = "") -> Any:
    """The class that ``workload`` (``module:Class``) names in the suite's ``directory``.

    As :func:`pytest_flagperf.worker.workload.load`, and a module may import those of other suites beside its own,
    relatively: ``from ...training.resnet50.digits import Digits``. The suites are the directories above that are
    packages.
    """
    module_name, _, class_name = workload.partition(":")
    top = Path(directory)
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    parts = Path(directory).relative_to(top).parts
    name = f"flagperf_suites_{hashlib.sha256(str(top).encode()).hexdigest()[:8]}"
    for depth in range(len(parts) + 1):
        place = top.joinpath(*parts[:depth])
        own = [str(place), standard] if depth == len(parts) else [str(place)]
        name = f"{name}.{parts[depth - 1]}" if depth else name
        package = types.ModuleType(name)
        package.__path__ = list(dict.fromkeys(filter(None, own)))
        sys.modules.setdefault(name, package)
    module = importlib.import_module(f"{name}.{module_name}")
    try:
        return getattr(module, class_name)
    except AttributeError:
        raise ConfigurationError(f"{module.__file__} has no class {class_name!r}") from None

"""What a model brings, whatever its framework: the base class of the framework's own ``Workload`` classes."""

from __future__ import annotations

import importlib
import sys
import types
import zlib
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol

from pytest_flagperf.errors import ConfigurationError


class Ranks(Protocol):
    """The ranks of a job, as an evaluation needs them. Every rank has to make the same calls in the same order."""

    rank: int
    world_size: int

    def sum(self, values: Sequence[float]) -> list[float]:
        """The element-wise sum over all ranks, on every rank."""
        ...

    def gather(self, array: Any) -> Any:
        """The ranks' NumPy arrays joined along the first axis, in rank order, on every rank."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Say that this rank is alive and how far it is, at most once a second; no collective."""
        ...


class Config(Mapping[str, Any]):
    """The effective configuration, read as attributes: ``config.learning_rate``."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise ConfigurationError(
                f"the workload reads the configuration key {name!r}, which the case does not set; "
                f"it sets: {', '.join(sorted(self._values))}"
            ) from None

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True)
class Data:
    """Where the data is. ``synthetic`` data has no path: the workload makes batches of the right shape itself."""

    name: str
    path: Path | None
    synthetic: bool = False


class Workload:
    """Base of every model's workload. The loop, the clock and the distribution over ranks are not its concern.

    ``batch_size`` is that of one rank and one micro-batch; ``epoch`` counts from 1 and is set by the loop;
    ``total_steps`` is the number of optimizer steps of the longest run allowed, for learning-rate schedules.
    """

    def __init__(self, config: Config, data: Data, ranks: Ranks, seed: int, batch_size: int, device: Any) -> None:
        self.config = config
        self.data = data
        self.ranks = ranks
        self.seed = seed
        self.batch_size = batch_size
        self.device = device
        self.epoch = 1
        self.total_steps = 0
        self.setup()

    def setup(self) -> None:
        """Read what both splits need. Called once, before the clock starts; reads no training data of size."""

    @property
    def world_size(self) -> int:
        """Ranks in the job."""
        return self.ranks.world_size

    @property
    def global_batch_size(self) -> int:
        """Samples an optimizer step trains on, over all ranks and accumulated micro-batches."""
        return self.batch_size * self.ranks.world_size * int(self.config.get("gradient_accumulation_steps", 1))

    @property
    def learning_rate_scale(self) -> float:
        """Linear scaling rule (Goyal et al. 2017): global batch over ``reference_batch_size``, if there is one."""
        reference = self.config.get("reference_batch_size")
        return self.global_batch_size / reference if reference else 1.0

    def samples(self, split: str) -> int:
        """Samples of ``split`` over all ranks; defines the length of an epoch."""
        raise NotImplementedError

    def batches(self, split: str) -> Iterable[Any]:
        """This rank's batches of one pass over ``split``.

        For ``train`` every rank must give the same number of batches, each of exactly ``batch_size`` samples, in
        an order that depends on ``seed`` and ``epoch``. For other splits every sample comes exactly once on
        one of the ranks.
        """
        raise NotImplementedError

    def evaluate(self, model: Any) -> dict[str, float]:
        """Quality metrics over the whole evaluation split and all ranks, by their registered names."""
        raise NotImplementedError

    def shuffled_shard(self, count: int, numpy: Any) -> Any:
        """This rank's share of ``range(count)`` in this epoch's order: equal on all ranks, the remainder left out."""
        order = numpy.random.RandomState([self.seed, self.epoch]).permutation(count)
        steps = count // (self.batch_size * self.world_size)
        return order[: steps * self.batch_size * self.world_size][self.ranks.rank :: self.world_size]

    def ordered_shard(self, count: int) -> range:
        """This rank's share of ``range(count)`` for evaluation: every sample once, sizes differ by one at most."""
        return range(self.ranks.rank, count, self.world_size)


def load(directory: str, workload: str, *, standard: str = "") -> Any:
    """The class that ``workload`` (``module:Class``) names in the suite's ``directory``.

    The directory becomes a package of its own name, so that a suite's modules may import each other
    (``from .digits import ...``) and one called ``paddle.py`` does not hide the framework. Where a vendor's own
    workload is loaded, the directory is the vendor's, and modules that it lacks are those of the ``standard`` suite.
    """
    module_name, _, class_name = workload.partition(":")
    name = f"flagperf_workload_{zlib.crc32(directory.encode()):08x}"
    package = types.ModuleType(name)
    package.__path__ = list(dict.fromkeys(filter(None, (directory, standard))))
    sys.modules.setdefault(name, package)
    module = importlib.import_module(f"{name}.{module_name}")
    try:
        return getattr(module, class_name)
    except AttributeError:
        raise ConfigurationError(f"{module.__file__} has no class {class_name!r}") from None

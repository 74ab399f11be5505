"""What a run leaves of the files that its engine exported and compiled."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path


# Beside the log of the rank.
ENGINE_DIRECTORY = "engine"
# Of compilers, tactics and the like; the exported and compiled weights are in larger files.
SMALL = 2**20
LOGS = (".log", ".txt")
REMOVED = "removed.txt"


def remove(directory: Path) -> None:
    """All of it: of a run that succeeded none of the hundreds of files tells anything."""
    shutil.rmtree(directory, ignore_errors=True)


def keep_small(directory: Path) -> None:
    """Of a run that failed, logs and small files, which may tell why; :data:`REMOVED` has names and sizes of others.

    Models as large as the weights would fill the disk, failure by failure.
    """
    removed = []
    for folder, _, names in os.walk(directory):
        for name in sorted(names):
            path = Path(folder, name)
            # A file that cannot be looked at or removed must not hide why the run failed.
            with contextlib.suppress(OSError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and found.st_size > SMALL and path.suffix not in LOGS:
                    path.unlink()
                    removed.append(f"{found.st_size}\t{path.relative_to(directory)}\n")
    if removed:
        with contextlib.suppress(OSError):
            (directory / REMOVED).write_text("bytes\tremoved when the run had failed\n" + "".join(removed), "utf-8")

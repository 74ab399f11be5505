"""Files of a Debian package, read from the ``.deb`` that ``apt-get download`` gives; nothing is installed."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterator

from pytest_flagperf.errors import DatasetError


# deb(5): an ar archive of debian-binary, control.tar.* and data.tar.*. A member has a header of 60 bytes, its name in
# the first 16 and its size in decimal in those from 48 to 58, and begins at an even offset.
_MAGIC = b"!<arch>\n"
_HEADER = 60


def files(deb: bytes) -> Iterator[tuple[str, bytes]]:
    """Path (``usr/share/...``) and content of every regular file. Raises ``DatasetError`` where it is no package."""
    try:
        with tarfile.open(fileobj=io.BytesIO(_data(deb))) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name.removeprefix("./"), content.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DatasetError(f"the .deb's data cannot be read: {error}; download it again") from error


def _data(deb: bytes) -> bytes:
    """The member ``data.tar.*``, compressed."""
    offset = len(_MAGIC)
    while deb.startswith(_MAGIC) and len(deb) >= offset + _HEADER:
        name = deb[offset : offset + 16].decode("ascii", "replace").rstrip(" /")
        length = deb[offset + 48 : offset + 58].decode("ascii", "replace").strip()
        if not length.isdigit():
            break
        begin, end = offset + _HEADER, offset + _HEADER + int(length)
        if end > len(deb):
            break
        if name.startswith("data.tar"):
            return deb[begin:end]
        offset = end + end % 2
    raise DatasetError("this is no whole Debian package: it holds no data.tar; download it again")

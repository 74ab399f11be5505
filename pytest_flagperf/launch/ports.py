"""A free TCP port for the launcher's rendezvous."""

from __future__ import annotations

import errno
import re
import socket


_IN_USE = re.compile(r"address already in use|EADDRINUSE|errno:? ?98\b", re.IGNORECASE)


def free_port(address: str = "127.0.0.1") -> int:
    """A port that is free on ``address`` now.

    Nothing reserves it: another process may take it before the launcher does. Afterwards :func:`is_held` and
    :func:`is_taken` recognise that. Raises :class:`OSError` if ``address`` is not one of this host.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


def is_held(port: int, address: str = "127.0.0.1") -> bool:
    """Whether some process holds the port now. Once a job is over and all of it is gone, that is another's."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def is_taken(text: str) -> bool:
    """Whether ``text``, what a launcher or rank said on failing, is about a port that somebody else holds."""
    return _IN_USE.search(text) is not None

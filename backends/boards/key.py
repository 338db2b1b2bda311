"""The key of a board: what clients have to know to run anything there. The board's side is runtime/rpc_greeting.h."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ...frontend.base.errors import InputError
from ...frontend.base.files import open_regular

__all__ = ["read_key"]

_LEAST, _MOST = 16, 4096
"""Bytes."""


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The key in a file, without the space at its end.

    Raises:
        InputError: it cannot be read, others may read it, or it is too short or too long.
    """
    file = Path(path)
    try:
        with open_regular(file) as stream:
            mode, key = os.fstat(stream.fileno()).st_mode, stream.read(_MOST)
    except OSError as error:
        raise InputError(f"cannot read the key '{file}': {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"others may read the key '{file}'; chmod 600 it")
    found = key.rstrip(b" \t\r\n")
    if len(found) < _LEAST or len(key) == _MOST:
        raise InputError(
            f"the key '{file}' has to have from {_LEAST} to {_MOST - 1} bytes; make one: openssl rand -hex 32"
        )
    return found

"""Files with what only some may know: keys and tokens."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import InputError
from .files import open_regular

__all__ = ["read_secret"]


def read_secret(path: str | os.PathLike[str], what: str, least: int, most: int, advice: str) -> bytes:
    """What is in a file, without the space at its end.

    Args:
        what: it is, for messages.
        least, most: bytes that it may have.
        advice: how one is made.

    Raises:
        InputError: it cannot be read, others may read it, or it is too short or too long.
    """
    file = Path(path)
    try:
        with open_regular(file) as stream:
            mode, contents = os.fstat(stream.fileno()).st_mode, stream.read(most + 1)
    except OSError as error:
        raise InputError(f"cannot read {what} '{file}': {error.strerror}; give another file") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"others may read {what} '{file}'; chmod 600 it")
    found = contents.rstrip(b" \t\r\n")
    if len(found) < least or len(contents) > most:
        raise InputError(f"{what} '{file}' has to have from {least} to {most} bytes; {advice}")
    return found

"""The key of a board: what clients have to know to run anything there. The board's side is runtime/rpc_greeting.h."""

from __future__ import annotations

import os

from ...frontend.base.secret_files import read_secret

__all__ = ["read_key"]

_MIN_BYTES, _MAX_BYTES = 16, 4095
"""Bytes."""


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The key in a file, without the space at its end.

    Raises:
        InputError: it cannot be read, others may read it, or it is too short or too long.
    """
    return read_secret(path, "the key", _MIN_BYTES, _MAX_BYTES, "make one: openssl rand -hex 32")

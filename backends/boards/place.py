"""Where a board is: a server's address, or a pool's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from ...frontend.base.errors import InputError
from .key import read_key

__all__ = ["Place", "is_place", "parse_place"]


@dataclass(frozen=True)
class Place:
    """``rpc://HOST:PORT[/KEY]``, a board's own server; or ``tracker://HOST:PORT/KEY``, any board of that key.

    Attributes:
        key: a name, which everybody may know.
        secret: what a client has to know so that a board lets it in; empty where boards let everybody in.
    """

    kind: Literal["rpc", "tracker"]
    host: str
    port: int
    key: str = ""
    secret: bytes = field(default=b"", repr=False, compare=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}{'/' if self.key else ''}{self.key}"


def is_place(text: str) -> bool:
    """Whether `text` is meant for a place on the network."""
    return "://" in text


def parse_place(text: str, key_file: str | os.PathLike[str] | None = None) -> Place:
    """The place that `text` names, with the secret in `key_file`. Raises InputError for anything else."""
    secret = b"" if key_file is None else read_key(key_file)
    try:
        parts = urlsplit(text)
        host, port, key = parts.hostname, parts.port, parts.path.strip("/")
    except ValueError as error:
        raise InputError(f"'{text}' is no place: {error}; write rpc://HOST:PORT or tracker://HOST:PORT/KEY") from None
    if parts.scheme not in ("rpc", "tracker") or not host or not port or set(key) & set('/ :"\\'):
        raise InputError(f"'{text}' is no place; write rpc://HOST:PORT or tracker://HOST:PORT/KEY")
    if parts.scheme == "tracker" and not key:
        raise InputError(f"'{text}' does not say which boards; add their key, such as {text.rstrip('/')}/rpi4")
    return Place("rpc" if parts.scheme == "rpc" else "tracker", host, port, key, secret)

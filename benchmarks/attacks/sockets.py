"""Reading whole messages from a peer, for programs and tests that play the other side."""

from __future__ import annotations

import socket

__all__ = ["read"]


def read(peer: socket.socket, size: int) -> bytes:
    """The next `size` bytes. Raises EOFError if the connection ends before them."""
    found = b""
    while len(found) < size:
        part = peer.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found

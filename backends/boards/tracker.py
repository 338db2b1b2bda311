"""Asking TVM's tracker for a board, with time-outs that TVM's own client does not have.

The protocol is TVM's: a magic number both ways, then JSON messages with their length in front.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any, NamedTuple

from ...frontend.base.json_text import json_array, json_count, json_text, parse_json
from .errors import BoardError, BoardLost, printable
from .place import Place
from .relay_process import received

__all__ = ["Offer", "request_board"]

_MAGIC = 0x2F271
_REQUEST, _SUMMARY, _SUCCESS = 4, 6, 0
_MOST_BYTES = 1 << 20


class Offer(NamedTuple):
    """A board that waits for whoever knows its key."""

    host: str
    port: int
    key: str


def request_board(place: Place, connect_seconds: float, wait_seconds: float) -> Offer:
    """A free board of the key in `place`; waits while all of them are busy.

    Raises:
        BoardError: there is no tracker, or it knows no such board.
        BoardLost: it does not answer, or no board became free in time.
    """
    try:
        connection = socket.create_connection((place.host, place.port), connect_seconds)
    except (socket.gaierror, UnicodeError):
        raise BoardError(f"there is no host '{place.host}' (of {place}); check its name") from None
    except OSError as error:
        raise BoardLost(
            f"cannot reach the tracker {place.host}:{place.port}: {_reason(error)}; is it running?"
        ) from None
    with connection:
        try:
            end = time.monotonic() + connect_seconds
            connection.sendall(struct.pack("<i", _MAGIC))
            if struct.unpack("<i", received(connection, 4, end))[0] != _MAGIC:
                raise BoardError(f"{place.host}:{place.port} is no tracker; start one: python -m tvm.exec.rpc_tracker")
            _check_key(place, _asked(connection, [_SUMMARY], end)[1])
            return _offer(_asked(connection, [_REQUEST, place.key, "", 1], time.monotonic() + wait_seconds)[1])
        except BoardError:
            raise
        except TimeoutError:
            raise BoardLost(
                f"no board '{place.key}' of the tracker {place.host}:{place.port} became free in {wait_seconds:g}"
                " seconds; others use them, or they hang"
            ) from None
        except (OSError, ValueError, LookupError, TypeError, struct.error) as error:
            raise BoardLost(f"the tracker {place.host}:{place.port} broke off: {_reason(error)}") from None


def _offer(value: Any) -> Offer:
    """The board that a tracker gives. Raises ValueError for anything else."""
    host, port, key = json_array(value)
    if not json_count(port, "port", 65535):
        raise ValueError("it gave a board without a port")
    return Offer(printable(json_text(host, "host")), port, json_text(key, "key"))


def _check_key(place: Place, summary: Any) -> None:
    known = sorted({str(entry["key"]).removeprefix("server:") for entry in summary["server_info"]})
    if place.key not in known:
        boards = f"it has {printable(', '.join(known))}" if known else "it has none"
        raise BoardError(f"the tracker {place.host}:{place.port} has no board '{place.key}'; {boards}")


def _asked(connection: socket.socket, message: list[Any], end: float) -> Any:
    data = json.dumps(message).encode()
    connection.sendall(struct.pack("<i", len(data)) + data)
    size = struct.unpack("<i", received(connection, 4, end))[0]
    if not 0 < size <= _MOST_BYTES:
        raise ValueError("its answer makes no sense")
    answer = parse_json(received(connection, size, end))
    if answer[0] != _SUCCESS:
        raise ValueError(f"it answered {answer[0]!r}")
    return answer


def _reason(error: Exception) -> str:
    return printable(str(getattr(error, "strerror", None) or error))

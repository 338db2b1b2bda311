"""Messages of TVM's RPC as a client writes them, in parts, so that one part can be changed and the rest stay as it is.

What a part is decides how it may be changed: a `count` says how much of something follows, a `kind` which of several things,
`data` is what it is, and an `address` is one of the board's. A client that knows the key may name any address, so what comes of
wrong ones says nothing of how messages are read; they are changed only where that is asked for.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["FUNCTIONS", "Part", "changed", "encoded", "first_message", "found_handle", "lookup", "message"]

VERSION = b"0.8.0"
SHUTDOWN, INIT, CALL, COPY_FROM, COPY_TO, FIRST_CALL = 1, 2, 3, 6, 7, 9
SYSTEM_CALLS = 13
NONE, INT, BOOL, FLOAT, POINTER, DTYPE, DEVICE, TENSOR, RAW, BYTES = range(10)
SMALL, STRING, OBJECT_BYTES = 11, 65, 66
ADDRESSES = {POINTER, 68, 73, 115}
"""Types whose values are addresses."""

FUNCTIONS = {
    "reconvene.about": 0,
    "reconvene.bytes": 0,
    "reconvene.run": 0,
    "tvm.rpc.server.workpath": 0,
    "tvm.rpc.server.load_module": 0,
    "tvm.rpc.server.upload": 2,
    "tvm.rpc.server.download": 1,
    "tvm.rpc.server.remove": 1,
}
"""What sessions call, and how many arguments it has to have: functions of TVM's do not look how many there are."""


@dataclass(frozen=True)
class Part:
    what: Literal["count", "kind", "data", "address"]
    bytes: bytes


def count(value: int, size: int = 8) -> Part:
    return Part("count", value.to_bytes(size, "little", signed=value < 0))


def kind(value: int) -> Part:
    return Part("kind", struct.pack("<i", value))


def data(value: bytes) -> Part:
    return Part("data", value)


def address(value: int) -> Part:
    return Part("address", struct.pack("<Q", value))


def encoded(parts: Sequence[Part], claimed: int | None = None) -> bytes:
    """A message with its length in front, or with another length."""
    body = b"".join(part.bytes for part in parts)
    return struct.pack("<Q", len(body) if claimed is None else claimed) + body


def first_message() -> list[Part]:
    return [kind(INIT), count(len(VERSION)), data(VERSION), count(0, 4)]


def lookup(name: str) -> list[Part]:
    """Asks for the address of a function."""
    return [kind(FIRST_CALL), count(1, 4), *text(RAW, name.encode())]


def found_handle(answer: bytes) -> int:
    """The address in the answer to `lookup`. Raises ValueError for another answer."""
    if len(answer) != 20 or struct.unpack_from("<iii", answer) != (4, 1, POINTER):
        raise ValueError(f"no address: {answer!r}")
    return int.from_bytes(answer[12:], "little")


def text(of: int, value: bytes) -> list[Part]:
    inner = [kind(STRING if of == SMALL else of)] if of not in (RAW, BYTES) else []
    return [kind(of), *inner, count(len(value)), data(value)]


def tensor(source: random.Random, where: int) -> list[Part]:
    shape = [source.choice((0, 1, 2, 3, 64)) for _ in range(source.randrange(4))]
    element = source.choice(((0, 8, 1), (0, 32, 1), (2, 32, 4), (6, 1, 1), (3, 0, 0)))
    return [
        address(where),
        kind(1),
        data(bytes(4)),
        count(len(shape), 4),
        Part("count", struct.pack("<BBH", *element)),
        *(count(size) for size in shape),
        count(0),
    ]


def argument(source: random.Random) -> list[Part]:
    of = source.choice((NONE, INT, BOOL, FLOAT, DTYPE, DEVICE, RAW, BYTES, SMALL, STRING, OBJECT_BYTES, TENSOR))
    if of == NONE:
        return [kind(of)]
    if of == DEVICE:
        return [kind(of), kind(1), data(bytes(4))]
    if of == TENSOR:
        return [kind(of), *tensor(source, 0)]
    if of in (INT, BOOL, FLOAT, DTYPE):
        return [kind(of), data(struct.pack("<q", source.choice((0, 1, 64, -1, (1 << 31) - 1, 1 << 40))))]
    return text(of, source.choice((b"", b"x", b"model.so", source.randbytes(source.randrange(200)))))


def message(source: random.Random, handles: Sequence[tuple[int, int]]) -> list[Part]:
    """A message that is whole. `handles`: addresses of functions, each with the fewest arguments that it takes."""
    choice = source.random()
    if choice < 0.1:
        return first_message()
    if choice < 0.2:
        # Of nothing, for no memory of the board's is the client's.
        return [kind(source.choice((COPY_FROM, COPY_TO))), *tensor(source, 0), count(0)]
    if choice < 0.6:
        handle, least = source.choice(handles)
        arguments = [argument(source) for _ in range(least + source.randrange(4))]
        start = [kind(CALL), address(handle)]
    else:
        arguments = [argument(source) for _ in range(source.randrange(6))]
        start = [kind(FIRST_CALL + source.randrange(SYSTEM_CALLS))]
    return [*start, count(len(arguments), 4), *(part for parts in arguments for part in parts)]


def changed(parts: Sequence[Part], source: random.Random, *, addresses: bool = False) -> bytes:
    """The message with a part changed, dropped or repeated, or cut, or of a length that it does not have; or, with
    `addresses`, with an address that is none.
    """
    found = list(parts)
    places = [number for number, part in enumerate(found) if (part.what == "address") == addresses]
    if addresses:
        for number in places:
            found[number] = address(
                source.choice((0, 1, 8, 1 << 20, (1 << 47) - 8, (1 << 63) + 8, source.getrandbits(47)))
            )
        return encoded(found)
    place = source.choice(places)
    edit: Callable[[], bytes] = source.choice(
        (
            *[lambda: encoded(_replaced(found, place, source))] * 6,
            lambda: encoded(found[:place] + found[place + 1 :]),
            lambda: encoded(found[: place + 1] + found[place:]),
            lambda: encoded(found[:place]),
            lambda: encoded(found, _other(len(encoded(found)) - 8, 8, source)),
        )
    )
    return edit()


def _replaced(parts: list[Part], place: int, source: random.Random) -> list[Part]:
    part = parts[place]
    if part.what == "data":
        new = source.randbytes(len(part.bytes))
    elif part.what == "kind":
        values = [
            value for value in (*range(-1, 24), *range(60, 80), 35, 36, 127, 128, 1 << 30) if value not in ADDRESSES
        ]
        new = struct.pack("<i", source.choice((*values, -(1 << 31))))
    else:
        new = _other(int.from_bytes(part.bytes, "little"), len(part.bytes), source).to_bytes(len(part.bytes), "little")
    return [*parts[:place], replace(part, bytes=new), *parts[place + 1 :]]


def _other(value: int, size: int, source: random.Random) -> int:
    """Another number of so many bytes: near, of another sign, or of those where arithmetic overflows."""
    bits = 8 * size
    choices = (value + 1, value - 1, value + 4, value * 2, -1, 0, 1 << bits - 1, (1 << bits - 1) - 1, 1 << 31, 1 << 32)
    far = ((1 << 32) + value, (1 << 61) + 1, 1 << 60, (1 << bits) - 8, source.getrandbits(bits))
    return source.choice((*choices, *far)) % (1 << bits)

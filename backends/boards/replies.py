"""What a board may send to TVM's client: one greeting, then answers to what it was asked, each of a known form.

TVM has one reader for both sides of a session. It would begin a session of the board's in this process and let it call every
function here, and it takes addresses, lengths and devices as they come. So each message is read here first. Of
``rpc_endpoint.cc`` and ``rpc_reference.h`` in TVM's sources, this is what a server sends.

Imports nothing of this package: `relay_process` reads it as a file.
"""

from __future__ import annotations

import math
import struct

__all__ = ["MAGIC", "MAX_BYTES", "Nonsense", "Replies"]

MAGIC = 0xFF271
MAX_BYTES = 1 << 26
"""Bytes that one message may have, unless more is expected."""

_MOST_KEY = 1024
_RETURN, _EXCEPTION, _COPIED = 4, 5, 8
"""Codes of messages; all others are a client's, which ask for something to be done."""

_NONE, _INT, _BOOL, _FLOAT, _POINTER, _DTYPE, _DEVICE, _DL_TENSOR, _RAW_TEXT, _RAW_BYTES = range(10)
_SMALL_TEXT, _SMALL_BYTES, _OBJECTS, _TEXT, _BYTES, _TENSOR = 11, 12, 64, 65, 66, 70
_TEXTS = (_RAW_TEXT, _RAW_BYTES, _SMALL_TEXT, _SMALL_BYTES, _TEXT, _BYTES)
_NUMBERS = (_INT, _BOOL, _FLOAT)
_CPU = 1
_MOST_AXES = 64
_DTYPE_CODES, _DTYPE_BITS = (0, 1, 2, 4, 6), (1, 8, 16, 32, 64)
"""Whole numbers with a sign and without, floating-point, bfloat16, booleans."""


class Nonsense(ValueError):
    """A board sends what is no answer."""


class Replies:
    """Follows what a board sends, from its first byte after a proof of the key.

    Args:
        most: bytes of one message.
    """

    def __init__(self, most: int = MAX_BYTES) -> None:
        self._most = most
        self._held = bytearray()
        self._step = self._magic
        self._passing = 0
        """Bytes of the current message that are passed on as they come."""
        self.refusing = False
        """Whether the board has another magic number than a server that takes the client."""

    def passed(self, data: bytes) -> bytes:
        """What of `data`, and of what came before, the client may read by now.

        Raises:
            Nonsense: a message is no answer, or too long.
        """
        found = bytearray()
        if self._passing:
            part = data[: self._passing]
            self._passing -= len(part)
            found += part
            data = data[len(part) :]
        self._held += data
        while (size := self._step()) is not None:
            found += self._held[:size]
            del self._held[:size]
        return bytes(found)

    # Each step gives the bytes that may be passed on, or None until enough are there.

    def _magic(self) -> int | None:
        if len(self._held) < 4:
            return None
        self.refusing = int.from_bytes(self._held[:4], "little") != MAGIC
        self._step = self._rest if self.refusing else self._key
        return 4

    def _rest(self) -> int | None:
        """The client knows by the number that it is refused, and reads no more."""
        return None

    def _key(self) -> int | None:
        if len(self._held) < 4:
            return None
        (size,) = struct.unpack_from("<i", self._held)
        if not 0 <= size <= _MOST_KEY:
            raise Nonsense("its name is too long")
        if len(self._held) < 4 + size:
            return None
        self._step = self._message
        return 4 + size

    def _message(self) -> int | None:
        if len(self._held) < 12:
            return None
        size, code = struct.unpack_from("<Qi", self._held)
        if not 4 <= size <= self._most:
            raise Nonsense(f"a message claims {size} bytes")
        if code not in (_RETURN, _EXCEPTION, _COPIED):
            raise Nonsense("it asks for something to be done here")
        if code == _COPIED:
            now = min(8 + size, len(self._held))
            self._passing = 8 + size - now
            return now
        if len(self._held) < 8 + size:
            return None
        _check_values(memoryview(bytes(self._held[12 : 8 + size])), code)
        return 8 + size


def _check_values(body: memoryview, code: int) -> None:
    """Raises Nonsense unless `body` is the values of an answer, or the text of an error."""
    reader = _Reader(body)
    count = reader.number("<i")
    if not 1 <= count <= 3:
        raise Nonsense(f"an answer has {count} values")
    kinds, first = [], None
    for index in range(count):
        kind, value = reader.value()
        kinds.append(kind)
        first = value if index == 0 else first
    if reader.left:
        raise Nonsense("a message goes on after its end")
    if code == _EXCEPTION:
        fits = count == 1 and kinds[0] in _TEXTS
    elif count == 1:
        fits = kinds[0] in (_NONE, *_NUMBERS, _POINTER)
    else:
        fits = kinds[0] == _INT and kinds[1:] in _after(first)
    if not fits:
        raise Nonsense("an answer is of no known form")


def _after(kind: int | None) -> list[list[int]]:
    """What may come after the number of a kind of value."""
    if kind in (_NONE, *_NUMBERS, _POINTER, _DTYPE, _DEVICE):
        return [[kind]]
    if kind in _TEXTS:
        return [[text] for text in _TEXTS]
    if kind in (_TENSOR, _DL_TENSOR):
        return [[_DL_TENSOR, _POINTER]]
    return [[_POINTER]] if kind is not None and _OBJECTS <= kind < 1 << 31 else []


class _Reader:
    """Values one after the other, each within what is left."""

    def __init__(self, body: memoryview) -> None:
        self._body, self._at = body, 0

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def number(self, form: str) -> int:
        size = struct.calcsize(form)
        self._skip(size)
        return int(struct.unpack_from(form, self._body, self._at - size)[0])

    def value(self) -> tuple[int, int | None]:
        """The kind of the next value, and the value itself if it is a whole number."""
        kind = self.number("<i")
        if kind == _INT:
            return kind, self.number("<q")
        if kind in (_BOOL, _FLOAT, _POINTER, _DTYPE, _DEVICE):
            self._skip(8)
        elif kind == _DL_TENSOR:
            self._tensor()
        elif kind in (_RAW_TEXT, _RAW_BYTES):
            self._skip(self.number("<Q"))
        elif kind in _TEXTS:
            if self.number("<I") not in (_TEXT, _BYTES):
                raise Nonsense("an answer is of no known form")
            self._skip(self.number("<Q"))
        elif kind != _NONE:
            raise Nonsense("an answer holds what only a client sends")
        return kind, None

    def _tensor(self) -> None:
        self._skip(8)
        device, number, axes = (self.number("<i") for _ in range(3))
        code, bits, lanes = self.number("<B"), self.number("<B"), self.number("<H")
        if (device, number) != (_CPU, 0) or not 0 <= axes <= _MOST_AXES:
            raise Nonsense("a tensor is not in its memory")
        if code not in _DTYPE_CODES or bits not in _DTYPE_BITS or lanes != 1:
            raise Nonsense("a tensor is of no known type")
        shape = [self.number("<q") for _ in range(axes)]
        self._skip(8)
        if any(extent < 0 for extent in shape) or math.prod(shape) * bits >= 1 << 63:
            raise Nonsense("a tensor has no possible shape")

    def _skip(self, size: int) -> None:
        if size > self.left:
            raise Nonsense("an answer ends in the middle of a value")
        self._at += size

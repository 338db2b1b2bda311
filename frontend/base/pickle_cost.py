"""How long the keys in a pickle take to hash, found without unpickling it.

A tuple that holds one tuple twice, which holds another twice, and so on, is a few bytes a level; its hash, which a dict asks
for, visits every path. Thirty-four levels are minutes in which Python cannot be interrupted, sixty are for ever.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any

__all__ = ["check_pickle_cost"]

_MOST_VISITS = 10_000_000
"""Values that all hashes of one pickle may visit together: about a second."""
_MOST_DEEP = 500
"""Tuples in tuples; hashing follows them on C's stack."""
_MOST_IN_A_FILE = 5
"""Pickles, one after another: as many as torch's old format has before its numbers."""
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_DICTS = {"SETITEM", "SETITEMS", "DICT"}
_CONTAINERS = {*_DICTS, "APPEND", "APPENDS", "ADDITEMS", "LIST"}
_MARK = (-1, 0)
_PLAIN = (1, 0)


def check_pickle_cost(content: bytes) -> None:
    """Follows the opcodes of the pickles at the start of `content`, with the cost of values in place of the values.

    What is no pickle, or a damaged one, passes: the reader says so.

    Raises:
        ValueError: hashing what is in it would take too long, or too deep a stack.
    """
    stream = io.BytesIO(content)
    for _ in range(_MOST_IN_A_FILE):
        try:
            _Machine().run(stream)
        except _TooCostly:
            raise ValueError("it holds tuples in tuples that would take for ever to read") from None
        except Exception:  # Whatever a damaged pickle makes the listing of its opcodes stumble over.
            return


class _TooCostly(Exception):
    pass


class _Machine:
    """Costs are pairs: values that a hash visits, and how deep tuples lie in it."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, int]] = []
        self._memo: dict[int, tuple[int, int]] = {}
        self._hashed = 0

    def run(self, stream: io.BytesIO) -> None:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _GETS:
                self._stack.append(self._memo[int(argument)])  # type: ignore[arg-type]
            elif opcode.name in _PUTS:
                place = len(self._memo) if opcode.name == "MEMOIZE" else int(argument)  # type: ignore[arg-type]
                self._memo[place] = self._stack[-1]
            elif opcode.name == "MARK":
                self._stack.append(_MARK)
            elif opcode.name == "DUP":
                self._stack.append(self._stack[-1])
            else:
                self._step(opcode)

    def _step(self, opcode: Any) -> None:
        taken = self._taken(opcode)
        if opcode.name in _DICTS:
            taken = taken[1::2]  # The keys: a value comes off the stack before its key, and a dict that is there last.
        visits, deep = 1 + sum(cost for cost, _ in taken), 1 + max((deep for _, deep in taken), default=-1)
        if opcode.name in _CONTAINERS:  # They have no hash; a list may become the items of a dict.
            self._hashed += visits
            visits, deep = _PLAIN
        if visits > _MOST_VISITS or self._hashed > _MOST_VISITS or deep > _MOST_DEEP:
            raise _TooCostly
        self._stack.extend([(visits, deep)] * len(opcode.stack_after))

    def _taken(self, opcode: Any) -> list[tuple[int, int]]:
        names = [part.name for part in opcode.stack_before]
        taken = []
        if "mark" in names:
            while (cost := self._stack.pop()) != _MARK:
                taken.append(cost)
            names = names[: names.index("mark")]
        return taken + [self._stack.pop() for _ in names]

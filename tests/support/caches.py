"""Functions that keep a table, each at another place outside of any model, and as code of people keeps it."""

from __future__ import annotations

import functools
import types
from collections import UserDict, deque
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor


def made(size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float32)


@functools.cache
def remembered(size: int) -> Tensor:
    return made(size)


TABLES: dict[int, Tensor] = {}


def in_a_dict(size: int) -> Tensor:
    if size not in TABLES:
        TABLES[size] = made(size)
    return TABLES[size]


_table: Tensor | None = None
_size = 0


def bound_anew(size: int) -> Tensor:
    """Two names: one says whether the other can be used."""
    global _table, _size
    if _size != size:
        _table, _size = made(size), size
    assert _table is not None
    return _table


def first_bound(size: int) -> Tensor:
    """A name that is not there before the first call."""
    global _new
    if "_new" not in globals():
        _new = made(size)  # type: ignore[name-defined]
    return _new  # type: ignore[name-defined, no-any-return]


class Rope:
    """A class that nobody makes objects of."""

    tables: ClassVar[dict[int, Tensor]] = {}
    last: ClassVar[Tensor | None] = None

    @staticmethod
    def in_its_dict(size: int) -> Tensor:
        if size not in Rope.tables:
            Rope.tables[size] = made(size)
        return Rope.tables[size]

    @classmethod
    def as_attribute(cls, size: int) -> Tensor:
        if cls.last is None:
            cls.last = made(size)
        return cls.last


def by_default(size: int, tables: dict[int, Tensor] = {}) -> Tensor:  # noqa: B006
    return tables.setdefault(size, made(size))


def by_keyword_default(size: int, *, tables: list[Tensor] = []) -> Tensor:  # noqa: B006
    if not tables:
        tables.append(made(size))
    return tables[0]


def on_itself(size: int) -> Tensor:
    if not hasattr(on_itself, "table"):
        on_itself.table = made(size)  # type: ignore[attr-defined]
    return on_itself.table  # type: ignore[attr-defined, no-any-return]


def _enclosing() -> Callable[[int], Tensor]:
    table = None

    def enclosed(size: int) -> Tensor:
        nonlocal table
        if table is None:
            table = made(size)
        return table

    return enclosed


enclosed = _enclosing()


class Tables:
    def __init__(self) -> None:
        self.size, self.nested = 0, {"tables": [torch.empty(0)]}

    def __call__(self, size: int) -> Tensor:
        if self.size != size:
            self.nested["tables"][0], self.size = made(size), size
        return self.nested["tables"][0]


class Slotted:
    __slots__ = ("table",)

    def __call__(self, size: int) -> Tensor:
        if not hasattr(self, "table"):
            self.table = made(size)
        return self.table


of_an_object, of_slots = Tables(), Slotted()
SPACE = types.SimpleNamespace(table=None, recent=deque([1], maxlen=2))


def in_a_namespace(size: int) -> Tensor:
    if SPACE.table is None:
        SPACE.table = made(size)
        SPACE.recent.append(SPACE.table)
    return SPACE.table  # type: ignore[no-any-return]


def told_elsewhere(size: int) -> Tensor:
    """A dict of numbers beside that of tensors says what is in it."""
    if not FLAGS.get("ready"):
        TABLES[-size], FLAGS["ready"] = made(size), True
    return TABLES[-size]


FLAGS: dict[str, Any] = {}
DISPATCH: dict[str, Any] = {"table": functools.lru_cache(2)(made)}


def dispatched(size: int) -> Tensor:
    return DISPATCH["table"](size)  # type: ignore[no-any-return]


def imported_late(size: int) -> Tensor:
    from . import caches

    return caches.remembered(size)


def by_globals(size: int) -> Tensor:
    return globals().setdefault("_named", made(size))  # type: ignore[no-any-return]


KEPT: UserDict[int, Tensor] = UserDict()


def in_a_dict_of_python(size: int) -> Tensor:
    if size not in KEPT:
        KEPT[size] = made(size)
    return KEPT[size]


class Meta(type):
    store: ClassVar[dict[int, Tensor]] = {}

    def table(cls, size: int) -> Tensor:
        return cls.store.setdefault(size, made(size))


class OfMeta(metaclass=Meta):
    pass

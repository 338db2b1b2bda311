"""Places outside of a model that hold values by name or in a row, and how what was put there is taken out again.

What tracing leaves are tensors and stand-ins for them. Where none came in, another thread may have written meanwhile, and
that stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping
from types import FunctionType
from typing import Any

from .stand_ins import tensors_in

__all__ = ["Attributes", "Cells", "ClassAttributes", "Entries", "Place", "Row", "Slots", "is_class_data", "slots_of"]

_MISSING = object()


class Place:
    """Values by key, as they are when it is made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.before = self.read()

    def read(self) -> dict[Any, Any]:
        """What is there now."""
        raise NotImplementedError

    def write(self, key: Any, value: Any) -> None:
        raise NotImplementedError

    def remove(self, key: Any) -> None:
        raise NotImplementedError

    def changed(self) -> list[str]:
        """Names of what is not as it was."""
        now = self.read()
        keys = [*now, *(key for key in self.before if key not in now)]
        return [self.shown(key) for key in keys if not _is_same(now.get(key, _MISSING), self.before.get(key, _MISSING))]

    def shown(self, key: Any) -> str:
        return f"{self.name}.{key}" if self.name else str(key)

    def took_tensors(self) -> bool:
        """Whether tensors, or stand-ins for them, came in."""
        now = self.read()
        return any(
            tensors_in(key, value) for key, value in now.items() if not _is_same(value, self.before.get(key, _MISSING))
        )

    def restore(self, traced: bool) -> None:
        """Puts back what was there, if tensors came in somewhere: whether one is there is often said at another place."""
        if traced:
            now = self.read()
            for key in [key for key in now if key not in self.before]:
                self.remove(key)
            self._put_back(now)

    def _put_back(self, now: dict[Any, Any]) -> None:
        for key, value in self.before.items():
            if not _is_same(now.get(key, _MISSING), value):
                self.write(key, value)


class Attributes(Place):
    """Those of a module, a function or an object; of a module only the names that code has."""

    def __init__(self, name: str, held: MutableMapping[str, Any], names: Collection[str] | None = None) -> None:
        self._held, self._names = held, names
        super().__init__(name)

    def read(self) -> dict[Any, Any]:
        if self._names is None:
            return dict(self._held)
        return {name: self._held[name] for name in self._names if name in self._held}

    def write(self, key: Any, value: Any) -> None:
        self._held[key] = value

    def remove(self, key: Any) -> None:
        self._held.pop(key, None)


class ClassAttributes(Place):
    """Those of a class that are no code."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        super().__init__(kind.__name__)

    def read(self) -> dict[Any, Any]:
        return {name: value for name, value in list(vars(self._kind).items()) if is_class_data(name, value)}

    def write(self, key: Any, value: Any) -> None:
        setattr(self._kind, key, value)

    def remove(self, key: Any) -> None:
        delattr(self._kind, key)


class Cells(Place):
    """Variables of the function around a function."""

    def __init__(self, function: FunctionType) -> None:
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        super().__init__("")

    def read(self) -> dict[Any, Any]:
        return {name: cell.cell_contents for name, cell in self._cells.items() if _is_filled(cell)}

    def write(self, key: Any, value: Any) -> None:
        self._cells[key].cell_contents = value

    def remove(self, key: Any) -> None:
        del self._cells[key].cell_contents


class Slots(Place):
    """Attributes of an object that has no dict for them."""

    def __init__(self, name: str, value: Any) -> None:
        self._value = value
        super().__init__(name)

    def read(self) -> dict[Any, Any]:
        return {name: getattr(self._value, name) for name in slots_of(type(self._value)) if hasattr(self._value, name)}

    def write(self, key: Any, value: Any) -> None:
        object.__setattr__(self._value, key, value)

    def remove(self, key: Any) -> None:
        object.__delattr__(self._value, key)


class Entries(Place):
    """Those of a dict: whatever came in, what was there before comes back."""

    def __init__(self, name: str, held: dict[Any, Any]) -> None:
        self._held = held
        super().__init__(name)

    def read(self) -> dict[Any, Any]:
        return dict(self._held)

    def shown(self, key: Any) -> str:
        return self.name

    def write(self, key: Any, value: Any) -> None:
        self._held[key] = value

    def remove(self, key: Any) -> None:
        self._held.pop(key, None)

    def restore(self, traced: bool) -> None:
        super().restore(traced)
        if not traced:
            self._put_back(self.read())


class Row(Place):
    """A list, a deque or a set: one that has only grown, and not by tensors, stays."""

    def __init__(self, name: str, held: Any) -> None:
        self._held = held
        super().__init__(name)

    def read(self) -> dict[Any, Any]:
        if isinstance(self._held, set):
            return {id(value): value for value in list(self._held)}
        return dict(enumerate(list(self._held)))

    def shown(self, key: Any) -> str:
        return self.name

    def restore(self, traced: bool) -> None:
        now = self.read()
        grown = all(key in now and now[key] is value for key, value in self.before.items())
        if not grown or self.took_tensors():
            self._held.clear()
            add = self._held.update if isinstance(self._held, set) else self._held.extend
            add(list(self.before.values()))


def is_class_data(name: str, value: Any) -> bool:
    """Whether an attribute of a class is no code: no method or property, and nothing that Python itself keeps there."""
    return not ((name.startswith("__") and name.endswith("__")) or callable(value) or hasattr(value, "__get__"))


def slots_of(kind: type) -> Iterator[str]:
    """The names in ``__slots__`` of a class and its bases."""
    for part in kind.__mro__:
        slots = vars(part).get("__slots__", ())
        yield from (name for name in ([slots] if isinstance(slots, str) else slots) if not name.startswith("__"))


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (type(one) in (bool, int, float, str) and type(one) is type(other) and one == other)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not _MISSING
    except ValueError:
        return False

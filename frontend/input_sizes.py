"""Which inputs a captured graph takes: of every axis, the size or that it may vary, and on which conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import sympy
import torch

from .base.errors import InputError
from .size_conditions import holds, names_in, only_one_breaks

__all__ = ["InputSizes", "Taken", "check_inputs"]


@dataclass(frozen=True)
class Taken:
    """What stands for one input at capture: the shape of a tensor, or another value."""

    name: str
    """As the model calls it, ``x`` or ``batch['image']``."""
    shape: tuple[int | str, ...] | None
    """A number where the size is fixed; where it may vary, a name or what is computed from names, such as ``2*s77``."""
    value: Any = None
    """Of an input that is no tensor: the graph holds this value."""
    free: bool = False
    """Of an input that is no tensor: any value will do."""


@dataclass(frozen=True)
class InputSizes:
    """The inputs of a captured graph, flattened in its own order."""

    inputs: tuple[Taken, ...]
    example: tuple[tuple[str, int], ...] = ()
    """What the sizes that may vary were at capture, by name."""
    limits: tuple[tuple[str, int, int | None], ...] = ()
    """The least and the largest value of such a size, by name."""
    conditions: tuple[str, ...] = ()
    """What else must be true of them."""
    essential: tuple[str, ...] = ()
    """Those of the conditions without which shapes in the graph would be wrong."""
    reasons: tuple[str, ...] = ()
    """Why a size is fixed that was to vary."""

    def free(self) -> tuple[str, ...]:
        """The names of sizes that may vary."""
        return tuple(name for name, _ in self.example)

    def describe(self) -> tuple[str, ...]:
        """A sentence for each input that is a tensor, and the reasons."""
        lines = [_sentence(taken, self.conditions) for taken in self.inputs if taken.shape is not None]
        return (*lines, *self.reasons)

    def broken_by_one(self) -> tuple[str, ...]:
        """Conditions that hold for all small sizes but 1."""
        return tuple(c for c in self.conditions if c not in self.essential and only_one_breaks(c))

    def explained(self, reason: str) -> InputSizes:
        """The same, with why sizes are fixed that were to vary."""
        return replace(self, reasons=(*self.reasons, reason))

    def without(self, conditions: Sequence[str]) -> InputSizes:
        """The same without some conditions."""
        return replace(self, conditions=tuple(c for c in self.conditions if c not in conditions))

    def number(self, size: int | torch.SymInt) -> int:
        """A size of the graph as it was at capture; 1 for one that depends on the values of a tensor."""
        if isinstance(size, int):
            return size
        return _number(str(size.node.expr), self.example)

    def refusal(self, shapes: tuple[Any, ...]) -> str | None:
        """Why inputs of these shapes (None for values) cannot be taken: input, axis, size, and the size it needs."""
        return _refusal(self, shapes)

    def allows(self, name: str, size: int) -> bool:
        """Returns if a size that may vary may be `size`, the others being as at capture."""
        return _broken(self, dict(self.example) | {name: size}) is None


@lru_cache(maxsize=4096)
def _number(expression: str, example: tuple[tuple[str, int], ...]) -> int:
    value = sympy.sympify(expression, locals={name: sympy.Integer(size) for name, size in example})
    return int(value) if value.is_number else 1


def check_inputs(sizes: InputSizes, leaves: Sequence[Any]) -> None:
    """Raises InputError unless the graph takes `leaves`, the flattened inputs of one call."""
    if len(leaves) != len(sizes.inputs):
        names = ", ".join(taken.name for taken in sizes.inputs)
        raise InputError(f"the captured model takes {len(sizes.inputs)} inputs ({names}), not {len(leaves)}")
    shapes = []
    for taken, leaf in zip(sizes.inputs, leaves, strict=True):
        tensor = isinstance(leaf, torch.Tensor)
        if tensor != (taken.shape is not None):
            raise InputError(f"input '{taken.name}' was {_what(taken)} at capture, and is {_kind(leaf)} now")
        if not tensor and not taken.free and leaf != taken.value:
            raise InputError(
                f"input '{taken.name}' is {leaf!r}, but the model was captured with {taken.value!r}, which the graph"
                " holds; capture it with the other value"
            )
        shapes.append(tuple(leaf.shape) if tensor else None)
    refusal = sizes.refusal(tuple(shapes))
    if refusal:
        raise InputError(refusal)


def _is_name(size: int | str) -> bool:
    return isinstance(size, str) and size.isidentifier()


def _what(taken: Taken) -> str:
    return "a tensor" if taken.shape is not None else repr(taken.value)


def _kind(leaf: Any) -> str:
    return "a tensor" if isinstance(leaf, torch.Tensor) else repr(leaf)


@lru_cache(maxsize=1024)
def _refusal(sizes: InputSizes, shapes: tuple[Any, ...]) -> str | None:
    found: dict[str, int] = {}
    for taken, shape in zip(sizes.inputs, shapes, strict=True):
        if taken.shape is None:
            continue
        if len(shape) != len(taken.shape):
            return f"input '{taken.name}' has {len(shape)} axes, and needs {len(taken.shape)}: {_written(taken.shape)}"
        for axis, (size, wanted) in enumerate(zip(shape, taken.shape, strict=True)):
            needed = found.setdefault(str(wanted), size) if _is_name(wanted) else wanted
            if isinstance(needed, int) and size != needed:
                why = "" if isinstance(wanted, str) else "; capture the model with an example of that size for another"
                same = " as in the inputs before it" if isinstance(wanted, str) else ""
                return f"input '{taken.name}' has size {size} along axis {axis}, and needs {needed} there{same}{why}"
    return _computed(sizes, shapes, found) or _broken(sizes, found)


def _computed(sizes: InputSizes, shapes: tuple[Any, ...], found: Mapping[str, int]) -> str | None:
    """Axes that are computed from other axes."""
    for taken, shape in zip(sizes.inputs, shapes, strict=True):
        for axis, wanted in enumerate(taken.shape or ()):
            computed = isinstance(wanted, str) and not _is_name(wanted) and set(names_in(wanted)) <= set(found)
            if computed and not holds(f"({wanted}) == {shape[axis]}", found):
                return f"input '{taken.name}' has size {shape[axis]} along axis {axis}, and needs {wanted} there"
    return None


def _broken(sizes: InputSizes, found: Mapping[str, int]) -> str | None:
    """Which limit or condition these sizes break."""
    for name, low, high in sizes.limits:
        size = found.get(name)
        if size is not None and (size < low or (high is not None and size > high)):
            most = f"at most {high}" if high is not None and size > high else f"at least {low}"
            return f"{_place(sizes, name)} has size {size}, and needs {most} there"
    for condition in sizes.conditions:
        named = names_in(condition)
        if set(named) <= set(found) and not holds(condition, found):
            place = _place(sizes, named[0])
            return (
                f"{place} has size {found[named[0]]}, for which the model takes another way than for the example: the"
                f" captured graph needs {condition.replace(named[0], 'the size')}; capture it with an example of that size"
            )
    return None


def _place(sizes: InputSizes, name: str) -> str:
    places = ((taken, taken.shape.index(name)) for taken in sizes.inputs if taken.shape and name in taken.shape)
    taken, axis = next(places)
    return f"input '{taken.name}' along axis {axis}"


def _written(shape: tuple[int | str, ...]) -> str:
    return "x".join(str(size) if isinstance(size, int) else "N" for size in shape) or "a number"


def _sentence(taken: Taken, conditions: tuple[str, ...]) -> str:
    assert taken.shape is not None
    free = [axis for axis, size in enumerate(taken.shape) if isinstance(size, str)]
    if not free:
        return f"input '{taken.name}': {_written(taken.shape)}, all sizes are fixed"
    axes = ", ".join(map(str, free))
    which = f"axis {axes} may vary" if len(free) == 1 else f"axes {axes} may vary"
    about = [c for c in conditions if any(taken.shape[axis] in names_in(c) for axis in free)]
    limits = f" where {' and '.join(about)}" if about else ""
    return f"input '{taken.name}': {_written(taken.shape)}, {which}{limits}"

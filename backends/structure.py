"""Containers, and plain values in them, around the tensors that a model takes or gives; also as plain data.

A compiled program takes tensors and gives tensors. Models take and give dicts, named tuples, lists, None and numbers as well.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from dataclasses import fields as dataclass_fields
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ..frontend.base.errors import InputError
from ..frontend.base.json_text import json_array, json_object, json_text, shortened
from ..frontend.containers import Fields, fields_of, keys_of

__all__ = ["TENSOR", "Structure", "structure_of"]

Kind = Literal["tensor", "value", "tuple", "list", "dict", "fields"]


@dataclass(frozen=True)
class Structure:
    """A tensor, a plain value, or a container of such.

    Attributes:
        kind: ``fields`` for what has them by name: named tuples and dataclasses.
        entries: of a container, in order.
        keys: of its entries: a dict's keys, names of fields.
        value: of a plain value: None, a number, a bool or a string.
        name: of the class, for ``fields``.
        make: gives the container that the model gives, for its entries.
    """

    kind: Kind
    entries: tuple[Structure, ...] = ()
    keys: tuple[Any, ...] = ()
    value: Any = None
    name: str = ""
    make: Callable[[Sequence[Any]], Any] | None = field(default=None, compare=False, repr=False)

    @property
    def tensors(self) -> int:
        """How many there are."""
        return 1 if self.kind == "tensor" else sum(entry.tensors for entry in self.entries)

    def paths(self) -> Iterator[tuple[Structure, tuple[Any, ...]]]:
        """Every tensor and plain value, and what leads to it: keys, which are text here, and places, which are numbers."""
        if self.kind in ("tensor", "value"):
            yield self, ()
        for step, entry in zip(self._steps(), self.entries, strict=True):
            for leaf, path in entry.paths():
                yield leaf, (step, *path)

    def built(self, tensors: Iterator[Any]) -> Any:
        """What the model gives, with the next of `tensors` in their places."""
        if self.kind == "tensor":
            return next(tensors)
        if self.kind == "value":
            return self.value
        entries = [entry.built(tensors) for entry in self.entries]
        if self.make is not None:
            return self.make(entries)
        if self.kind == "dict":
            return dict(zip(self.keys, entries, strict=True))
        return entries if self.kind == "list" else tuple(entries)

    def taken(self, value: Any, what: str) -> list[Any]:
        """What stands in `value` in the places of tensors.

        Args:
            what: names `value` in errors.

        Raises:
            InputError: it is made otherwise, or a plain value is another one.
        """
        if self.kind == "tensor":
            return [value]
        if self.kind == "value":
            if not _same(value, self.value):
                raise InputError(
                    f"{what} is {_short(value)}, but the model was compiled for {_short(self.value)}; give that, or compile it"
                    " for the other"
                )
            return []
        steps, entries = self._steps(), self._entries_of(value, what)
        pairs = zip(self.entries, entries, steps, strict=True)
        return [leaf for entry, part, step in pairs for leaf in entry.taken(part, _within(what, step))]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        if self.kind == "tensor":
            return {"kind": "tensor"}
        if self.kind == "value":
            # JSON has no infinity and no NaN.
            special = isinstance(self.value, float) and not math.isfinite(self.value)
            return {"kind": "value", "float" if special else "value": str(self.value) if special else self.value}
        found: dict[str, Any] = {"kind": self.kind}
        if self.kind == "fields":
            found["name"] = self.name
        if self.keys:
            found["keys"] = list(self.keys)
        return {**found, "entries": [entry.plain() for entry in self.entries]}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Structure:
        """What `plain` gave. Named tuples and dataclasses come back as named tuples with the same fields.

        Raises:
            ValueError: it did not give that.
        """
        kind: Any = json_text(json_object(data).get("kind"), "the kind of a structure", get_args(Kind))
        if kind == "tensor":
            json_object(data, ("kind",))
            return TENSOR
        if kind == "value":
            return cls(
                "value", value=_plain_value(json_object(data, ("kind", "float" if "float" in data else "value")))
            )
        named = ("name",) if kind == "fields" else ()
        keyed = ("keys",) if "keys" in data else ()
        fields = json_object(data, ("kind", "entries", *keyed, *named))
        entries = tuple(cls.from_plain(entry) for entry in json_array(fields["entries"]))
        keys = tuple(json_array(fields["keys"])) if keyed else ()
        if any(not isinstance(key, None | bool | int | float | str) for key in keys) or len(set(keys)) < len(keys):
            raise ValueError(f"the keys {shortened(keys)}")
        if len(keys) != (len(entries) if kind in ("dict", "fields") else 0):
            raise ValueError(f"{len(keys)} keys of {len(entries)} entries")
        if kind != "fields":
            return cls(kind, entries, keys)
        name = json_text(fields["name"], "a name")
        made = namedtuple(name, [json_text(key, "a field") for key in keys])  # type: ignore[misc] # Refuses what is no name.
        return cls(kind, entries, keys, name=name, make=made._make)

    def _steps(self) -> Sequence[Any]:
        return [str(key) for key in self.keys] if self.keys else range(len(self.entries))

    def _entries_of(self, value: Any, what: str) -> list[Any]:
        if self.kind == "fields" and not isinstance(value, Mapping | tuple | list):
            if missing := [name for name in self.keys if not hasattr(value, name)]:
                raise InputError(f"{what} has no '{missing[0]}'; it must be a {self.name}, got {_described(value)}")
            return [getattr(value, name) for name in self.keys]
        if self.kind == "dict" or (self.kind == "fields" and isinstance(value, Mapping)):
            if not isinstance(value, Mapping):
                raise InputError(f"{what} must be a dict with {_listed(self.keys)}, got {_described(value)}")
            if missing := [key for key in self.keys if key not in value]:
                raise InputError(f"{what} lacks {missing[0]!r}; it must have {_listed(self.keys)}")
            if unknown := [key for key in value if key not in self.keys]:
                raise InputError(
                    f"{what} has {unknown[0]!r}, which it had not when the model was compiled; it must have"
                    f" {_listed(self.keys)}"
                )
            return [value[key] for key in self.keys]
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != len(self.entries):
            raise InputError(
                f"{what} must be a {self.name or self.kind} of {len(self.entries)}, got {_described(value)}"
            )
        return list(value)


TENSOR = Structure("tensor")


def _plain_value(fields: Mapping[str, Any]) -> Any:
    if "float" in fields:
        return float(json_text(fields["float"], "a number", ("nan", "inf", "-inf")))
    if not isinstance(fields["value"], None | bool | int | float | str):
        raise ValueError(f"the value {shortened(fields['value'])}")
    return fields["value"]


def structure_of(spec: pytree.TreeSpec, leaves: Iterator[Structure]) -> Structure:
    """The structure that torch describes by `spec`, with the next of `leaves`, tensors and plain values, as its leaves."""
    if spec.is_leaf():
        return next(leaves)
    entries = [structure_of(child, leaves) for child in spec.children()]
    make = partial(_remade, spec.type, spec.context)
    if spec.type is list:
        return Structure("list", tuple(entries), make=make)
    fields = fields_of(spec)
    if fields is not None and is_dataclass(spec.type):
        return _of_dataclass(spec, fields, entries)
    if fields is not None:
        return Structure("fields", tuple(entries), fields.names, name=fields.name, make=make)
    keys = keys_of(spec)
    if keys is not None:
        return Structure("dict", tuple(entries), keys, make=make)
    return Structure("tuple", tuple(entries), make=make)


def _of_dataclass(spec: pytree.TreeSpec, found: Fields, entries: Sequence[Structure]) -> Structure:
    """With the fields that are None, which torch leaves out."""
    names = tuple(entry.name for entry in dataclass_fields(spec.type))
    present = [name in found.names for name in names]

    def make(values: Sequence[Any]) -> Any:
        return _remade(spec.type, spec.context, [v for v, there in zip(values, present, strict=True) if there])

    by_name = dict(zip(found.names, entries, strict=True))
    parts = tuple(by_name.get(name, Structure("value")) for name in names)
    return Structure("fields", parts, names, name=found.name, make=make)


def _remade(kind: type, context: Any, entries: Sequence[Any]) -> Any:
    return pytree.SUPPORTED_NODES[kind].unflatten_fn(entries, context)


def _same(value: Any, expected: Any) -> bool:
    if isinstance(value, np.bool_ | np.number):
        value = value.item()
    if isinstance(value, torch.Tensor | np.ndarray) or isinstance(value, bool) != isinstance(expected, bool):
        return False
    return bool(value == expected) or (value != value and expected != expected)


def _described(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, Sequence | Mapping) and not isinstance(value, str) else ""
    return f"{type(value).__name__}{size}"


def _short(value: Any) -> str:
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value)[:60] if plain else f"a {type(value).__name__}"


def _within(what: str, step: Any) -> str:
    """``'batch.image'`` within ``input 'batch'``."""
    return f"{what[:-1]}.{step}'" if what.endswith("'") else f"{what}.{step}"


def _listed(keys: Sequence[Any]) -> str:
    return ", ".join(repr(key) for key in keys)

"""Containers with names, such as named tuples and dataclasses, in what a program takes and gives.

A ``.pt2`` file names classes by Python's names for them, and whoever reads it must have these. So our files hold tuples in
their place, which everybody reads, and the names of the fields beside the program, from which named tuples and dataclasses
(`Record`) are made again.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from keyword import iskeyword
from typing import Any

from torch.export import ExportedProgram
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

__all__ = ["Fields", "Record", "fields_of", "keys_of", "with_names", "without_classes"]

_PLAIN = (tuple, list, dict, OrderedDict)


@dataclass(frozen=True)
class Fields:
    """The name of a class, those of its fields that hold something, and of a dataclass those that are None as well."""

    name: str
    names: tuple[str, ...]
    all: tuple[str, ...] | None = None


class Record:
    """Stands for a dataclass of somebody's that a file told of: with its name and its fields, those that are None too.

    As with the outputs of transformers, ``[name]`` and ``[place]`` give the fields that are not None.
    """

    def __getitem__(self, key: int | str) -> Any:
        found = {name: value for name, value in vars(self).items() if value is not None}
        return found[key] if isinstance(key, str) else list(found.values())[key]


def fields_of(spec: pytree.TreeSpec) -> Fields | None:
    """Of a named tuple, a result of torch's such as that of ``max``, or a dataclass."""
    kind = spec.context if spec.type is namedtuple else spec.type
    names: tuple[Any, ...]
    every: tuple[str, ...] | None = None
    if dataclasses.is_dataclass(kind):
        names = keys_of(spec) or ()
        every = tuple(field.name for field in dataclasses.fields(kind))
        if not all(map(_usable, every)):
            return None
    elif issubclass(kind, tuple):
        names = tuple(getattr(kind, "_fields", None) or getattr(kind, "__match_args__", None) or ())
    else:
        return None
    fit = len(names) == spec.num_children and all(map(_usable, names))
    return Fields(kind.__name__ if _usable(kind.__name__) else "Fields", tuple(names), every) if fit and names else None


def _usable(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and not iskeyword(name) and not name.startswith("_")


def keys_of(spec: pytree.TreeSpec) -> tuple[Any, ...] | None:
    """Keys, or names, of the entries of a dict, or of another container that a library has told torch of; None if they have
    none.
    """
    node = pytree.SUPPORTED_NODES[spec.type]
    if node.flatten_with_keys_fn is not None:
        container = node.unflatten_fn(range(spec.num_children), spec.context)
        steps = [step for step, _ in node.flatten_with_keys_fn(container)[0]]
        found = tuple(getattr(step, "key", getattr(step, "name", None)) for step in steps)
    else:
        found = tuple(spec.context) if isinstance(spec.context, list | tuple) else ()
    keyed = bool(found) or spec.type in (dict, OrderedDict)
    # Other keys would not come back from JSON as what they were.
    fit = keyed and len(found) == spec.num_children and all(isinstance(key, str | int) for key in found)
    return found if fit else None


def without_classes(program: ExportedProgram) -> tuple[ExportedProgram, dict[str, Any] | None]:
    """The program with plain containers for classes, and the names that they had, as JSON has them; None if there were none."""
    taken, given = program.call_spec.in_spec, program.call_spec.out_spec
    names = {"inputs": _names(taken), "outputs": _names(given)}
    if not any(names.values()):
        return program, None
    return _with_specs(program, _plain(taken), _plain(given)), names


def with_names(program: ExportedProgram, names: Mapping[str, Any]) -> ExportedProgram:
    """The program with named tuples and records again, where `without_classes` found names.

    Raises:
        KeyError, TypeError, ValueError: these are not the names of what the program takes and gives.
    """
    taken, given = program.call_spec.in_spec, program.call_spec.out_spec
    return _with_specs(program, _named(taken, names["inputs"]), _named(given, names["outputs"]))


def _with_specs(program: ExportedProgram, taken: pytree.TreeSpec, given: pytree.TreeSpec) -> ExportedProgram:
    changed = copy.copy(program)
    first, *others = program.module_call_graph
    signature = dataclasses.replace(first.signature, in_spec=taken, out_spec=given)  # type: ignore[type-var]
    changed._module_call_graph = [dataclasses.replace(first, signature=signature), *others]
    if program.example_inputs:
        args, kwargs = pytree.tree_unflatten(pytree.tree_leaves(program.example_inputs), taken)
        changed._example_inputs = (tuple(args), kwargs)
    return changed


def _names(spec: pytree.TreeSpec) -> Any:
    """None, or what is named in the entries of a container, and the names of its own fields."""
    if spec.is_leaf():
        return None
    entries = [_names(child) for child in spec.children()]
    fields = None if spec.type in _PLAIN else fields_of(spec)
    if fields is not None and fields.all is not None:
        nothing = [name for name in fields.all if name not in fields.names]
        return {"name": fields.name, "fields": list(fields.all), "none": nothing, "entries": entries}
    if fields is not None:
        return {"name": fields.name, "fields": list(fields.names), "entries": entries}
    return {"entries": entries} if spec.type not in _PLAIN or any(entries) else None


def _plain(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    if spec.is_leaf():
        return spec
    entries = [_plain(child) for child in spec.children()]
    if spec.type in _PLAIN:
        return pytree.TreeSpec(spec.type, spec.context, entries)
    keys = keys_of(spec) if fields_of(spec) is None else None
    kind, context = (tuple, None) if keys is None else (dict, list(keys))
    return pytree.TreeSpec(kind, context, entries)


def _named(spec: pytree.TreeSpec, names: Any) -> pytree.TreeSpec:
    if names is None:
        return spec
    entries = [_named(child, entry) for child, entry in zip(spec.children(), names["entries"], strict=True)]
    if "fields" not in names:
        return pytree.TreeSpec(spec.type, spec.context, entries)
    name, fields = str(names["name"]), tuple(map(str, names["fields"]))
    nothing = list(map(str, names.get("none", ())))
    held = [field for field in fields if field not in nothing]
    made = namedtuple(name, fields)  # type: ignore[misc] # Refuses what is no name.
    if spec.type is not tuple or len(held) != len(entries) or len(held) + len(nothing) != len(fields):
        raise ValueError(f"fields {names['fields']} of a {spec.type.__name__} of {len(entries)}")
    if "none" not in names:
        return pytree.TreeSpec(namedtuple, made, entries)
    return pytree.TreeSpec(_record(name, fields), [held, nothing], entries)


@cache
def _record(name: str, fields: tuple[str, ...]) -> type:
    """A dataclass of these fields that torch knows. It takes apart whatever has them, under whatever class."""
    made = dataclasses.make_dataclass(name, [(field, Any, None) for field in fields], bases=(Record,))
    pytree.register_dataclass(made)
    fx_pytree.register_pytree_flatten_spec(
        made, lambda given, spec: [_field(given, place, field) for place, field in enumerate(spec.context[0])]
    )
    return made


def _field(given: Any, place: int, name: str) -> Any:
    if isinstance(given, tuple | list) and not hasattr(given, name):
        return given[place]
    return given[name] if isinstance(given, Mapping) else getattr(given, name)

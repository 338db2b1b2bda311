"""What the graph of an exported program takes: inputs, sizes, and the conditions that torch.export wrote down."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from .input_sizes import InputSizes, Taken
from .size_conditions import names_in, only_one_breaks, readable

__all__ = ["deciding_line", "sizes_of", "without_fussy_conditions"]

_SIZE = re.compile(r"L((?:\[[^\]]+\]|\.\w+)+)\.size\(\)\[(\d+)\]")
"""How torch.export writes one axis of an input in a condition: ``L['x'][0].size()[1]``."""


def sizes_of(
    module: fx.GraphModule,
    program: torch.export.ExportedProgram,
    values: Sequence[Any] | None,
    renamed: Mapping[str, str],
) -> InputSizes:
    """The inputs of `module`, which is the graph of `program`; `values` are the example inputs, flattened, if there are.

    `renamed` gives the symbols of the module for those of the program (see `symbols.restate_sizes`).

    Conditions that cannot be read hold what they are about at the example's sizes.
    """
    holders = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    names, paths = _names(module, program)
    taken: list[Taken] = []
    example: dict[str, int] = {}
    shapes: dict[str, tuple[Any, ...]] = {}
    for name, path, holder, value in zip(names, paths, holders, values or holders, strict=True):
        if not isinstance(holder, torch.Tensor):
            plain = isinstance(value, bool | int | float | str | None) and not isinstance(holder, torch.SymInt)
            taken.append(Taken(name, None, value if plain else None, free=not plain))
            continue
        shape = tuple(size if isinstance(size, int) else str(size.node.expr) for size in holder.shape)
        shapes[path] = shape
        sizes = value.shape if isinstance(value, torch.Tensor) else [_hint(size) for size in holder.shape]
        example |= {str(name): int(size) for name, size in zip(shape, sizes, strict=True) if str(name).isidentifier()}
        taken.append(Taken(name, shape))
    conditions = tuple(
        dict.fromkeys(filter(None, (_in_names(text, shapes) for text in getattr(program, "_guards_code", ()) or ())))
    )
    essential = _unsqueezed(module.graph)
    conditions += tuple(condition for condition in essential if condition not in conditions)
    conditions = tuple(c for c in conditions if not _always(c))
    known = tuple(c for c in conditions if readable(c) and set(names_in(c)) <= set(example))
    if len(known) < len(conditions):
        known += tuple(f"{name} == {size}" for name, size in example.items())
    return InputSizes(tuple(taken), tuple(example.items()), _limits(program, example, renamed), known, essential)


def _hint(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _names(module: fx.GraphModule, program: torch.export.ExportedProgram) -> tuple[list[str], list[str]]:
    """For every flattened input, the name a person knows it by, and the path that torch.export writes."""
    spec = program.call_spec.in_spec
    roots = list(inspect.signature(module.forward).parameters)
    leaves = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))[0]
    names, paths = [], []
    for keys, _ in leaves:
        first = keys[1]
        root = str(first.key) if isinstance(first, pytree.MappingKey) else roots[first.idx]  # type: ignore[attr-defined]
        rest = pytree.keystr(keys[2:])
        names.append(f"{root}{rest}")
        star = re.fullmatch(r"(\w+)_(\d+)", root)
        paths.append(f"['{root}']{rest}")
        if star and isinstance(first, pytree.SequenceKey) and root not in _parameters(program):
            paths[-1] = f"['{star[1]}'][{star[2]}]{rest}"
    return names, paths


def _parameters(program: torch.export.ExportedProgram) -> set[str]:
    """Names that conditions of the program speak of as inputs."""
    return {
        match[1].split("'")[1]
        for text in getattr(program, "_guards_code", ()) or ()
        for match in _SIZE.finditer(text)
        if "'" in match[1]
    }


def _in_names(text: str, shapes: Mapping[str, tuple[Any, ...]]) -> str:
    """A condition about ``L['x'].size()[0]`` as one about the names of sizes."""

    def named(match: re.Match[str]) -> str:
        shape = shapes.get(match[1])
        return f"({shape[int(match[2])]})" if shape is not None else match[0]

    found = _SIZE.sub(named, text)
    return re.sub(r"\((\w+)\)", r"\1", found)


def _always(condition: str) -> bool:
    """``s77 == s77``, which is left of "as many as in the other input"."""
    left, equal, right = condition.partition(" == ")
    return bool(equal) and left == right


def _limits(
    program: torch.export.ExportedProgram, example: Mapping[str, int], renamed: Mapping[str, str]
) -> tuple[tuple[str, int, int | None], ...]:
    """torch.export writes 2 where it only means that 1 was not looked at; so does its own check of inputs."""
    limits = []
    for symbol, bounds in program.range_constraints.items():
        name = renamed.get(str(symbol), str(symbol))
        if name in example:
            low = int(bounds.lower) if bounds.lower.is_finite and int(bounds.lower) > 2 else 1
            high = int(bounds.upper) if isinstance(bounds.upper, sympy.Integer) else None
            limits.append((name, low, high))
    return tuple(limits)


def _unsqueezed(graph: fx.Graph) -> tuple[str, ...]:
    """``squeeze`` keeps an axis whose size may vary, which is wrong for a size of 1."""
    found: dict[str, None] = {}
    for node in graph.nodes:
        if node.op == "call_function" and str(node.target).startswith("aten.squeeze"):
            sizes = node.args[0].meta["val"].shape
            named = node.args[1] if len(node.args) > 1 else range(len(sizes))
            for axis in [named] if isinstance(named, int) else named:
                size = sizes[axis]
                if not isinstance(size, int):
                    found[f"{size.node.expr} != 1"] = None
    return tuple(found)


def without_fussy_conditions(program: torch.export.ExportedProgram) -> list[str]:
    """A program's conditions without those that operators make and that hold for all small sizes but 1."""
    texts = list(getattr(program, "_guards_code", ()) or ())
    return [text for text in texts if not only_one_breaks(_SIZE.sub(lambda match: f"s{match[2]}", text))]


def deciding_line(program: torch.export.ExportedProgram) -> str:
    """Where a program that was just exported decides by a size, as `` (model.py:12 in forward)``; empty if it does not."""
    values = (node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder")
    environment = next((v.fake_mode.shape_env for v in values if isinstance(v, FakeTensor)), None)
    guards = environment.guards if environment is not None else ()
    places = [str(guard.sloc) for guard in guards if isinstance(guard.expr, sympy.Eq | sympy.Ne | sympy.Rel)]
    own = [place for place in places if "_ops.py" not in place and "_subclasses" not in place]
    return f" {own[0]}" if own else ""

"""Attributes of a model that are no buffers: what a forward pass keeps there, no graph can carry."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from .base.errors import CaptureError

__all__ = [
    "attributes_of",
    "call_outputs",
    "changed_attributes",
    "check_kept_attributes",
    "close_outputs",
    "other_inputs",
    "tensors_in_attributes",
]


Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Of one call: by position and by keyword."""


def check_kept_attributes(
    model: nn.Module, program: ExportedProgram, inputs: Arguments, changed: Sequence[str]
) -> None:
    """Compares `model`, whose forward pass changes attributes, with its program over three calls in turn.

    Attributes that hold the same after every call with the same inputs (anchors of a detector, attention that is kept to be
    looked at) are no state, nor are counts that nothing depends on. `model` is left as it was.

    Raises:
        CaptureError: a result depends on an attribute that an earlier call left, or may do so later.
    """
    if not changed:
        return
    other = tree_map(_other, inputs)
    with torch.no_grad(), suppress(_NotComparable):
        with _left_as_it_was(model):
            expected = [_called(model, inputs), _called(model, other)]
            second = _named(model, changed)
            expected.append(_called(model, other))
            third = _named(model, changed)
            moving = [name for name in changed if not _same(second[name], third[name])]
            counters = [name for name in moving if type(third[name]) in (int, float)]
            for name in counters:  # Does a count decide anything later?
                _set(model, name, third[name] + _LATER)
            expected.append(_called(model, other))
        with _left_as_it_was(model):
            graph = program.module(check_guards=False)
            found = [_called(graph, call) for call in (inputs, other, other, other)]
        wrong = [name for name in moving if name not in counters]
        if not wrong and not all(map(_close, expected, found)):
            wrong = moving or list(changed)
        if wrong:
            words = f"attribute '{wrong[0]}' is" if len(wrong) == 1 else f"attributes {', '.join(map(repr, wrong))} are"
            last = wrong[0].rpartition(".")[2]
            raise CaptureError(
                f"{words} kept from one call to the next{_assignment(model, wrong[0])}; only buffers are state that a graph"
                f" can carry: self.register_buffer('{last}', torch.zeros(...)) in __init__, and write a tensor of that shape"
            )


_LATER = 1000
"""Calls after which what a model counts is looked at again."""


class _NotComparable(Exception):
    """A second call, or one with other numbers, does not run."""


def _other(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return torch.rand(value.shape, generator=torch.Generator().manual_seed(0)).to(value) if floating else value


def _called(module: nn.Module, inputs: Arguments) -> list[torch.Tensor]:
    args, kwargs = inputs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            found = module(*args, **kwargs)
        except Exception:
            raise _NotComparable from None
    return [leaf.clone() for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]


def other_inputs(inputs: Arguments) -> Arguments:
    """The inputs with other numbers where they are floating-point."""
    other: Arguments = tree_map(_other, inputs)
    return other


def call_outputs(module: nn.Module, inputs: Arguments) -> list[torch.Tensor] | None:
    """The tensors that a call gives, with the same draws every time; None if it does not run."""
    try:
        return _called(module, inputs)
    except _NotComparable:
        return None


def close_outputs(expected: Sequence[torch.Tensor] | None, found: Sequence[torch.Tensor] | None) -> bool:
    """Whether both ran, and results are the same but for rounding."""
    return expected is not None and found is not None and _close(expected, found)


def _close(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> bool:
    """Whether results are the same but for rounding."""
    return all(
        one.shape == other.shape and torch.allclose(one, other.to(one.dtype), 1e-3, 1e-5, equal_nan=True)
        for one, other in zip(expected, found, strict=True)
    )


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    before = {part: (attributes_of(part), dict(part._buffers)) for part in model.modules()}
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for part, (attributes, buffers) in before.items():
            for name in attributes_of(part).keys() - attributes.keys():
                del vars(part)[name]
            vars(part).update(attributes)
            part._buffers.clear()
            part._buffers.update(buffers)
        for buffer, value in values:
            buffer.copy_(value)


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """What a module has beside parameters, buffers, modules and hooks; containers are copied."""
    standard = _STANDARD | _computed_weights(module)
    return {name: tree_map(lambda leaf: leaf, value) for name, value in vars(module).items() if name not in standard}


_STANDARD = frozenset(vars(nn.Module()))


def _computed_weights(module: nn.Module) -> set[str]:
    """Weights that a hook computes before each call (``torch.nn.utils.prune``, weight and spectral norm)."""
    hooks = module._forward_pre_hooks.values()
    return {str(getattr(hook, "_tensor_name", getattr(hook, "name", ""))) for hook in hooks}


def changed_attributes(model: nn.Module, before: Mapping[nn.Module, Mapping[str, Any]]) -> list[str]:
    """Dotted names of the attributes that are not as they were. Their tensors have no values while they are traced."""
    found = []
    for prefix, part in model.named_modules():
        old = before.get(part, {})
        for name, value in attributes_of(part).items():
            if not _same(old.get(name, _NotComparable), value):
                found.append(f"{prefix}.{name}".lstrip("."))
    return found


def _named(model: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """Copies of attributes by their dotted names."""
    parts = dict(model.named_modules())
    found = {}
    for name in names:
        prefix, _, last = name.rpartition(".")
        value = vars(parts[prefix]).get(last)
        found[name] = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value)
    return found


def tensors_in_attributes(model: nn.Module) -> list[torch.Tensor]:
    """All tensors that are neither parameters nor buffers."""
    leaves = [leaf for part in model.modules() for leaf in tree_leaves(attributes_of(part))]
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor)]


def _set(model: nn.Module, name: str, value: Any) -> None:
    prefix, _, last = name.rpartition(".")
    setattr(dict(model.named_modules())[prefix], last, value)


def _same(first: Any, second: Any) -> bool:
    """Whether two attributes are the same, as far as that can be told of values of any kind."""
    one, structure = tree_flatten(first)
    other, other_structure = tree_flatten(second)
    return structure == other_structure and all(map(_same_leaf, one, other))


def _same_leaf(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        traced = any(isinstance(tensor, FakeTensor | FunctionalTensor) for tensor in (first, second))
        return not traced and _close([first], [second])
    if isinstance(first, bool | int | float | str) or isinstance(second, bool | int | float | str):
        return type(first) is type(second) and first == second
    return type(first) is type(second)


def _assignment(model: nn.Module, name: str) -> str:
    """Where the source of a module assigns to its attribute, as `` at file.py:12``; empty if that is not found."""
    prefix, _, last = name.rpartition(".")
    kind = type(dict(model.named_modules())[prefix])
    with suppress(OSError, TypeError, SyntaxError):
        lines, first = inspect.getsourcelines(kind)
        functions = (
            node for node in ast.walk(ast.parse(textwrap.dedent("".join(lines)))) if isinstance(node, ast.FunctionDef)
        )
        for node in (node for function in functions if function.name != "__init__" for node in ast.walk(function)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == last:
                return f" at {inspect.getsourcefile(kind)}:{first + node.lineno - 1}"
    return ""

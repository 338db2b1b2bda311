"""Whether the values of a stored graph are what its file says, and no larger than the limits: found without their numbers.

A file describes every value of its graph, and all analyses go by that. So each call is made once on tensors without
contents, with the sizes of the example inputs, and what it gives is compared with the description.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import fx
from torch._subclasses import fake_tensor
from torch.utils import _pytree as pytree

from .base.errors import InputError
from .base.limits import check_limit
from .base.torch_logs import FAILURES, quiet
from .graph_module import CapturedModule

__all__ = ["check_values"]

_UNKNOWN = object()
"""Of a value that depends on the numbers of others, or on an operator that cannot be followed without them."""

_NOT_FOLLOWED = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
    fake_tensor.UnsupportedOperatorException,
    fake_tensor.UnsupportedFakeTensorException,
    fake_tensor.UnsupportedMutationAliasingException,
    torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode,
    NotImplementedError,
)


def check_values(module: CapturedModule, what: str) -> None:
    """Raises InputError if a value of the graph is larger than the limits allow, is another one than its description says, or
    cannot be computed. `what` begins the message.
    """
    for graph in _graphs(module):
        for node in graph.nodes:
            for value in pytree.tree_leaves(node.meta.get("val")):
                _check_size(value, f"{what}: its value '{node.name}'")
    inputs = module.meta.get("example_inputs")
    with torch.no_grad(), quiet(*FAILURES), fake_tensor.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        given = iter(module._flattened(inputs, {}) if inputs is not None else ())
        found: dict[fx.Node, Any] = {}
        for node in module.graph.nodes:
            if node.op == "placeholder":
                found[node] = _without_numbers(mode, next(given, _UNKNOWN))
            elif node.op == "get_attr":
                found[node] = _without_numbers(mode, attrgetter(str(node.target))(module))
            elif node.op == "call_function":
                found[node] = _called(node, found, what)
            else:
                continue
            _compare(node, found[node], what)


def _graphs(module: fx.GraphModule) -> list[fx.Graph]:
    return [part.graph for part in module.modules() if isinstance(part, fx.GraphModule)]


def _without_numbers(mode: fake_tensor.FakeTensorMode, value: Any) -> Any:
    if isinstance(value, torch.nn.Module):
        return _UNKNOWN
    if not isinstance(value, torch.Tensor):
        return value
    try:
        return mode.from_tensor(value.detach(), static_shapes=True)
    except _NOT_FOLLOWED:
        return _UNKNOWN


def _called(node: fx.Node, found: Mapping[fx.Node, Any], what: str) -> Any:
    """What a call gives, without its numbers."""
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), found.__getitem__)
    target = node.target
    if any(leaf is _UNKNOWN for leaf in pytree.tree_leaves((args, kwargs))):
        return _UNKNOWN
    if isinstance(target, torch._ops.HigherOrderOperator) or not callable(target):
        return _UNKNOWN
    try:
        check_limit("records", _pieces(target, args, kwargs), f"{what}: its call '{node.name}'")
        value = target(*args, **kwargs)
    except InputError:
        raise
    except _NOT_FOLLOWED:
        return _UNKNOWN
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{what}: its call '{node.name}' of {target} cannot be made: {reason}; it is damaged"
        ) from None
    for leaf in pytree.tree_leaves(value):
        _check_size(leaf, f"{what}: its value '{node.name}'")
    return value


def _check_size(value: Any, what: str) -> None:
    if not isinstance(value, torch.Tensor) or not all(isinstance(size, int) for size in value.shape):
        return
    check_limit("value", math.prod(value.shape) * value.element_size(), what)


def _compare(node: fx.Node, value: Any, what: str) -> None:
    """Sizes that vary are not compared: the file has names for them."""
    if value is _UNKNOWN or "val" not in node.meta:
        return
    said, computed = pytree.tree_leaves(node.meta["val"]), pytree.tree_leaves(value)
    same = len(said) == len(computed) and all(map(_is_as_said, said, computed))
    if not same:
        raise InputError(
            f"{what}: it says that '{node.name}' is {_described(said)}, and it is {_described(computed)}; it is damaged"
        )


def _is_as_said(said: Any, computed: Any) -> bool:
    if not isinstance(said, torch.Tensor) or not isinstance(computed, torch.Tensor):
        return isinstance(said, torch.Tensor) == isinstance(computed, torch.Tensor)
    sizes = zip(said.shape, computed.shape, strict=False)
    fits = all(not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in sizes)
    return said.dtype == computed.dtype and said.dim() == computed.dim() and fits


def _described(values: list[Any]) -> str:
    def one(value: Any) -> str:
        if not isinstance(value, torch.Tensor):
            return str(value)[:60].partition("\n")[0]
        return f"{str(value.dtype).removeprefix('torch.')} {'x'.join(map(str, value.shape)) or 'scalar'}"

    return ", ".join(map(one, values[:3])) or "nothing"


def _pieces(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """How many values a call splits its first operand into; more than the limit would be objects without end."""
    name = str(target).removeprefix("aten.").partition(".")[0].removeprefix("unsafe_")
    count = _PIECES.get(name)
    if count is None or not isinstance(target, torch._ops.OpOverload):
        return 0
    names = [argument.name for argument in target._schema.arguments]
    given = {
        argument.name: argument.default_value for argument in target._schema.arguments if argument.has_default_value()
    }
    given |= dict(zip(names, args, strict=False)) | dict(kwargs)
    return count(given)


def _extent(given: Mapping[str, Any]) -> int:
    shape = given["self"].shape
    return int(shape[given.get("dim", 0)]) if len(shape) else 1


_PIECES: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "unbind": _extent,
    "chunk": lambda given: min(int(given["chunks"]), _extent(given)),
    "split": lambda given: (
        _extent(given) // max(1, given["split_size"]) if isinstance(given.get("split_size"), int) else 0
    ),
    "tensor_split": lambda given: int(given["sections"]) if isinstance(given.get("sections"), int) else 0,
}

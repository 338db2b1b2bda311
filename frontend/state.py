"""State: what a forward pass keeps for the next one. In buffers it is a part of the graph; elsewhere it is refused by name.

``torch.export`` sees writes in place, and assignments to buffers of the outermost module only. Here assignments to all
buffers become writes, and what a graph has no form for is refused: a buffer that changes its shape or type, and memory that
two buffers share. Attributes that are no buffers are in `attributes`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from .attributes import attributes_of, changed_attributes, tensors_in_attributes
from .base.errors import CaptureError
from .capture_errors import written_parameter
from .source_line import source_line
from .writes import written_operands, written_places

__all__ = ["Traced", "own_state", "state_of", "tracing_state"]


@dataclass
class Traced:
    """What one traced forward pass did to its module.

    Attributes:
        attributes: those it changed that are no buffers, by dotted name.
    """

    attributes: list[str] = field(default_factory=list)


@contextmanager
def tracing_state(model: nn.Module) -> Iterator[Traced]:
    """Within the block, a forward pass of `model` that is traced writes to the buffers that it assigns.

    Raises:
        CaptureError: inside the forward pass, for a buffer that another shape, type or memory is assigned to, and for a
            parameter that anything is assigned to.
    """
    traced = Traced()
    lines: dict[tuple[nn.Module, str], str] = {}
    before: dict[nn.Module, tuple[dict[str, Any], dict[str, Any]]] = {}
    parameters: dict[nn.Module, dict[str, Any]] = {}
    places: list[tuple[str, torch.Tensor, Any]] = []

    def begin(module: nn.Module, *_: Any) -> None:
        places[:] = [(title, tensor, _memory(tensor)) for title, _, _, tensor in _stored(model)]
        before.update((part, (dict(part._buffers), attributes_of(part))) for part in model.modules())
        parameters.update((part, dict(part._parameters)) for part in model.modules())

    def assigned(module: nn.Module, name: str, buffer: Any) -> None:
        if module in before:
            lines[module, name] = _caller()

    def end(module: nn.Module, *_: Any) -> None:
        _check_memory(places)
        _check_parameters(model, parameters, lines)
        _write_assigned(model, {part: buffers for part, (buffers, _) in before.items()}, lines)
        traced.attributes += changed_attributes(model, {part: attributes for part, (_, attributes) in before.items()})
        before.clear()

    handles = [
        model.register_forward_pre_hook(begin, prepend=True),
        model.register_forward_hook(end),
        register_module_buffer_registration_hook(assigned),
        register_module_parameter_registration_hook(assigned),
    ]
    constants = [(tensor, tensor.detach().clone()) for tensor in tensors_in_attributes(model)]
    try:
        yield traced
    finally:
        for handle in handles:
            handle.remove()
        # torch.export takes these as they are, so that what is traced is also done to them.
        with torch.no_grad():
            for tensor, value in constants:
                tensor.copy_(value)


def _write_assigned(
    model: nn.Module, before: Mapping[nn.Module, Mapping[str, Any]], lines: Mapping[tuple[nn.Module, str], str]
) -> None:
    """Writes what was assigned to a buffer into the memory that the buffer had before."""
    owners: dict[Any, list[str]] = {}
    for title, _, _, tensor in _stored(model):
        owners.setdefault(_memory(tensor), []).append(title)
    found: list[tuple[nn.Module, str, torch.Tensor, torch.Tensor]] = []
    for prefix, part in model.named_modules():
        for name, old in before.get(part, {}).items():
            new = part._buffers.get(name)
            if new is old:
                continue
            title, line = f"{prefix}.{name}".lstrip("."), lines.get((part, name), "")
            _check_kind(title, line, old, new)
            others = [other for other in owners[_memory(new)] if other != title]
            if others:
                raise CaptureError(
                    f"'{title}' and '{others[0]}' share their memory after a call{line}; assign a copy: .clone()"
                )
            found.append((part, name, old, new))
    # All are read before one is written: what is assigned may be memory that another buffer had.
    fresh = [new.clone() for _, _, _, new in found]
    for (part, name, old, _), new in zip(found, fresh, strict=True):
        if part is model:
            setattr(part, name, new)  # torch.export writes these itself, from what they are at the end.
        else:
            old.copy_(new)
            part._buffers[name] = old


def _check_memory(places: Sequence[tuple[str, torch.Tensor, Any]]) -> None:
    """Raises CaptureError for a parameter or buffer that is the same tensor as before, in other memory."""
    for title, tensor, memory in places:
        if _memory(tensor) != memory:
            raise CaptureError(
                f"forward puts '{title}' into other memory ('.data = ...'), which a graph cannot follow; write into it:"
                " .copy_(...) under torch.no_grad()"
            )


def _check_parameters(
    model: nn.Module, before: Mapping[nn.Module, Mapping[str, Any]], lines: Mapping[tuple[nn.Module, str], str]
) -> None:
    """Raises CaptureError for a parameter that is another one than before, or was not there."""
    for prefix, part in model.named_modules():
        for name, parameter in part._parameters.items():
            if part in before and parameter is not before[part].get(name):
                title, line = f"{prefix}.{name}".lstrip("."), lines.get((part, name), "")
                raise CaptureError(
                    f"forward assigns a new parameter '{title}'{line}, which a graph cannot keep; write into the one that is"
                    " there, .copy_(...) under torch.no_grad(), or register a buffer"
                )


def _stored(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor]]:
    """Parameters and buffers: dotted name, the module they are in, their name there, and themselves."""
    for prefix, part in model.named_modules():
        for name, value in (*part._parameters.items(), *part._buffers.items()):
            if value is not None:
                yield f"{prefix}.{name}".lstrip("."), part, name, value


def _memory(tensor: torch.Tensor) -> Any:
    return tensor.untyped_storage()._cdata


def _check_kind(name: str, line: str, old: Any, new: Any) -> None:
    both = isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)
    if both and (old.shape, old.dtype) == (new.shape, new.dtype):
        return
    raise CaptureError(
        f"buffer '{name}' is {_kind(old)} before a call and {_kind(new)} after it{line}; state keeps its shape and type:"
        " register the buffer as it is to stay, and write into it"
    )


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "missing" if value is None else type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {'x'.join(map(str, value.shape)) or 'scalar'}"


def _caller() -> str:
    """The innermost line of the stack that is neither torch's nor ours, as `` at file.py:12``."""
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    frames = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(inside)]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def state_of(module: fx.GraphModule) -> dict[str, torch.Tensor]:
    """The stored tensors that a graph writes to, by dotted name: what it keeps from call to call."""
    places = [place for place in written_places(module.graph) if place.op == "get_attr"]
    return {str(place.target): _value(module, place) for place in places}


def own_state(module: fx.GraphModule) -> None:
    """Gives a fresh graph module, in place, buffers of its own for those that it writes, each under one name.

    Raises:
        CaptureError: it shares its memory with another tensor that is not all of it: a graph knows tensors, not memory; or
            it is a parameter with gradients that is written where gradients are on.
    """
    if not any(place.op == "get_attr" for place in written_places(module.graph)):
        return
    tensors = _named_once(module)
    for place, calls in written_places(module.graph).items():
        if place in tensors:
            _check_gradients(place, tensors[place], calls)
            _check_shared(place, tensors, calls[0])
            _replace(module, str(place.target), tensors[place].detach().clone())


def _named_once(module: fx.GraphModule) -> dict[fx.Node, torch.Tensor]:
    """The stored tensors by the one node that reads each: what has several names is read under its first one."""
    first: dict[int, fx.Node] = {}
    for node in [node for node in module.graph.nodes if node.op == "get_attr"]:
        original = first.setdefault(id(_value(module, node)), node)
        if original is not node:
            node.replace_all_uses_with(original)
            module.graph.erase_node(node)
    return {node: value for node in first.values() if isinstance(value := _value(module, node), torch.Tensor)}


def _check_gradients(place: fx.Node, value: torch.Tensor, calls: list[fx.Node]) -> None:
    """Raises CaptureError if a parameter is written where gradients are on."""
    if not (isinstance(value, nn.Parameter) and value.requires_grad and torch.is_grad_enabled()):
        return
    for call in calls:
        if not _is_detached(call, place):
            line = source_line(call)
            raise CaptureError(written_parameter(str(place.target), f" at {line}" if line else ""))


def _check_shared(place: fx.Node, tensors: dict[fx.Node, torch.Tensor], call: fx.Node) -> None:
    """Raises CaptureError if another tensor lies in the memory of `place`, which `call` writes to."""
    for other, value in tensors.items():
        if other is not place and _memory(value) == _memory(tensors[place]):
            line = source_line(call)
            raise CaptureError(
                f"'{place.target}' and '{other.target}' share their memory, and the model writes to it"
                f"{f' at {line}' if line else ''}; keep one of them as a buffer, and take the other from it in forward"
            )


def _is_detached(call: fx.Node, place: fx.Node) -> bool:
    """Whether a call writes to `place` through a view without gradients."""
    pending, seen = [*written_operands(call)], set()
    while pending:
        node = pending.pop()
        if node is place:
            return False
        if node in seen or node.target is torch.ops.aten.detach.default:
            continue
        seen.add(node)
        pending += [*written_operands(node)] or node.all_input_nodes[:1]
    return True


def _replace(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Stores `tensor` in place of a parameter, buffer or attribute of that dotted name."""
    *path, last = name.split(".")
    for part in path:
        module = getattr(module, part)
    if last in module._parameters:
        module._parameters[last] = nn.Parameter(tensor, module._parameters[last].requires_grad)  # type: ignore[union-attr]
        return
    delattr(module, last)
    module.register_buffer(last, tensor)


def _value(module: nn.Module, node: fx.Node) -> Any:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value

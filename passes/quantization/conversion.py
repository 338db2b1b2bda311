"""From a prepared float network to one with operators that round: observers are put in, look at calibration inputs, and go."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ...frontend.base.progress import track
from ...frontend.graph_module import CapturedModule, captured_module, copied_graph
from ..stored import holder_of
from ..values import Operation, attribute, operator_name
from .annotation import quantizer_for
from .operators import OUT_AXIS
from .pt2e import load_pt2e
from .ranges import MinMax
from .rounding import Rounding, rounding_of
from .rounds import rounds
from .scales import bias_floor, name_scales

__all__ = ["converted"]


def converted(
    module: CapturedModule,
    floats: dict[fx.Node, tuple[str, str]],
    calls: Iterable[tuple[Any, ...]],
    range_kind: type[MinMax],
    outputs: bool = False,
) -> tuple[CapturedModule, Rounding]:
    """The network with operators that round, and what is rounded in `module`.

    Args:
        module: prepared, see `preparation`; it is not changed.
        floats: layers that stay float.
        calls: calibration inputs.
        range_kind: of `ranges.RANGES`.
        outputs: whether what the network gives is rounded as well.

    Raises:
        InputError: nothing can be rounded, torchao is missing, a weight is not finite, or values overflow on the calibration
            inputs.
    """
    pt2e = load_pt2e()
    copies: dict[fx.Node, fx.Node] = {}
    graph = copied_graph(module.graph, copies)
    rounding = rounding_of(module, floats, outputs=outputs)
    if not rounding.layers:
        raise InputError(_nothing(rounding))
    here = rounding.in_graph(copies)
    tensors = {str(node.target): attribute(module, str(node.target)) for node in graph.nodes if node.op == "get_attr"}
    _check_weights(rounding, tensors)
    plain = fx.GraphModule(holder_of({name: _own(tensor) for name, tensor in tensors.items()}), graph)
    observed = pt2e.prepare(plain, quantizer_for(pt2e, here, range_kind))
    calls = list(calls)
    with torch.no_grad():
        for call in track(calls, "looking at calibration inputs"):
            observed(*call)
    _check_finite(observed, rounding)
    _fit_biases(observed, rounding)
    weights = {node.name: str(Operation(node)["weight"].target) for node in rounding.layers}
    result = pt2e.convert(observed)
    return _captured(result, weights, module), rounding


def _check_weights(rounding: Rounding, tensors: Mapping[str, Tensor]) -> None:
    for node in rounding.layers:
        call = Operation(node)
        for stored in filter(None, (call["weight"], call.get("bias"))):
            if not bool(tensors[str(stored.target)].isfinite().all()):
                raise InputError(
                    f"'{stored.target}' holds NaN or infinity, and has no scale; train again, with a lower rate, or take an"
                    " older checkpoint"
                )


def _nothing(rounding: Rounding) -> str:
    reasons = [f"'{name}': {reason}" for name, reason in rounding.floats.values()]
    if not reasons:
        return "the model has no layer that could be quantised: no convolution, linear layer or product with stored weights"
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"no layer of the model can be quantised: {reasons[0]}{more}"


def _own(tensor: Any) -> Any:
    """PT2E takes the tensors over; graphs that are called are copied whole."""
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(tensor.detach().clone(), requires_grad=tensor.requires_grad)
    return tensor.detach().clone() if isinstance(tensor, Tensor) else copy.deepcopy(tensor)


def _check_finite(observed: fx.GraphModule, rounding: Rounding) -> None:
    for node in observed.graph.nodes:
        observer = _observer(observed, node)
        if observer is not None and hasattr(observer, "range") and not observer.range.finite:
            names = {call.name: name for call, name in rounding.layers.items()}
            value = node.args[0].name
            raise InputError(
                f"'{names.get(value, value)}' gives NaN or infinity, or nearly that, on the calibration inputs, so it has no"
                " range; take inputs as the model was trained on, or look at its weights"
            )


def _observer(observed: fx.GraphModule, node: Any) -> Any:
    if isinstance(node, fx.Node) and node.op == "call_module":
        return observed.get_submodule(str(node.target))
    return None


def _fit_biases(observed: fx.GraphModule, rounding: Rounding) -> None:
    """Sees to it that each layer's bias fits into 32 bits, see `scales.bias_floor`."""
    calls = {node.name: node for node in observed.graph.nodes}
    for layer in rounding.layers:
        node = calls[layer.name]
        call = Operation(node)
        if call.get("bias") is None:
            continue
        weight_observer = _observer(observed, call["weight"])
        scale = float(_observer(observed, call["input"]).calculate_qparams()[0])
        bias = attribute(observed, str(call["bias"].target))
        floor = bias_floor(bias, weight_observer.weight, scale, OUT_AXIS.get(operator_name(node), 0))
        known = weight_observer.floor
        weight_observer.floor = floor if known is None else torch.maximum(known, floor)


def _captured(result: fx.GraphModule, weights: dict[str, str], origin: CapturedModule) -> CapturedModule:
    """The converted graph as a module of ours: weights under the names they had, scales beside them, every value described."""
    graph = copied_graph(result.graph)
    names = _names(graph, weights)
    kept = {
        str(node.target): attribute(origin, str(node.target)) for node in origin.graph.nodes if node.op == "get_attr"
    }
    tensors: dict[str, Tensor] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            # What calibration calls wrote, as state, is not what the network begins with.
            stored = kept[name] if name in kept and name not in names else attribute(result, name)
            node.target = names.get(name, name)
            tensors[node.target] = _own(stored)
    example = next(node.meta["val"] for node in graph.nodes if isinstance(node.meta.get("val"), Tensor))
    for node in graph.nodes:
        if node.op == "get_attr":
            stored = tensors[str(node.target)]
            node.meta["val"] = example.new_empty(tuple(stored.shape), dtype=stored.dtype)
        elif (kind := rounds(node)) is not None:
            _describe(node, kind)
    return captured_module(holder_of(tensors), graph, origin.meta)


def _names(graph: fx.Graph, weights: dict[str, str]) -> dict[str, str]:
    """By the name that PT2E gave: those of a layer's rounded weights, scales and zero points.

    A name that is taken stays whose it is: an embedding that shares its weights reads them in float, and a transposed
    convolution rounds those that it shares along another axis.
    """
    found: dict[str, str] = {}
    taken = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        if node.name in weights:
            rounded = Operation(node)["weight"]
            stored, scale, zero = rounded.args[:3]
            if str(stored.target) in found:
                continue
            name = weights[node.name]
            while name in taken:
                name += "_codes"
            taken.add(name)
            names = name_scales(name)
            for reader, known in ((stored, name), (scale, names.scale), (zero, names.zero)):
                found.setdefault(str(reader.target), known)
    return found


def _describe(node: fx.Node, kind: str) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    value = source.meta["val"]
    dtype = torch.int8 if kind.startswith("quantize") else torch.float32
    node.meta = {key: kept for key, kept in source.meta.items() if key in ("stack_trace", "nn_module_stack")}
    node.meta["val"] = value.new_empty(value.shape, dtype=dtype)

"""What layers a graph has: which calls are those of an ``nn.Conv2d`` and its kin, and with which options.

A layer stands for calls of a graph if all that its module did was one operator on its own tensors, as the records of
torch.export say. Its options are read from the operator's arguments, so that it is what the graph is after pruning, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .calls import innermost, named_arguments
from .modes import modes_of

__all__ = ["TENSORS", "LayerCall", "accepted", "layers_of"]


@dataclass(frozen=True)
class LayerCall:
    """What a layer is, as the graph says."""

    kind: type[nn.Module]
    options: Mapping[str, Any]
    """What its constructor takes."""


def layers_of(graph: fx.Graph, module: nn.Module) -> dict[str, tuple[LayerCall, list[fx.Node]]]:
    """The layers of `graph`, whose tensors are in `module`, by path, with the calls that each stands for."""
    calls: dict[str, list[fx.Node]] = {}
    outer: set[str] = set()
    for node in graph.nodes:
        if node.op == "call_function":
            path, _ = innermost(node)
            calls.setdefault(path, []).append(node)
    for path in calls:
        while path:
            path = path.rpartition(".")[0]
            outer.add(path)
    found: dict[str, tuple[LayerCall, list[fx.Node]]] = {}
    for path, nodes in calls.items():
        if path and path not in outer and _is_free(module, path):
            layers = [_layer(path, node, module) for node in nodes]
            if layers[0] is not None and all(layer == layers[0] for layer in layers):
                found[path] = layers[0], nodes
    return found


def _is_free(module: nn.Module, path: str) -> bool:
    """Whether modules can lie along `path`: no other attribute has one of these names."""
    current: nn.Module | None = module
    for name in path.split("."):
        if current is not None and name not in current._modules and hasattr(current, name):
            return False
        current = current._modules.get(name) if current is not None else None
    return True


def _layer(path: str, node: fx.Node, module: nn.Module) -> LayerCall | None:
    known = _KINDS.get(innermost(node)[1])
    if known is None or not isinstance(node.target, torch._ops.OpOverload):
        return None
    kind, operator, options_of = known
    name = node.target.overloadpacket.__name__
    if name.removesuffix("_") != operator:
        return None
    given = named_arguments(node)
    tensors = {key: value for key, value in given.items() if isinstance(value, fx.Node)}
    found = {key: _stored(module, value) for key, value in tensors.items() if key in TENSORS}
    stored = {key: value for key, value in found.items() if value is not None}
    if any(str(tensors[key].target) != f"{path}.{key}" for key in stored) or len(tensors) != len(stored) + 1:
        return None
    options = options_of(_Call(node, given, stored))
    if options is None:
        return None
    if "inplace" in accepted(kind) and name.endswith("_"):
        options["inplace"] = True
    return LayerCall(kind, options)


def _stored(module: nn.Module, node: fx.Node) -> torch.Tensor | None:
    if node.op != "get_attr":
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, torch.Tensor) else None


@dataclass(frozen=True)
class _Call:
    """One call as the constructor's options are read from it."""

    node: fx.Node
    given: Mapping[str, Any]
    stored: Mapping[str, torch.Tensor]

    def numbers(self, name: str, count: int) -> tuple[int, ...] | str:
        """An argument with one number for each axis of space."""
        value = self.given[name]
        if isinstance(value, str):
            return value
        numbers = (value,) if isinstance(value, int) else tuple(value)
        return numbers * count if len(numbers) == 1 else numbers


TENSORS = ("weight", "bias", "running_mean", "running_var")
Options = dict[str, Any] | None


def _convolution(call: _Call) -> Options:
    weight, groups = call.stored["weight"], call.given["groups"]
    axes = weight.dim() - 2
    options: dict[str, Any] = {"in_channels": weight.shape[1] * groups, "out_channels": weight.shape[0]}
    if "output_padding" in call.given:
        options = {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * groups}
        options["output_padding"] = call.numbers("output_padding", axes)
    options |= {key: call.numbers(key, axes) for key in ("stride", "padding", "dilation")}
    return options | {"kernel_size": tuple(weight.shape[2:]), "groups": groups, "bias": "bias" in call.stored}


def _linear(call: _Call) -> Options:
    weight = call.stored["weight"]
    if weight.dim() != 2:
        return None
    return {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": "bias" in call.stored}


def _batch_norm(call: _Call) -> Options:
    affine, tracked = "weight" in call.stored, "running_mean" in call.stored
    if affine != ("bias" in call.stored) or tracked != ("running_var" in call.stored):
        return None
    modes = modes_of(call.node)
    return {
        "num_features": call.node.meta["val"].shape[1],
        "eps": call.given["eps"],
        "momentum": None if modes is not None and modes.cumulative else call.given["momentum"],
        "affine": affine,
        "track_running_stats": tracked,
    }


def _layer_norm(call: _Call) -> Options:
    if "weight" not in call.stored and "bias" in call.stored:
        return None
    affine = "weight" in call.stored
    shape = tuple(call.given["normalized_shape"])
    plain = {"normalized_shape": shape, "eps": call.given["eps"], "elementwise_affine": affine}
    return plain | {"bias": "bias" in call.stored} if all(isinstance(size, int) for size in shape) else None


def _group_norm(call: _Call) -> Options:
    affine = "weight" in call.stored
    if affine != ("bias" in call.stored):
        return None
    channels = call.node.meta["val"].shape[1]
    return {
        "num_groups": call.given["num_groups"],
        "num_channels": channels,
        "eps": call.given["eps"],
        "affine": affine,
    }


def _embedding(call: _Call) -> Options:
    count, width = call.stored["weight"].shape
    padding = call.given["padding_idx"]
    return {
        "num_embeddings": count,
        "embedding_dim": width,
        "padding_idx": None if padding == -1 else padding,
        "scale_grad_by_freq": call.given["scale_grad_by_freq"],
        "sparse": call.given["sparse"],
    }


def _dropout(call: _Call) -> Options:
    return {"p": call.given["p"]}


def _prelu(call: _Call) -> Options:
    return {"num_parameters": call.stored["weight"].numel()}


def _only(*names: str) -> Callable[[_Call], Options]:
    """Options that are called as the operator's arguments; it has no others that are not at their default."""

    def options(call: _Call) -> Options:
        arguments = call.node.target._schema.arguments[1:]  # type: ignore[union-attr]
        for argument in arguments:
            if argument.name in names or argument.name in ("training", "generator"):
                continue
            if not argument.has_default_value() or call.given[argument.name] != argument.default_value:
                return None
        found = {name: call.given[name] for name in names}
        if any(isinstance(value, fx.Node) for value in found.values()):
            return None
        return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}

    return options


def _relu6(call: _Call) -> Options:
    return {} if (call.given["min_val"], call.given["max_val"]) == (0, 6) else None


def _pooling(call: _Call) -> Options:
    names = [a.name for a in call.node.target._schema.arguments[1:]]  # type: ignore[union-attr]
    found = {name: call.given[name] for name in names}
    if isinstance(found["stride"], list) and not found["stride"]:
        found["stride"] = found["kernel_size"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _kinds() -> dict[str, tuple[type[nn.Module], str, Callable[[_Call], Options]]]:
    """Class by its full name: the operator that it is, and how its constructor's options are read from a call."""
    table: list[tuple[str, str, Callable[[_Call], Options]]] = [
        ("Linear", "linear", _linear), ("LayerNorm", "layer_norm", _layer_norm), ("GroupNorm", "group_norm", _group_norm),
        ("Embedding", "embedding", _embedding), ("PReLU", "prelu", _prelu), ("Dropout", "dropout", _dropout),
        ("AlphaDropout", "alpha_dropout", _dropout), ("FeatureAlphaDropout", "feature_alpha_dropout", _dropout),
        ("ReLU", "relu", _only()), ("ReLU6", "hardtanh", _relu6), ("SiLU", "silu", _only()), ("Mish", "mish", _only()),
        ("Hardswish", "hardswish", _only()), ("Hardsigmoid", "hardsigmoid", _only()), ("Sigmoid", "sigmoid", _only()),
        ("Tanh", "tanh", _only()), ("Hardtanh", "hardtanh", _only("min_val", "max_val")),
        ("GELU", "gelu", _only("approximate")), ("ELU", "elu", _only("alpha")),
        ("LeakyReLU", "leaky_relu", _only("negative_slope")), ("RReLU", "rrelu", _only("lower", "upper")),
        ("Softmax", "softmax", _only("dim")), ("Flatten", "flatten", _only("start_dim", "end_dim")),
    ]  # fmt: skip
    for axes in (1, 2, 3):
        table += [
            (f"Conv{axes}d", f"conv{axes}d", _convolution),
            (f"ConvTranspose{axes}d", f"conv_transpose{axes}d", _convolution),
            (f"BatchNorm{axes}d", "batch_norm", _batch_norm),
            (f"InstanceNorm{axes}d", "instance_norm", _batch_norm),
            (f"Dropout{axes}d", "feature_dropout", _dropout),
            (f"MaxPool{axes}d", f"max_pool{axes}d", _pooling),
            (f"AvgPool{axes}d", f"avg_pool{axes}d", _pooling),
            (f"AdaptiveAvgPool{axes}d", f"adaptive_avg_pool{axes}d", _only("output_size")),
        ]
    kinds = {name: getattr(nn, name) for name, _, _ in table}
    return {f"{kinds[name].__module__}.{name}": (kinds[name], operator, options) for name, operator, options in table}


_KINDS = _kinds()


def accepted(kind: type[nn.Module]) -> tuple[str, ...]:
    return kind.__init__.__code__.co_varnames[1 : kind.__init__.__code__.co_argcount]  # type: ignore[misc]

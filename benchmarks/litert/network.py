"""A network as LiteRT's operators: what a .tflite file says, before it is bytes.

Images are ``(N, H, W, C)`` there. Its scheme of int8 is ours: codes of a scale and a zero, weights by output channel with zero
0, biases in int32 (LiteRT 8-bit quantization specification).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from reconvene.frontend.base.errors import InputError
from reconvene.passes.integers.constants import Constants
from reconvene.passes.integers.layers import along, layer_of
from reconvene.passes.integers.lowering import CLAMPS, OFF_IN_EVAL
from reconvene.passes.integers.scheme import DEQUANTIZE, QUANTIZE, Codes, codes_of_node

__all__ = ["Network", "Operation", "Tensor", "network_of"]

A = torch.ops.aten

Array = np.ndarray[Any, Any]

_ACTIVATIONS = {(0.0, math.inf): "RELU", (0.0, 6.0): "RELU6"}
_NOT_NEGATIVE = frozenset(_ACTIVATIONS.values())
_FLATTENED = (A.flatten.using_ints, A.view.default, A.reshape.default)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file.

    Attributes:
        shape: as LiteRT has it, images ``(N, H, W, C)``.
        dtype: ``float32``, ``int8`` or ``int32``.
        data: of a constant; None for what is computed.
        scales: of codes: none, one, or one for each place along `axis`.
        zero: the code of the number 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None
    scales: tuple[float, ...] = ()
    zero: int = 0
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Operation:
    """A call of LiteRT's operator `kind`; `options` are the fields of its record in the schema, with paddings and activations
    by name.
    """

    kind: str
    inputs: tuple[Tensor, ...]
    result: Tensor
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Network:
    """Operations in the order that they run in, what they read that is no constant, and what they are for."""

    operations: tuple[Operation, ...]
    inputs: tuple[Tensor, ...]
    results: tuple[Tensor, ...]


def network_of(module: fx.GraphModule, result: Codes | None = None) -> Network:
    """`module` in LiteRT's operators: of one image and one result, both float32, batch 1.

    Args:
        module: in float32 without batch normalisation, or with quantise and dequantise nodes around all that it computes.
        result: codes for the last layer of a quantised module, which gives its sums as float32: LiteRT's give int8.

    Raises:
        InputError: the module has something that is not written here.
    """
    return _Writer(module).network(result)


class _Writer:
    """One walk from the result to the input. What is computed twice for the same codes is written once."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.graph = module.graph
        self.constants = Constants(module)
        self.operations: list[Operation] = []
        self.made: dict[tuple[fx.Node, Codes | None], Tensor] = {}
        self.rules: dict[Any, Callable[[fx.Node, Codes | None, str], Tensor]] = {
            A.conv2d.default: self._convolution, A.linear.default: self._linear,
            A.add.Tensor: self._sum, A.add_.Tensor: self._sum, A.max_pool2d.default: self._largest,
            A.adaptive_avg_pool2d.default: self._mean, A.avg_pool2d.default: self._mean, A.mean.dim: self._mean,
            **dict.fromkeys(_FLATTENED, self._flat),
        }  # fmt: skip

    def network(self, result: Codes | None) -> Network:
        inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        (given,) = (node.args[0] for node in self.graph.nodes if node.op == "output")
        results = list(given) if isinstance(given, tuple | list) else [given]
        if len(inputs) != 1 or len(results) != 1:
            raise InputError(
                f"the network has {len(inputs)} inputs and {len(results)} results; it must have one of each"
            )
        image = Tensor(inputs[0].name, _shape(inputs[0]), "float32")
        self.made[inputs[0], None] = image
        last = results[0]
        found = self.operand(last) if result is None or last.target is DEQUANTIZE else self.value(last, result)
        if found.dtype == "int8":
            found = self.add("DEQUANTIZE", (found,), Tensor(f"{last.name}_numbers", found.shape, "float32"))
        return Network(tuple(self.operations), (image,), (found,))

    def operand(self, node: Any) -> Tensor:
        """What an operator reads: codes where they are dequantised for it, else float32."""
        if isinstance(node, fx.Node) and node.target is DEQUANTIZE:
            coded = node.args[0]
            if isinstance(coded, fx.Node) and coded.target is QUANTIZE:
                return self.value(coded.args[0], codes_of_node(coded))
        return self.value(node, None)

    def value(self, node: Any, codes: Codes | None) -> Tensor:
        """`node` as `codes`, or as float32."""
        key = node, codes
        if key not in self.made:
            self.made[key] = self._computed(node, codes)
        return self.made[key]

    def add(self, kind: str, inputs: tuple[Tensor, ...], result: Tensor, **options: Any) -> Tensor:
        self.operations.append(Operation(kind, inputs, result, options))
        return result

    def _computed(self, node: Any, codes: Codes | None) -> Tensor:
        if node.op == "placeholder" or node.target is DEQUANTIZE:
            return self._recoded(node, self.operand(node), codes)
        if node.target in OFF_IN_EVAL:
            return self.value(node.args[0], codes)
        if node.target not in CLAMPS:
            return self._by_rule(node, codes, "NONE")
        limits = CLAMPS[node.target](*node.args[1:], **node.kwargs)
        layer = node.args[0]
        if limits not in _ACTIVATIONS or len(layer.users) > 1 or layer.target is DEQUANTIZE:
            raise InputError(f"'{node.name}' is no activation of the layer before it, and not written here")
        return self._by_rule(layer, codes, _ACTIVATIONS[limits])

    def _by_rule(self, node: fx.Node, codes: Codes | None, activation: str) -> Tensor:
        rule = self.rules.get(node.target)
        if rule is None:
            raise InputError(f"'{node.name}' ({node.target}) is no operator that is written here")
        if codes is None and any(
            source.target is DEQUANTIZE for source in node.args[:1] if isinstance(source, fx.Node)
        ):
            raise InputError(
                f"'{node.name}' gives float32 of codes, which LiteRT's layers do not; give codes for the result"
            )
        return rule(node, codes, activation)

    def _recoded(self, node: fx.Node, found: Tensor, codes: Codes | None) -> Tensor:
        """`found` as `codes`, by an operator of its own where it is not."""
        if codes is None or (found.scales == (codes.scale,) and found.zero == codes.zero):
            return found
        return self.add("QUANTIZE", (found,), _coded(f"{node.name}_codes", found.shape, codes))

    def _convolution(self, node: fx.Node, codes: Codes | None, activation: str) -> Tensor:
        source = self.operand(node.args[0])
        weight, bias, scales = self._weights(node, codes)
        stride, padding, dilation, groups = self._window(node)
        depthwise = groups > 1
        if depthwise and (weight.shape[1] != 1 or groups != len(weight)):
            raise InputError(f"'{node.name}' is of {groups} groups; they must be one, or one a channel")
        axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        axis = axes.index(0)
        source, same = self._padded(node, source, (weight.shape[2:], stride, padding, dilation))
        options = {
            "padding": "SAME" if same else "VALID", "fusedActivationFunction": activation,
            "strideH": stride[0], "strideW": stride[1], "dilationHFactor": dilation[0], "dilationWFactor": dilation[1],
        } | ({"depthMultiplier": 1} if depthwise else {})  # fmt: skip
        inputs = (source, *_constants(node, weight.transpose(axes), bias, scales, source, axis))
        return self.add("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", inputs, _result(node, codes), **options)

    def _linear(self, node: fx.Node, codes: Codes | None, activation: str) -> Tensor:
        source = self.operand(node.args[0])
        weight, bias, scales = self._weights(node, codes)
        inputs = (source, *_constants(node, weight, bias, scales, source, 0))
        return self.add("FULLY_CONNECTED", inputs, _result(node, codes), fusedActivationFunction=activation)

    def _sum(self, node: fx.Node, codes: Codes | None, activation: str) -> Tensor:
        sides = (self.operand(node.args[0]), self.operand(node.args[1]))
        return self.add("ADD", sides, _result(node, codes), fusedActivationFunction=activation)

    def _largest(self, node: fx.Node, codes: Codes | None, _: str) -> Tensor:
        source = self.operand(node.args[0])
        given: Any = node.args
        window, stride, padding, dilation, ceil = [*given[1:], *([], [0], [1], False)[len(given[2:]) :]]
        if ceil or along(dilation, 2) != [1, 1]:
            raise InputError(f"'{node.name}' pools with dilation or rounds sizes up, and is not written here")
        window, stride, padding = along(window, 2), along(stride or window, 2), along(padding, 2)
        if any(padding) and not self._not_negative(source):
            raise InputError(f"'{node.name}' pools numbers below 0 with padding, and is not written here")
        source, same = self._padded(node, source, (window, stride, padding, [1, 1]))
        found = Tensor(node.name, _shape(node), source.dtype, None, source.scales, source.zero)
        options = {
            "padding": "SAME" if same else "VALID", "strideH": stride[0], "strideW": stride[1],
            "filterHeight": window[0], "filterWidth": window[1],
        }  # fmt: skip
        return self._recoded(node, self.add("MAX_POOL_2D", (source,), found, **options), codes)

    def _mean(self, node: fx.Node, codes: Codes | None, _: str) -> Tensor:
        source = self.operand(node.args[0])
        if math.prod(_shape(node)) != source.shape[0] * source.shape[3]:
            raise InputError(f"'{node.name}' is a mean over less than the image, and not written here")
        axes = np.array([1, 2], np.int32)
        inputs = (source, Tensor(f"{node.name}_axes", axes.shape, "int32", axes))
        return self.add("MEAN", inputs, _result(node, codes), keepDims=len(_shape(node)) == 4)

    def _flat(self, node: fx.Node, codes: Codes | None, _: str) -> Tensor:
        source = self.operand(node.args[0])
        if source.shape[1:-1] not in ((), (1, 1)):
            raise InputError(f"'{node.name}' puts the pixels of channels in an order, which is another in LiteRT")
        shape = np.array(_shape(node), np.int32)
        found = Tensor(node.name, _shape(node), source.dtype, None, source.scales, source.zero)
        inputs = (source, Tensor(f"{node.name}_shape", shape.shape, "int32", shape))
        return self._recoded(node, self.add("RESHAPE", inputs, found, newShape=shape.tolist()), codes)

    def _weights(self, node: fx.Node, codes: Codes | None) -> tuple[Array, Array, Array | None]:
        """Weights and biases of a layer, and what a step of each output's sum is worth if they are codes."""
        if codes is None:
            weight = self.constants.value(node.args[1])
            bias = self.constants.value(node.args[2]) if len(node.args) > 2 else None
            if weight is None:
                raise InputError(f"the weights of '{node.name}' are computed from its inputs")
            return weight.numpy(), np.zeros(len(weight), np.float32) if bias is None else bias.numpy(), None
        layer = layer_of(node, self.constants, _known)
        if layer is None:
            raise InputError(f"'{node.name}' is not computed in integers")
        return layer.weight.numpy(), layer.bias.numpy(), layer.scale.numpy()

    def _window(self, node: fx.Node) -> tuple[list[int], list[int], list[int], int]:
        """Stride, padding and dilation of a convolution, and its groups."""
        given: Any = node.args
        stride, padding, dilation, groups = [*given[3:], *([1], [0], [1], 1)[len(given[3:]) :]]
        return along(stride, 2), along(padding, 2), along(dilation, 2), int(groups)

    def _padded(self, node: fx.Node, source: Tensor, window: Any) -> tuple[Tensor, bool]:
        """What a window slides over, and whether LiteRT's own padding is the one wanted; other padding comes before."""
        padding = window[2]
        if not any(padding):
            return source, False
        if all(_pads_alike(source.shape[1 + axis], *(one[axis] for one in window)) for axis in range(2)):
            return source, True
        widths = np.array([[0, 0], [padding[0]] * 2, [padding[1]] * 2, [0, 0]], np.int32)
        shape = tuple(extent + sum(width) for extent, width in zip(source.shape, widths.tolist(), strict=True))
        wider = Tensor(f"{node.name}_padded", shape, source.dtype, None, source.scales, source.zero)
        return self.add("PAD", (source, Tensor(f"{node.name}_widths", widths.shape, "int32", widths)), wider), False

    def _not_negative(self, tensor: Tensor) -> bool:
        made = next((one for one in self.operations if one.result is tensor), None)
        return made is not None and made.options.get("fusedActivationFunction") in _NOT_NEGATIVE


def _pads_alike(extent: int, window: int, stride: int, padding: int, dilation: int) -> bool:
    """Whether TensorFlow's ``SAME`` puts as much in front along an axis as PyTorch's `padding`, and gives as many places."""
    reach = (window - 1) * dilation + 1
    places = -(-extent // stride)
    missing = max(0, (places - 1) * stride + reach - extent)
    return missing // 2 == padding and (extent + 2 * padding - reach) // stride + 1 == places


def _known(node: Any) -> tuple[Codes, fx.Node] | None:
    codes = codes_of_node(node) if isinstance(node, fx.Node) and node.target is DEQUANTIZE else None
    return None if codes is None else (codes, node.args[0])


def _constants(
    node: fx.Node, weight: Array, bias: Array, scales: Array | None, source: Tensor, axis: int
) -> tuple[Tensor, Tensor]:
    """The weights of a layer, in LiteRT's order of axes, and its biases."""
    if scales is None:
        of_weights = of_biases = ()
    else:
        of_weights, of_biases = tuple((scales / source.scales[0]).tolist()), tuple(scales.tolist())
    return (
        Tensor(f"{node.name}_weight", weight.shape, str(weight.dtype), weight, of_weights, 0, axis),
        Tensor(f"{node.name}_bias", bias.shape, str(bias.dtype), bias, of_biases),
    )


def _result(node: fx.Node, codes: Codes | None) -> Tensor:
    return Tensor(node.name, _shape(node), "float32") if codes is None else _coded(node.name, _shape(node), codes)


def _coded(name: str, shape: tuple[int, ...], codes: Codes) -> Tensor:
    return Tensor(name, shape, "int8", None, (codes.scale,), codes.zero)


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Of one image. The batch may be of any size in the graph."""
    extents = [int(extent) for extent in node.meta["val"].shape[1:]]
    return (1, *extents[1:], extents[0]) if len(extents) == 3 else (1, *extents)

"""Folds what surrounds a convolution into it: BatchNorm and biases behind it, zero padding in front of it, cropping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .nodes import Array, Convolution, Frame, Graph, Node, Scalar, Weights

__all__ = ["fold_channels", "fold_margins"]

_LAYERS = ("convolution", "transposed")
"""What has weights of its output channels."""


def fold_channels(graph: Graph) -> int:
    """Multiplies and adds constants into weights and biases, in float64; returns how many operations went
    away.

    A convolution that somebody else reads before the factor keeps its weights.
    """
    folded = 0
    for node in list(graph.nodes):
        source, vector = _channel_operation(node)
        if source is None or vector is None or source.op not in _LAYERS or graph.only_user(source) is not node:
            continue
        source.detail = _merge(source.detail_as(Convolution), node.detail_as(Scalar).function, vector)
        graph.replace(node, source)
        folded += 1
    graph.refresh()
    return folded


def _channel_operation(node: Node) -> tuple[Node | None, Array | None]:
    """The image and the ``(C,)`` vector of an addition, subtraction or product with a constant."""
    if node.op != "scalar" or node.detail_as(Scalar).function not in ("add", "multiply", "subtract"):
        return None, None
    left, right = node.inputs
    if left.op == "constant" and node.detail_as(Scalar).function != "subtract":
        left, right = right, left
    if right.op != "constant" or left.op == "constant" or left.shape != node.shape:
        return None, None
    channels = node.shape[1]
    return left, np.broadcast_to(right.detail_as(np.ndarray).reshape(-1), (channels,)).astype("float64")


def _merge(convolution: Convolution, function: str, vector: Array) -> Convolution:
    kernel, bias = convolution.weights.kernel, convolution.weights.bias
    if function == "multiply":
        kernel, bias = kernel * vector[:, None, None, None], bias * vector
    else:
        bias = bias + vector if function == "add" else bias - vector
    return replace(convolution, weights=Weights(kernel, bias))


def fold_margins(graph: Graph) -> int:
    """Makes zero padding and cropping in front of convolutions their own, and cropping behind them, as causal ones have it;
    returns how often.

    Other readers of the padded image keep it, and of the whole result.
    """
    folded = _fold_crops(graph)
    for node in graph.nodes:
        while node.op == "convolution" and node.inputs[0].op == "frame" and node.dtype != "int32":
            frame = node.inputs[0]
            padding = _joined(frame.detail_as(Frame), node.detail_as(Convolution).padding)
            if padding is None:
                break
            node.detail = replace(node.detail_as(Convolution), padding=padding)
            node.inputs = list(frame.inputs)
            folded += 1
    graph.refresh()
    return folded


def _fold_crops(graph: Graph) -> int:
    """Outputs that are cut off are not computed: the image reaches less far beyond the first and the last window."""
    folded = 0
    for node in list(graph.nodes):
        if node.op != "frame" or node.inputs[0].op != "convolution" or graph.only_user(node.inputs[0]) is not node:
            continue
        source, frame = node.inputs[0], node.detail_as(Frame)
        if frame.step != (1, 1) or max(frame.margins) > 0:
            continue
        convolution = source.detail_as(Convolution)
        top, left, bottom, right = (
            padding + margin * step
            for padding, margin, step in zip(convolution.padding, frame.margins, convolution.stride * 2, strict=True)
        )
        source.detail, source.shape = replace(convolution, padding=(top, left, bottom, right)), node.shape
        graph.replace(node, source)
        folded += 1
    graph.refresh()
    return folded


def _joined(frame: Frame, padding: tuple[int, int, int, int]) -> tuple[int, int, int, int] | None:
    """`padding` around `frame` as padding around what it frames, or None where that is something else.

    Where one crops and the other pads, the convolution would see pixels again that were cut off.
    """
    sides = list(zip(frame.margins, padding, strict=True))
    if frame.step != (1, 1) or frame.fill != 0 or any(inner * outer < 0 for inner, outer in sides):
        return None
    top, left, bottom, right = (inner + outer for inner, outer in sides)
    return top, left, bottom, right

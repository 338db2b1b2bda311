"""Folds channel-wise factors and offsets (BatchNorm, biases) into the convolution they follow."""

from __future__ import annotations

import numpy as np

from .graph import Array, Convolution, Graph, Node, Weights

__all__ = ["fold_channels"]


def fold_channels(graph: Graph) -> int:
    """Multiplies and adds constants into weights and biases, in float64; returns how many operations went
    away.

    A convolution that somebody else reads before the factor keeps its weights.
    """
    folded = 0
    for node in list(graph.nodes):
        source, vector = _channel_operation(node)
        if (
            source is None
            or vector is None
            or source.op != "convolution"
            or graph.only_user(source) is not node
        ):
            continue
        source.detail = _merge(source.detail, node.detail.function, vector)
        graph.replace(node, source)
        folded += 1
    graph.refresh()
    return folded


def _channel_operation(node: Node) -> tuple[Node | None, Array | None]:
    """The image and the ``(C,)`` vector of an addition, subtraction or product with a constant."""
    if node.op != "scalar" or node.detail.function not in ("add", "multiply", "subtract"):
        return None, None
    left, right = node.inputs
    if left.op == "constant" and node.detail.function != "subtract":
        left, right = right, left
    if right.op != "constant" or left.op == "constant" or left.shape != node.shape:
        return None, None
    channels = node.shape[1]
    return left, np.broadcast_to(right.detail.reshape(-1), (channels,)).astype("float64")


def _merge(convolution: Convolution, function: str, vector: Array) -> Convolution:
    kernel, bias = convolution.weights.kernel, convolution.weights.bias
    if function == "multiply":
        kernel, bias = kernel * vector[:, None, None, None], bias * vector
    else:
        bias = bias + vector if function == "add" else bias - vector
    return Convolution(
        Weights(kernel, bias),
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
    )

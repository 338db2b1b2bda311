"""Equal weights become the same ones, and only equal ones do."""

from __future__ import annotations

import numpy as np

from reconvene.backends.graph.nodes import Convolution, Graph, Node, Weights
from reconvene.backends.graph.sharing import share_weights


def graph(*weights: Weights) -> Graph:
    nodes = [Node("convolution", [], (1, 6), detail=Convolution(each)) for each in weights]
    return Graph(nodes, [], nodes, True)


def test_equal_weights_are_shared() -> None:
    kernel, bias = np.random.default_rng(0).standard_normal((6, 600, 1, 1)), np.arange(6.0)
    nearly = kernel.copy()
    nearly[3, 7] += 1  # Beyond what is sampled.
    made = graph(
        Weights(kernel, bias), Weights(kernel.copy(), bias.copy()), Weights(nearly, bias), Weights(kernel, bias + 1),
        Weights(kernel.reshape(6, 150, 2, 2), bias), Weights(nearly.copy(), bias),
    )  # fmt: skip
    assert share_weights(made) == 2
    first, second, third, fourth, fifth, sixth = (node.detail_as(Convolution).weights for node in made.nodes)
    assert first is second and third is sixth
    assert len({id(each) for each in (first, third, fourth, fifth)}) == 4
    assert share_weights(made) == 0

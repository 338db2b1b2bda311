"""What surrounds a convolution becomes part of it: factors and summands of its channels, frames of its image."""

from __future__ import annotations

import numpy as np
import pytest

from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.nodes import Convolution, Frame, Graph, Node, Scalar, Weights, constant

X = Node("input", [], (1, 3, 8, 8))
KERNEL = np.arange(2 * 3 * 3 * 3, dtype="float64").reshape(2, 3, 3, 3)
BIAS = np.array([10.0, 20.0])
VECTOR = np.array([2.0, 3.0])


def layer(source: Node = X, padding: tuple[int, int, int, int] = (1, 1, 1, 1)) -> Node:
    return Node("convolution", [source], (1, 2, 8, 8), detail=Convolution(Weights(KERNEL, BIAS), padding=padding))


def scalar(function: str, *inputs: Node, shape: tuple[int, ...] = (1, 2, 8, 8)) -> Node:
    return Node("scalar", list(inputs), shape, detail=Scalar(function))


def graph_of(*outputs: Node) -> Graph:
    graph = Graph([], [X], list(outputs), len(outputs) > 1)
    graph.refresh()
    return graph


@pytest.mark.parametrize(
    ("function", "swapped", "kernel", "bias"),
    [
        ("multiply", False, KERNEL * VECTOR[:, None, None, None], [20.0, 60.0]),
        ("multiply", True, KERNEL * VECTOR[:, None, None, None], [20.0, 60.0]),
        ("add", False, KERNEL, [12.0, 23.0]),
        ("add", True, KERNEL, [12.0, 23.0]),
        ("subtract", False, KERNEL, [8.0, 17.0]),
    ],
)
def test_constants_of_channels_go_into_the_weights(
    function: str, swapped: bool, kernel: np.ndarray, bias: list[float]
) -> None:
    source, vector = layer(), constant(VECTOR.reshape(1, 2, 1, 1))
    graph = graph_of(scalar(function, *((vector, source) if swapped else (source, vector))))
    assert fold_channels(graph) == 1
    assert graph.nodes == [X, source] and graph.outputs == [source]
    assert np.array_equal(source.detail.weights.kernel, kernel)
    assert source.detail.weights.bias.tolist() == bias


def test_one_number_is_every_channels() -> None:
    source = layer()
    assert fold_channels(graph_of(scalar("add", source, constant(np.array(5.0))))) == 1
    assert source.detail.weights.bias.tolist() == [15.0, 25.0]


def test_a_chain_of_constants_folds_in_order() -> None:
    source = layer()
    scaled = scalar("multiply", source, constant(VECTOR.reshape(1, 2, 1, 1)))
    assert fold_channels(graph_of(scalar("add", scaled, constant(VECTOR.reshape(1, 2, 1, 1))))) == 2
    assert source.detail.weights.bias.tolist() == [22.0, 63.0]


def test_what_is_no_constant_of_a_channel_or_is_read_before_stays() -> None:
    vector = constant(VECTOR.reshape(1, 2, 1, 1))
    one, two, shown = layer(), layer(), layer()
    wider = scalar("add", Node("convolution", [X], (1, 2, 1, 1), detail=one.detail), vector)
    kept = [
        scalar("subtract", vector, layer()),
        scalar("maximum", layer(), vector),
        scalar("add", layer(), layer()),
        scalar("add", X, constant(np.ones(3).reshape(1, 3, 1, 1)), shape=X.shape),
        scalar("add", vector, vector),
        wider,
        scalar("add", two, vector),
        scalar("relu", two),
        scalar("add", shown, vector),
        shown,
    ]
    graph = graph_of(*kept)
    assert fold_channels(graph) == 0
    assert graph.outputs == kept


def framed(
    margins: tuple[int, int, int, int],
    padding: tuple[int, int, int, int],
    step: tuple[int, int] = (1, 1),
    fill: float = 0,
) -> tuple[int, tuple[int, int, int, int]]:
    """How often a frame before a layer is folded, and the layer's padding after it."""
    frame = Node("frame", [X], (1, 3, 8, 8), detail=Frame(margins, step, fill))
    source = layer(frame, padding)
    count = fold_margins(graph_of(source))
    assert source.inputs == ([X] if count else [frame])
    return count, source.detail.padding


@pytest.mark.parametrize(
    ("margins", "padding", "joined"),
    [
        ((1, 2, 3, 4), (0, 0, 0, 0), (1, 2, 3, 4)),
        ((1, 2, 3, 4), (5, 6, 7, 8), (6, 8, 10, 12)),
        ((-1, -2, 0, 0), (0, 0, 1, 1), (-1, -2, 1, 1)),
        ((-1, 0, 2, 0), (-1, 1, 0, 0), (-2, 1, 2, 0)),
    ],
)
def test_frames_become_padding(
    margins: tuple[int, int, int, int], padding: tuple[int, int, int, int], joined: tuple[int, int, int, int]
) -> None:
    assert framed(margins, padding) == (1, joined)


def test_frames_that_are_no_padding_stay() -> None:
    none = (0, 0, 0, 0)
    assert framed((1, 1, 1, 1), none, step=(2, 1)) == framed((1, 1, 1, 1), none, step=(1, 2)) == (0, none)
    assert framed((1, 1, 1, 1), none, fill=1.0) == (0, none)
    assert framed((-1, 0, 0, 0), (1, 0, 0, 0)) == (0, (1, 0, 0, 0)), "pixels that were cut off would be seen again"
    assert framed((0, 0, 0, 2), (0, 0, 0, -1)) == (0, (0, 0, 0, -1))


def test_frames_in_a_row_fold_and_other_readers_keep_theirs() -> None:
    inner = Node("frame", [X], (1, 3, 10, 10), detail=Frame((1, 1, 1, 1)))
    outer = Node("frame", [inner], (1, 3, 12, 12), detail=Frame((1, 1, 1, 1)))
    source, other = layer(outer, (0, 0, 0, 0)), Node("pool", [outer], (1, 3, 6, 6))
    graph = graph_of(source, other)
    assert fold_margins(graph) == 2
    assert source.inputs == [X] and source.detail.padding == (2, 2, 2, 2)
    assert other.inputs == [outer] and outer.inputs == [inner]

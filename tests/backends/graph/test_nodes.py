"""The backend's small graph: shapes, readers, and order."""

from __future__ import annotations

import numpy as np
import pytest

from reconvene.backends.graph.nodes import Convolution, Graph, Node, Weights, constant
from reconvene.backends.lowering.images import _halos


def node(op: str, *inputs: Node, shape: tuple[int, ...] = (1, 8, 6, 6), dtype: str = "float32") -> Node:
    return Node(op, list(inputs), shape, dtype)


def graph_of(*outputs: Node, inputs: list[Node] | None = None) -> Graph:
    graph = Graph([], inputs or [], list(outputs), len(outputs) > 1)
    graph.refresh()
    return graph


@pytest.mark.parametrize(
    ("shape", "dtype", "image"),
    [
        ((1, 8, 6, 5), "float32", True),
        ((2, 8), "float32", True),
        ((2, 8, 3), "float32", False),
        ((8,), "float32", False),
        ((), "float32", False),
        ((1, 2, 3, 4, 5), "float32", False),
        ((1, 8, 6, 5), "float64", True),
        ((2, 8), "int64", True),
        ((1, 0, 6, 5), "float32", False),
        ((0, 8), "float32", False),
    ],
)
def test_images_are_four_or_two_axes_of_whatever_type(shape: tuple[int, ...], dtype: str, image: bool) -> None:
    assert node("input", shape=shape, dtype=dtype).is_image == image


def test_a_matrix_is_an_image_of_one_pixel() -> None:
    assert node("input", shape=(2, 8)).image_shape == (2, 8, 1, 1)
    assert node("input", shape=(2, 8, 6, 5)).image_shape == (2, 8, 6, 5)


def test_nodes_follow_their_inputs_and_what_nobody_needs_goes() -> None:
    x, unused = node("input"), node("input")
    left = node("scalar", x)
    right, dead = node("pool", left), node("pool", left)
    total = node("scalar", right, left)
    graph = graph_of(total, inputs=[x, unused])
    assert graph.nodes == [x, unused, right.inputs[0], right, total]
    assert dead not in graph.users.get(left, [])
    assert graph.users == {x: [left], left: [right, total], right: [total]}


def test_a_chain_of_any_length_is_put_in_order() -> None:
    chain = [node("input")]
    for _ in range(5_000):
        chain.append(node("scalar", chain[-1]))
    assert graph_of(chain[-1]).nodes == chain


def test_the_only_reader_is_one_and_no_output_beside_it() -> None:
    x = node("input")
    once, twice, shown = node("pool", x), node("pool", x), node("pool", x)
    reader, other = node("scalar", once, twice), node("scalar", twice, shown)
    graph = graph_of(reader, other, shown)
    assert graph.only_user(once) is reader
    assert graph.only_user(twice) is None, "two readers"
    assert graph.only_user(shown) is None, "an output, too"
    assert graph.only_user(other) is None, "no reader"


def test_what_is_replaced_is_read_by_nobody() -> None:
    x = node("input")
    old = node("pool", x)
    reader = node("scalar", old, x, old)
    new = node("mean", x)
    graph = graph_of(old, reader, inputs=[x])
    graph.replace(old, new)
    assert reader.inputs == [new, x, new]
    assert graph.outputs == [new, reader]
    assert graph.users[new] == [reader, reader] and old not in graph.users
    graph.refresh()
    assert graph.nodes == [x, new, reader]


def test_a_constant_has_the_shape_and_type_of_its_array() -> None:
    found = constant(np.zeros((2, 3), "float64"), "zeros")
    assert (found.op, found.shape, found.dtype, found.name, found.inputs) == (
        "constant",
        (2, 3),
        "float64",
        "zeros",
        [],
    )


def test_what_a_layer_pads_has_a_border_as_wide_as_the_widest() -> None:
    def layer(source: Node, *padding: int) -> Node:
        top, left, bottom, right = padding
        detail = Convolution(Weights(np.zeros((8, 8, 1, 1)), np.zeros(8)), padding=(top, left, bottom, right))
        return Node("convolution", [source], (1, 8, 6, 6), detail=detail)

    x = node("input")
    padded, cropped, plain, shuffled = node("scalar", x), node("scalar", x), node("scalar", x), node("scalar", x)
    reindex = node("reindex", shuffled)
    graph = graph_of(
        layer(padded, 1, 0, 2, 0), layer(padded, 0, 0, 1, 0), layer(cropped, -1, -1, -1, -2), layer(plain, 0, 0, 0, 0),
        layer(reindex, 0, 3, 0, 0),
    )  # fmt: skip
    assert _halos(graph) == {padded: 2, cropped: 0, reindex: 3, shuffled: 3}

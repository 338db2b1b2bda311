"""Which nodes of the backend's graph become one kernel."""

from __future__ import annotations

from typing import Any

import pytest

from reconvene.backends.graph.fusion import ANCHORS, group_nodes
from reconvene.backends.graph.nodes import Graph, Node

SHAPE = (1, 8, 6, 6)
X = Node("input", [], SHAPE, name="x")


def node(op: str, *inputs: Node, shape: tuple[int, ...] = SHAPE) -> Node:
    return Node(op, list(inputs), shape)


def grouped(*outputs: Node) -> list[tuple[Node | None, list[Node], Node]]:
    """Anchor, elementwise nodes and sink of every kernel, in the order they run in; the input has none."""
    graph = Graph([], [X], list(outputs), len(outputs) > 1)
    graph.refresh()
    groups = group_nodes(graph)
    assert [group.sink for group in groups if group.sink.op == "input"] == [X]
    return [(group.anchor, group.scalars, group.sink) for group in groups if group.sink.op != "input"]


@pytest.mark.parametrize("op", sorted(ANCHORS))
def test_what_follows_element_by_element_joins_what_makes_the_elements(op: str) -> None:
    anchor = node(op, X)
    first = node("scalar", anchor)
    second = node("scalar", first)
    assert grouped(second) == [(anchor, [first, second], second)]


@pytest.mark.parametrize("op", ["foreign", "reindex", "product", "softmax", "reshape"])
def test_other_nodes_are_kernels_of_their_own(op: str) -> None:
    source = node(op, X)
    after = node("scalar", source)
    assert grouped(after) == [(None, [], source), (None, [after], after)]


def test_two_readers_of_one_kernel_share_it_with_what_they_read() -> None:
    source = node("convolution", X)
    gate = node("scalar", source)
    product = node("scalar", gate, source)
    assert grouped(product) == [(source, [gate, product], product)]


def test_readers_in_two_kernels_leave_it_alone() -> None:
    source = node("convolution", X)
    left, right = node("scalar", source), node("scalar", source)
    assert grouped(left, right) == [(source, [], source), (None, [left], left), (None, [right], right)]


def test_readers_that_end_in_kernels_with_anchors_of_their_own_leave_it_alone() -> None:
    source = node("pool", X)
    left, right = (node("scalar", source, node("convolution", X)) for _ in range(2))
    assert [(anchor, sink) for anchor, _, sink in grouped(left, right)] == [
        (source, source), (left.inputs[1], left), (right.inputs[1], right),
    ]  # fmt: skip


@pytest.mark.parametrize("follows", [False, True])
def test_of_two_layers_that_are_added_the_later_takes_the_sum(follows: bool) -> None:
    first = node("convolution", X)
    second = node("convolution", first if follows else X)
    total = node("scalar", first, second)
    assert grouped(total) == [(first, [], first), (second, [total], total)]


@pytest.mark.parametrize("op", ["foreign", "reindex", "reshape", "convolution"])
@pytest.mark.parametrize("before", ["convolution", "scalar"])
def test_nothing_joins_a_reader_that_is_not_elementwise(before: str, op: str) -> None:
    source = node(before, X)
    reader = node(op, source)
    assert [sink for _, _, sink in grouped(reader)] == [source, reader]


def test_what_is_read_by_something_else_too_stays_whole() -> None:
    source = node("convolution", X)
    rectified, pooled = node("scalar", source), node("pool", source)
    found = grouped(rectified, pooled)
    assert found == [(source, [], source), (None, [rectified], rectified), (pooled, [], pooled)]


def test_an_output_leaves_its_kernel() -> None:
    source = node("convolution", X)
    rectified = node("scalar", source)
    assert grouped(source, rectified) == [(source, [], source), (None, [rectified], rectified)]


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 1, 6, 6)])
def test_what_is_spread_over_a_larger_image_is_made_before_it(shape: tuple[int, ...]) -> None:
    gate: Any = node("scalar", X, shape=shape)
    product = node("scalar", X, gate)
    assert grouped(product) == [(None, [gate], gate), (None, [product], product)]

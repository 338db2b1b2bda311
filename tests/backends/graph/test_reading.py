"""Which operators of an imported program the backend's graph takes, as what, and which stay TVM's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tvm import relax

from reconvene.backends.graph.nodes import Frame, Graph, Node, Pool, Reindex, Scalar
from reconvene.backends.graph.read import read_relax

op, nn = relax.op, relax.op.nn
IMAGE, ROWS, CUBE = (2, 8, 6, 4), (5, 8), (2, 3, 8)


def array(*shape: int, dtype: str = "float32") -> Any:
    return relax.const(np.arange(1, 1 + int(np.prod(shape)), dtype=dtype).reshape(shape))


def read(build: Callable[..., Any], *shapes: Sequence[int], dtype: str = "float32") -> Graph:
    """The graph of one expression of inputs of these shapes."""
    builder = relax.BlockBuilder()
    inputs = [relax.Var(f"x{number}", relax.TensorType(shape, dtype)) for number, shape in enumerate(shapes)]
    with builder.function("main", inputs):
        with builder.dataflow():
            value = builder.normalize(build(*inputs))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    return read_relax(builder.finalize())


def made(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op not in ("input", "constant")]


def kinds(build: Callable[..., Any], *shapes: Sequence[int], dtype: str = "float32") -> list[str]:
    return [node.op for node in made(read(build, *shapes, dtype=dtype))]


@pytest.mark.parametrize(
    ("build", "shapes", "expected"),
    [
        (lambda x: nn.conv2d(x, array(4, 8, 3, 3)), [IMAGE], ["convolution"]),
        (lambda x: nn.conv2d(x, array(4, 8, 3, 3), data_layout="NCHW", out_layout="NHWC"), [IMAGE], ["foreign"]),
        (lambda x, w: nn.conv2d(x, w), [IMAGE, (4, 8, 3, 3)], ["foreign"]),
        (lambda x: op.matmul(x, array(8, 3)), [ROWS], ["convolution"]),
        (lambda x: op.matmul(x, array(8, 3)), [CUBE], ["reshape", "convolution", "reshape"]),
        (
            lambda x: op.matmul(x, op.broadcast_to(array(8, 5), (2, 8, 5))),
            [CUBE],
            ["reshape", "convolution", "reshape"],
        ),
        (lambda x: op.matmul(x, op.broadcast_to(array(1, 8, 5), (4, 8, 5))), [(1, 3, 8)], ["foreign", "foreign"]),
        (lambda x: op.matmul(x, op.broadcast_to(array(2, 8, 5), (2, 8, 5))), [CUBE], ["foreign", "product"]),
        (lambda x, y: op.matmul(x, y), [ROWS, (8, 3)], ["product"]),
        (lambda x, y: op.matmul(x, y), [CUBE, (2, 8, 5)], ["product"]),
        (lambda x, y: op.matmul(x, y), [(2, 4, 3, 8), (2, 4, 8, 5)], ["product"]),
        (lambda x, y: op.matmul(x, y), [CUBE, (1, 8, 5)], ["foreign"]),
        (lambda x, y: op.matmul(x, y), [(1, 3, 8), (2, 8, 5)], ["foreign"]),
        (lambda x, y: op.matmul(x, y), [CUBE, (8, 5)], ["foreign"]),
        (lambda x, y: op.matmul(x, y), [(3, 8), (2, 8, 5)], ["foreign"]),
        (lambda x, y: op.matmul(x, y), [(8,), (8,)], ["foreign"]),
        (lambda x: nn.softmax(x, -1), [CUBE], ["softmax"]),
        (lambda x: nn.softmax(x, 2), [CUBE], ["softmax"]),
        (lambda x: nn.softmax(x, 1), [CUBE], ["foreign"]),
        (lambda x: nn.softmax(x, 1), [ROWS], ["softmax"]),
        (lambda x: nn.adaptive_avg_pool2d(x, (1, 1)), [IMAGE], ["mean"]),
        (lambda x: nn.adaptive_avg_pool2d(x, (3, 2)), [IMAGE], ["pool"]),
        (lambda x: nn.adaptive_avg_pool2d(x, (1, 2)), [IMAGE], ["pool"]),
        (lambda x: nn.adaptive_avg_pool2d(x, (6, 4)), [IMAGE], []),
        (lambda x: nn.adaptive_avg_pool2d(x, (4, 4)), [IMAGE], ["foreign"]),
        (lambda x: op.mean(x, [2, 3], keepdims=True), [IMAGE], ["mean"]),
        (lambda x: op.mean(x, [-1, -2], keepdims=True), [IMAGE], ["mean"]),
        (lambda x: op.mean(x, [2, 3]), [IMAGE], ["mean"]),
        (lambda x: op.mean(x, [1, 2]), [IMAGE], ["foreign"]),
        (lambda x: op.mean(x), [IMAGE], ["foreign"]),
        (lambda x: nn.relu(x), [IMAGE], ["scalar"]),
        (lambda x: nn.relu(x), [ROWS], ["scalar"]),
        (lambda x: nn.relu(x), [CUBE], ["foreign"]),
        (lambda x: op.clip(x, 0, 6), [IMAGE], ["scalar"]),
        (lambda x: op.clip(x, 0, 6), [CUBE], ["foreign"]),
        (lambda x, y: op.add(x, y), [IMAGE, IMAGE], ["scalar"]),
        (lambda x, y: op.add(x, y), [ROWS, ROWS], ["scalar"]),
        (lambda x, y: op.multiply(x, y), [IMAGE, (2, 8, 1, 1)], ["scalar"]),
        (lambda x, y: op.multiply(x, y), [IMAGE, (1, 8, 1, 1)], ["foreign"]),
        (lambda x, y: op.multiply(x, y), [IMAGE, (2, 1, 6, 4)], ["foreign"]),
        (lambda x, y: op.add(x, y), [CUBE, CUBE], ["foreign"]),
        (lambda x: op.add(x, array(1, 8, 1, 1)), [IMAGE], ["scalar"]),
        (lambda x: op.add(x, array(8, 1, 1)), [IMAGE], ["scalar"]),
        (lambda x: op.add(x, array(8)), [ROWS], ["scalar"]),
        (lambda x: op.add(x, array(1)), [IMAGE], ["scalar"]),
        (lambda x: op.add(x, array(4)), [IMAGE], ["foreign"]),
        (lambda x: op.add(x, array(1, 1, 6, 4)), [IMAGE], ["foreign"]),
        (lambda x: op.divide(x, array(1, 8, 1, 1)), [IMAGE], ["scalar"]),
        (lambda x: op.divide(x, relax.const(np.zeros((1, 8, 1, 1), "float32"))), [IMAGE], ["foreign"]),
        (lambda x: op.divide(x, relax.const(np.full((1, 8, 1, 1), 1e-39, "float32"))), [IMAGE], ["foreign"]),
        (lambda x, y: op.divide(x, y), [IMAGE, IMAGE], ["foreign"]),
        (lambda x, y: op.concat([x, y], 1), [IMAGE, (2, 3, 6, 4)], ["concat"]),
        (lambda x, y: op.concat([x, y], -3), [IMAGE, (2, 3, 6, 4)], ["concat"]),
        (lambda x, y: op.concat([x, y], 2), [IMAGE, IMAGE], ["foreign"]),
        (lambda x: op.concat([x, array(2, 3, 6, 4)], 1), [IMAGE], ["foreign"]),
        (lambda x, y: op.concat([x, y], 1), [CUBE, CUBE], ["foreign"]),
        (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 2, 3, 4)), [IMAGE], ["frame"]),
        (lambda x: nn.pad(x, (0, 0, 1, 0, 0, 0, 0, 0)), [IMAGE], ["foreign"]),
        (lambda x: nn.pad(x, (1, 0, 0, 0, 0, 0, 0, 0)), [IMAGE], ["foreign"]),
        (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1), "constant", float("inf")), [IMAGE], ["foreign"]),
        (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1), "reflect"), [IMAGE], ["foreign"]),
        (lambda x: nn.pad(x, (0, 0, 1, 1)), [ROWS], ["foreign"]),
        (lambda x: op.reshape(x, (2, 192)), [IMAGE], ["flatten"]),
        (lambda x: op.reshape(x, (2, 8, 24)), [IMAGE], ["foreign"]),
        (lambda x: op.reshape(x, (5, 8, 1, 1)), [ROWS], ["flatten"]),
        (lambda x: op.reshape(x, (5, 8)), [ROWS], []),
        (lambda x: op.reshape(x, (6, 8)), [CUBE], ["reshape"]),
        (lambda x: op.reshape(x, (3, 2, 8)), [(6, 8)], ["reshape"]),
        (lambda x: op.reshape(x, (3, 2, 8)), [CUBE], ["foreign"]),
        (lambda x: op.reshape(x, (3, 16)), [CUBE], ["foreign"]),
        (lambda x: op.reshape(op.reshape(x, (3, 2, 8)), (6, 8)), [(6, 8)], []),
    ],
)  # fmt: skip
def test_what_becomes_of_an_operator(
    build: Callable[..., Any], shapes: list[Sequence[int]], expected: list[str]
) -> None:
    assert kinds(build, *shapes) == expected


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (lambda x, y: op.matmul(x, y), [CUBE, (2, 8, 5)]),
        (lambda x: nn.softmax(x, -1), [CUBE]),
        (lambda x: nn.relu(x), [IMAGE]),
        (lambda x, y: op.add(x, y), [IMAGE, IMAGE]),
        (lambda x: nn.adaptive_avg_pool2d(x, (1, 1)), [IMAGE]),
        (lambda x: op.reshape(x, (2, 192)), [IMAGE]),
        (lambda x: nn.max_pool2d(x, (2, 2)), [IMAGE]),
        (lambda x: nn.pad(x, (0, 0, 0, 0, 1, 2, 3, 4)), [IMAGE]),
    ],
)
def test_other_types_stay_tvms(build: Callable[..., Any], shapes: list[Sequence[int]]) -> None:
    assert kinds(build, *shapes, dtype="float64") == ["foreign"]


def test_details_are_those_of_the_call() -> None:
    (node,) = made(read(lambda x: nn.conv2d(x, array(4, 4, 3, 2), (2, 1), (1, 2, 3, 4), (1, 2), 2), IMAGE))
    detail = node.detail
    assert (detail.stride, detail.padding, detail.dilation, detail.groups) == ((2, 1), (1, 2, 3, 4), (1, 2), 2)
    assert (
        np.array_equal(detail.weights.kernel, np.arange(1.0, 97).reshape(4, 4, 3, 2)) and not detail.weights.bias.any()
    )
    (node,) = made(read(lambda x: op.matmul(x, array(8, 3)), ROWS))
    assert node.detail.weights.kernel[:, :, 0, 0].tolist() == np.arange(1.0, 25).reshape(8, 3).T.tolist()
    (node,) = made(read(lambda x: nn.max_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1)), IMAGE))
    assert node.detail == Pool("max", (3, 2), (2, 1), (1, 0, 1, 1))
    (node,) = made(read(lambda x: nn.avg_pool2d(x, (2, 2), (2, 2), (1, 1, 1, 1), count_include_pad=True), IMAGE))
    assert node.detail == Pool("average", (2, 2), (2, 2), (1, 1, 1, 1), True)
    (node,) = made(read(lambda x: nn.adaptive_avg_pool2d(x, (3, 2)), IMAGE))
    assert node.detail == Pool("average", (2, 2), (2, 2), (0, 0, 0, 0))
    (node,) = made(read(lambda x: nn.pad(x, (0, 0, 0, 0, 1, 2, 3, 4), "constant", 5.0), IMAGE))
    assert node.detail == Frame((1, 3, 2, 4), fill=5.0)
    (node,) = made(read(lambda x: op.clip(x, -1, 6), IMAGE))
    assert node.detail == Scalar("clip", (-1.0, 6.0))
    (node,) = made(read(lambda x: nn.leakyrelu(x, 0.25), IMAGE))
    assert node.detail == Scalar("leaky_relu", (0.25,))


def test_division_by_what_is_known_is_a_product() -> None:
    (node,) = made(read(lambda x: op.divide(x, array(1, 8, 1, 1)), IMAGE))
    assert node.detail == Scalar("multiply")
    assert np.allclose(node.inputs[1].detail.reshape(-1), 1 / np.arange(1.0, 9))


def test_slices_are_channels_in_an_order_and_frames() -> None:
    def cut(axes: list[int], begin: list[int], end: list[int], step: list[int]) -> list[Node]:
        return made(read(lambda x: op.strided_slice(x, axes, begin, end, step), IMAGE))

    (channels,) = cut([1], [1], [7], [2])
    assert (channels.op, channels.detail, channels.shape) == ("reindex", Reindex((1, 3, 5)), (2, 3, 6, 4))
    (area,) = cut([2, 3], [1, 0], [6, 3], [2, 1])
    assert (area.op, area.detail, area.shape) == ("frame", Frame((-1, 0, 0, -1), (2, 1)), (2, 8, 3, 3))
    assert [node.op for node in cut([1, 2], [0, 1], [4, 5], [1, 1])] == ["reindex", "frame"]
    assert [node.op for node in cut([0], [0], [1], [1])] == ["foreign"]


def test_parts_of_a_split_are_consecutive_channels() -> None:
    graph = read(lambda x: op.split(x, [3, 5], 1), IMAGE)
    assert [node.detail for node in graph.outputs] == [Reindex((0, 1, 2)), Reindex((3, 4)), Reindex((5, 6, 7))]
    assert kinds(lambda x: op.split(x, 2, 2), IMAGE)[0] == "foreign"


def test_a_channel_shuffle_is_an_order_of_channels() -> None:
    def shuffle(x: Any, axes: list[int], groups: int = 2) -> Any:
        opened = op.reshape(x, (2, groups, 8 // groups, 6, 4))
        return op.reshape(op.permute_dims(opened, axes), IMAGE)

    (node,) = made(read(lambda x: shuffle(x, [0, 2, 1, 3, 4]), IMAGE))
    assert node.detail == Reindex((0, 4, 1, 5, 2, 6, 3, 7))
    (node,) = made(read(lambda x: shuffle(x, [0, 2, 1, 3, 4], 4), IMAGE))
    assert node.detail == Reindex((0, 2, 4, 6, 1, 3, 5, 7))
    assert kinds(lambda x: shuffle(x, [0, 1, 2, 3, 4]), IMAGE) == ["foreign"] * 3


def test_vectors_are_added_to_matrices_that_were_reshaped() -> None:
    def layer(x: Any) -> Any:
        return nn.relu(op.add(op.matmul(x, array(8, 3)), array(3)))

    nodes = made(read(layer, CUBE))
    assert [node.op for node in nodes] == ["reshape", "convolution", "scalar", "scalar", "reshape"]
    assert [node.shape for node in nodes] == [(6, 8), (6, 3), (6, 3), (6, 3), (2, 3, 3)]
    assert kinds(lambda x: op.add(op.matmul(x, array(8, 3)), array(2, 1, 1)), CUBE)[-1] == "foreign"

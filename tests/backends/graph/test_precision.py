"""Every value of the graph has one type, and kernels take it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reconvene import compile
from reconvene.backends.graph.nodes import Graph, Node, Scalar, constant
from reconvene.backends.graph.precision import assign_types, takes
from reconvene.backends.graph.relax_calls import float_image
from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.layout import dense_view


def graph_of(node: Node, *inputs: Node) -> Graph:
    graph = Graph([], list(inputs), [node], returns_tuple=False)
    graph.refresh()
    return graph


def test_a_value_has_the_type_of_its_operand_and_so_have_constants() -> None:
    image, factor = Node("input", [], (1, 4, 3, 3)), constant(np.full((1, 4, 1, 1), 2.0))
    scaled = Node("scalar", [image, factor], image.shape, "float64", Scalar("multiply"))
    assert factor.dtype == "float64"
    assign_types(graph_of(scaled, image))
    assert scaled.dtype == factor.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_no_kernel_computes_in_a_type_that_it_does_not_take(dtype: str) -> None:
    image = Node("input", [], (1, 4), dtype)
    assert not takes(dtype) and not float_image(image)
    with pytest.raises(AssertionError, match=f"'scalar' computes on {dtype}"):
        assign_types(graph_of(Node("scalar", [image], (1, 4), dtype, Scalar("relu")), image))


def test_operands_are_of_one_type() -> None:
    one, other = Node("input", [], (1, 4)), Node("input", [], (1, 4), "float16")
    with pytest.raises(AssertionError, match="'scalar' computes on float16, float32"):
        assign_types(graph_of(Node("scalar", [one, other], (1, 4), "float32", Scalar("add")), one, other))


def test_another_shape_of_elements_of_any_type_is_no_computation() -> None:
    given = Node("input", [], (2, 6), "int64")
    assign_types(graph_of(Node("reshape", [given], (2, 2, 3), "int64"), given))


def test_a_vector_holds_more_of_a_narrower_type_and_of_codes_as_many_as_of_their_sums() -> None:
    machine = Machine(32, 16, 2**20)
    assert [machine.lanes(dtype) for dtype in ("float64", "float32", "float16", "int8")] == [4, 8, 16, 8]


def test_a_buffer_is_of_the_type_of_its_image() -> None:
    view: View = dense_view(1, 2, 3, 3, 16, 0, "float16")
    assert view.argument == ((288,), "float16") and view.element_bytes == 2


def test_operators_on_other_types_stay_tvms_and_are_right() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.relu() + 1, (y.relu() + 1) * y

    x, y = torch.randn(2, 8), torch.randn(2, 8, dtype=torch.float64)
    for found, wanted in zip(compile(Both(), (x, y)).run(x, y), Both()(x, y), strict=True):
        torch.testing.assert_close(found, wanted)

"""Products of computed matrices: what their kernels touch."""

from __future__ import annotations

import pytest
import torch
import tvm
from tvm import tirx

from reconvene.backends.graph.nodes import Graph, Node
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.emit import emit_module
from reconvene.backends.lowering.plan import make_plan


def product_of(left: Node, right: Node) -> Graph:
    """A graph of one product."""
    node = Node("product", [left, right], (*left.shape[:-1], right.shape[-1]))
    graph = Graph([left, right, node], [left, right], [node], returns_tuple=False)
    graph.refresh()
    return graph


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 11, 19])
def test_nothing_beside_the_result_is_written(columns: int) -> None:
    """Whatever the number of columns is to that of lanes; what lies behind a result may be another value."""
    left, right = Node("input", [], (2, 3, 4), name="left"), Node("input", [], (2, 4, columns), name="right")
    module = emit_module(make_plan(product_of(left, right), Machine(32, 16, 2**20)))
    (kernel,) = [function for function in module.functions.values() if isinstance(function, tirx.PrimFunc)]
    call = tvm.compile(tvm.IRModule.from_expr(kernel.with_attr("global_symbol", "product")), target="llvm")["product"]
    a, b, memory = torch.randn(2, 3, 4), torch.randn(2, 4, columns), torch.full((4096,), 7.0)
    result = memory[1024 : 1024 + 6 * columns].view(2, 3, columns)
    call(*(tvm.runtime.from_dlpack(x) for x in (a, b, result)))
    torch.testing.assert_close(result, a @ b)
    assert bool((memory[:1024] == 7).all()) and bool((memory[1024 + 6 * columns :] == 7).all())

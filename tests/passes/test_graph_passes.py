"""Our passes in torch.fx's pass manager, and their own checks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.fx.passes.infra.pass_manager import PassManager

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.graph_passes import ApplyMasks, Canonicalize, Compact, FoldBatchNorm, GraphPass

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MASKS = {"0.weight": torch.arange(8) % 2 == 0}


@pytest.fixture
def graph() -> CapturedModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3))
    return capture(model, (IMAGES,))


def test_a_pass_manager_runs_our_passes_one_after_another(graph: CapturedModule) -> None:
    manager = PassManager(passes=[Canonicalize(), ApplyMasks(MASKS), Compact((IMAGES,)), FoldBatchNorm()])
    result = manager(graph)
    assert isinstance(result, PassResult) and result.modified
    assert result.graph_module.get_submodule("0").weight.shape == (4, 3, 3, 3)
    expected = ApplyMasks(MASKS)(graph).graph_module(IMAGES)
    torch.testing.assert_close(result.graph_module(IMAGES), expected)
    assert not any("batch_norm" in str(node.target) for node in result.graph_module.graph.nodes)


def test_another_pass_stands_beside_ours(graph: CapturedModule) -> None:
    class Negate(PassBase):
        def call(self, graph_module: torch.fx.GraphModule) -> PassResult:
            output = graph_module.graph.output_node()
            with graph_module.graph.inserting_before(output):
                negated = graph_module.graph.call_function(torch.ops.aten.neg.default, (output.all_input_nodes[0],))
            negated.meta["val"] = output.all_input_nodes[0].meta["val"]
            output.replace_input_with(output.all_input_nodes[0], negated)
            return PassResult(graph_module, True)

    before = graph(IMAGES)
    result = PassManager(passes=[Negate(), Compact((IMAGES,), MASKS)])(graph)
    masked = ApplyMasks(MASKS)(graph).graph_module(IMAGES)
    torch.testing.assert_close(result.graph_module(IMAGES), masked)
    assert not torch.allclose(before, masked)


def test_a_pass_leaves_the_module_it_was_given_alone(graph: CapturedModule) -> None:
    before, text = graph(IMAGES), str(graph.graph)
    for step in (Canonicalize(), ApplyMasks(MASKS), FoldBatchNorm(), Compact((IMAGES,), MASKS)):
        step(graph)
    assert str(graph.graph) == text
    assert torch.equal(graph(IMAGES), before)


def test_modified_says_whether_anything_changed(graph: CapturedModule) -> None:
    assert not Compact((IMAGES,))(graph).modified
    outcome = Compact((IMAGES,), MASKS)(graph)
    assert outcome.modified and outcome.compaction is not None and outcome.refused == ()


def test_options_are_frozen_fields() -> None:
    step = Compact((IMAGES,))
    assert {field.name for field in dataclasses.fields(step)} == {"example_inputs", "masks", "dtype"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.dtype = torch.float32  # type: ignore[misc]


def test_a_graph_with_module_calls_is_refused_by_name() -> None:
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 3)))
    with pytest.raises(InputError, match=r"'_0' is a call_module.*capture"):
        Canonicalize()(traced)


def test_a_pass_that_breaks_the_graph_is_found_out(graph: CapturedModule) -> None:
    class Broken(GraphPass):
        def call(self, graph_module: torch.fx.GraphModule):  # type: ignore[no-untyped-def]
            outcome = Canonicalize().call(graph_module)
            next(iter(outcome.graph_module.graph.nodes)).target = "no.such.tensor"
            return outcome

    with pytest.raises(RuntimeError, match="nonexistent attribute"):
        Broken()(graph)

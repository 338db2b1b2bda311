"""What a network's code does, before any of it is built."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.nodes import Node
from reconvene.backends.graph.read import read_relax
from reconvene.backends.importing.importer import import_module
from reconvene.backends.kernels.base import Task
from reconvene.backends.kernels.convolution import ConvolutionSpec
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.plan import make_plan
from reconvene.backends.lowering.steps import Kept, KernelPlan, Placed

MACHINE = Machine(32, 16, 2**20)


class Branches(nn.Module):
    """Grouped and depthwise layers, a join with gaps, a gate, a foreign operator with two results."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(20, 24, 3, padding=1, groups=4)
        self.depthwise, self.last = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(9, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.grouped(F.relu(self.first(x)))
        y = self.depthwise(y) * torch.sigmoid(y.mean((2, 3), keepdim=True))
        parts = torch.cat([y[:, :3], y[:, 8:11], y[:, 16:19]], 1)
        values, _ = torch.topk(parts.flatten(1), 2)
        return self.last(parts), values


def planned(module: nn.Module, *shape: int) -> KernelPlan:
    imported = import_module(module.eval(), (torch.zeros(*shape),)).module
    graph = read_relax(imported)
    fold_channels(graph)
    fold_margins(graph)
    return make_plan(graph, MACHINE)


def read_by(step: Placed | Kept) -> tuple[object, ...]:
    return (*step.sources, *step.leaves) if isinstance(step, Placed) else step.inputs


def test_the_steps_of_a_network() -> None:
    """An image of few channels is packed with one lane; of what follows each value is computed in the layout it is read in."""
    plan = planned(
        nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 5, 1)), 1, 3, 8, 8
    )
    assert [step.spec.family for step in plan.kernels] == ["pack", "convolution", "pool", "convolution", "unpack"]
    assert [task.spec.rest for task in plan.tasks] == [0, 4]
    pack, first, *_, unpack = plan.kernels
    assert pack.spec.result.lanes == 1 and first.spec.source is pack.spec.result and first.sources == (pack,)
    assert plan.results == (unpack,)


def test_values_are_computed_before_they_are_read() -> None:
    plan = planned(Branches(), 2, 3, 8, 8)
    done: set[object] = {*plan.graph.inputs, *(node for node in plan.graph.nodes if node.op == "constant")}
    for step in plan.steps:
        assert all(value in done for value in read_by(step) if isinstance(value, (Placed, Kept, Node)))
        done.add(step)
    assert set(plan.results) <= done
    assert {"foreign", "item"} <= {step.node.op for step in plan.steps if isinstance(step, Kept)}
    assert {"depthwise", "mean", "rearrange"} <= {step.spec.family for step in plan.kernels}


def test_a_layer_in_bands_has_no_alternatives() -> None:
    plan = planned(Branches(), 2, 3, 8, 8)
    specs = [step.spec for step in plan.kernels if isinstance(step.spec, ConvolutionSpec)]
    assert [spec.banded for spec in specs] == [False, True, False]
    assert plan.tasks == [Task(specs[0]), Task(specs[2])]


def test_no_weight_is_packed() -> None:
    """Constants of a plan are tables of slots: layers keep their weights as they are."""
    plan = planned(Branches(), 2, 3, 8, 8)
    assert all(not step.tables for step in plan.kernels if step.layer is not None)
    assert all(table.dtype == "int32" for step in plan.kernels for table in step.tables)

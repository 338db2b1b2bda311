"""The kernels of a network, for those who look at them one by one."""

from __future__ import annotations

import torch
from torch import nn

from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.read import read_relax
from reconvene.backends.importing.importer import import_module
from reconvene.backends.lowering.plan import make_plan
from reconvene.backends.lowering.survey import kernel_uses
from reconvene.backends.machines.targets import find_target


def test_kernels_of_a_network() -> None:
    """Equal layers are one kernel that is called twice; multiply-accumulates are those of the definition."""
    same = [nn.Sequential(nn.Conv2d(30, 30, 3, padding=1), nn.ReLU()) for _ in range(2)]
    module = nn.Sequential(nn.Conv2d(3, 30, 3, padding=1), nn.ReLU(), *same, nn.Conv2d(30, 30, 3, padding=1, groups=30))
    imported = import_module(module.eval(), (torch.zeros(1, 3, 8, 8),)).module
    graph = read_relax(imported)
    fold_channels(graph)
    fold_margins(graph)
    uses = [use for use in kernel_uses(make_plan(graph, find_target("rpi4").machine)) if use.macs]
    assert [(use.family, use.calls, use.first) for use in uses] == [
        ("convolution", 1, True), ("convolution", 2, False), ("depthwise", 1, False),
    ]  # fmt: skip
    assert [use.macs for use in uses] == [64 * 9 * 3 * 30, 64 * 9 * 30 * 30, 64 * 9 * 30]

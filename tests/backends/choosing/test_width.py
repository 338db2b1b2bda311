"""Blocks of half a vector, where they are faster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.backends.choosing.width import fitting_plan
from reconvene.backends.compile import compile
from reconvene.backends.graph.nodes import Convolution, Graph, Node, Weights
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.machines.targets import find_target

DOUBLE = Machine(64, 32, 2**20, halves=True)


def graph(channels: int, size: int = 32) -> Graph:
    """Two convolutions of so many channels."""
    image = Node("input", [], (1, channels, size, size))
    nodes = [image]
    for _ in range(2):
        weights = Weights(np.ones((channels, channels, 3, 3), "float32"), np.zeros(channels, "float32"))
        detail = Convolution(weights, padding=(1, 1, 1, 1))
        nodes.append(Node("convolution", [nodes[-1]], image.shape, detail=detail))
    found = Graph(nodes, [image], [nodes[-1]], returns_tuple=False)
    found.refresh()
    return found


@pytest.mark.parametrize(("channels", "lanes"), [(8, 8), (24, 8), (16, 16), (64, 16)])
def test_half_vectors_are_for_widths_that_fill_them(channels: int, lanes: int) -> None:
    assert fitting_plan(graph(channels), DOUBLE, "off").machine.lanes() == lanes


def test_machines_of_one_rate_keep_whole_vectors() -> None:
    machine = replace(DOUBLE, halves=False)
    assert fitting_plan(graph(8), machine, "off").machine == machine


def test_results_with_half_vectors() -> None:
    """As on any machine whose vectors are that wide."""
    torch.manual_seed(0)
    host = find_target("host")
    module = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 8, 3, padding=1)).eval()
    inputs = torch.randn(1, 3, 16, 16)
    expected = module(inputs).detach()
    target = replace(host, lanes=max(4, host.lanes // 2))
    got = compile(module, (inputs,), target).run(inputs)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))

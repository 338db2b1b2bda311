"""What no kernel of ours computes is told with the layer that calls it, its line, and its share of the time."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.backends.choosing.general_code import GeneralCode, GeneralCodeWarning, told
from reconvene.backends.kernel_seconds import general_share, kernel_seconds


class Volumes(nn.Module):
    """A 3-d convolution, which is foreign, and a layer that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"solid": nn.Conv3d(2, 6, 3)})
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body["solid"](x)
        return self.head(torch.cumsum(y.mean((2, 3, 4)), 1))


@pytest.fixture(scope="module")
def built() -> reconvene.Built:
    with pytest.warns(
        GeneralCodeWarning, match=r"modelled to be general code.* nn\.conv3d of 'body\.solid' \(.*\) \d+%"
    ):
        return reconvene.compile(Volumes().eval(), (torch.randn(1, 2, 6, 6, 6),), check=False)


def test_the_dearest_comes_first_with_its_layer_and_line(built: reconvene.Built) -> None:
    dearest = built.general[0]
    lines, first = inspect.getsourcelines(Volumes.forward)
    called = first + next(number for number, line in enumerate(lines) if '["solid"]' in line)
    assert (dearest.operator, dearest.layer, dearest.calls) == ("nn.conv3d", "body.solid", 1)
    assert dearest.line == f"{Path(__file__)}:{called}"
    assert 0.5 < dearest.share < sum(code.share for code in built.general) < 1
    summed = next(code for code in built.general if code.operator == "cumsum")
    assert summed.line == f"{Path(__file__)}:{first + len(lines) - 1}" and not summed.layer


def test_kernels_are_timed_one_by_one(built: reconvene.Built) -> None:
    kernels = kernel_seconds(built, torch.randn(1, 2, 6, 6, 6), rounds=3)
    general = {kernel.name: kernel.general for kernel in kernels}
    assert next(value for name, value in general.items() if "conv3d" in name)
    assert not general["convolution_0"] and general["cumsum"]
    assert all(kernel.seconds > 0 and kernel.calls == 1 for kernel in kernels)
    assert 0 < general_share(built, torch.randn(1, 2, 6, 6, 6), rounds=3) < 1


def test_code_that_is_all_ours_says_nothing() -> None:
    model = nn.Sequential(nn.Conv1d(3, 20, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20 * 6, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error", GeneralCodeWarning)
        assert reconvene.compile(model.eval(), (torch.randn(1, 3, 8),), check=False).general == ()


def test_a_line_names_what_is_dear_and_keeps_quiet_below_a_tenth() -> None:
    found = (GeneralCode("nn.conv3d", "a", "m.py:3", 2, 0.3, 6e6), GeneralCode("add", "", "", 1, 0.01, 2e5))
    assert told(found) == (
        "31% of the time is modelled to be general code, which is slower than kernels of ours: nn.conv3d of 'a'"
        " (m.py:3) 30%; and 1 more"
    )
    assert told(found, 0.62) == (
        "62% of the time is general code, which is slower than kernels of ours: nn.conv3d of 'a' (m.py:3) 60%; and 1 more"
    )
    assert told(found, 0.1) is told(()) is None


def test_a_tiny_network_is_not_told_of() -> None:
    assert told((GeneralCode("nn.conv3d", "a", "m.py:3", 2, 0.9, 1e4),), 0.9) is None


def test_of_many_alike_some_are_named() -> None:
    line = told(tuple(GeneralCode("softplus", f"{place}", "", 1, 0.06, 1e5) for place in range(12)))
    assert line is not None and line.endswith(
        "ours: softplus of '0' 6%; softplus of '1' 6%; softplus of '2' 6%; softplus of '3' 6%; and 8 more"
    )

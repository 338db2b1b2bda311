"""Compiled code is compared with the model on inputs of several kinds, for this machine and for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from reconvene.backends.comparison import difference
from reconvene.backends.compile import compile
from reconvene.backends.importing.decompositions import importable
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import CheckError, InputError
from reconvene.frontend.capture import capture

A = torch.ops.aten
SMALL = torch.linspace(-0.001, 0.001, 12).reshape(3, 4)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Shown(nn.Module):
    """The mean of what a mask shows."""

    def forward(self, x: Tensor, shown: Tensor) -> Tensor:
        return torch.where(shown, x, 0.0).sum(-1) / shown.sum(-1)


class Variance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.var(x, -1)


@pytest.fixture
def misread(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[OpOverload, Any]], None]:
    """Makes the importer take some operators for others."""

    def patch(wrong: Mapping[OpOverload, Any]) -> None:
        monkeypatch.setattr("reconvene.backends.importing.importer.importable", lambda: {**importable(), **wrong})

    return patch


@pytest.mark.parametrize("target", ["host", "rpi4", "cortex-m7"])
def test_what_is_right_for_the_example_only_is_withheld_for_every_target(misread: Any, target: str) -> None:
    misread({A.sin.default: lambda x: x})  # As good as right where x is small.
    with pytest.raises(CheckError, match=r"off by .* on inputs of the kind 'as given'"):
        compile(Sine(), (SMALL,), target)
    assert compile(Sine(), (SMALL,), target, check=False).target.name == target


def test_unstable_arithmetic_shows_on_a_large_mean(misread: Any) -> None:
    def squares_less_square(
        x: Tensor, dim: list[int], correction: float | None = None, keepdim: bool = False
    ) -> Tensor:
        mean = x.mean(dim, keepdim)
        return ((x * x).mean(dim, keepdim) - mean * mean) * (x.shape[-1] / (x.shape[-1] - 1))

    misread({A.var.correction: squares_less_square})
    with pytest.raises(CheckError, match=r"off by .* on inputs of the kind 'large mean'"):
        compile(Variance(), (torch.randn(4, 64),))


def test_masks_are_varied(misread: Any) -> None:
    misread({A.div.Tensor: lambda x, y: torch.where(y == 0, torch.zeros_like(x), x * A.reciprocal(y))})
    example = torch.randn(3, 5), torch.ones(3, 5, dtype=torch.bool)
    with pytest.raises(CheckError, match=r"NaNs are elsewhere, on inputs of the kind '(random|one row false)'"):
        compile(Shown(), example)


def test_on_inputs_of_the_callers_own(misread: Any) -> None:
    misread({A.sin.default: lambda x: torch.where(x == 5, torch.zeros_like(x), A.cos(x - torch.pi / 2))})
    assert compile(Sine(), (SMALL,), check_inputs=[(SMALL + 1,)]).run(SMALL).shape == (3, 4)
    with pytest.raises(CheckError, match=r"on check_inputs\[1\]"):
        compile(Sine(), (SMALL,), check_inputs=[(SMALL,), (torch.full((3, 4), 5.0),)])
    with pytest.raises(InputError, match="must be float32 3x4, got float32 3x5"):
        compile(Sine(), (SMALL,), check_inputs=[(torch.ones(3, 5),)])
    with pytest.raises(InputError, match="leave out check_inputs or check=False"):
        compile(Sine(), (SMALL,), check_inputs=[(SMALL,)], check=False)


def test_files_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], misread: Any) -> None:
    misread({A.sin.default: lambda x: torch.where(x == 5, torch.zeros_like(x), A.cos(x - torch.pi / 2))})
    np.save(tmp_path / "five.npy", np.full((3, 4), 5, np.float32))
    np.save(tmp_path / "one.npy", np.ones((3, 4), np.float32))
    line = ["compile", f"{__file__}:Sine", "--input", "3x4", "-o", str(tmp_path / "bundle")]
    assert main([*line, "--check-input", str(tmp_path / "one.npy")]) == 0
    assert main([*line, "--check-input", str(tmp_path / "five.npy")]) == 1
    assert "on check_inputs[0]" in capsys.readouterr().err
    assert main([*line, "--check-input", str(tmp_path / "none.npy")]) == 2


class Chosen(nn.Module):
    """Where the three largest numbers are, of which a constant image has only equal ones."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 3.0).softmax(-1).topk(3).indices


def test_what_a_rounding_decides_is_no_disagreement() -> None:
    graph, x = capture(Chosen(), (torch.randn(4, 64),)), torch.randn(4, 64)

    def last_of_equals(x: Tensor) -> Tensor:
        return 63 - Chosen()(x.flip(-1))

    assert not torch.equal(last_of_equals(torch.ones(4, 64)), Chosen()(torch.ones(4, 64)))
    assert difference(last_of_equals, graph, (x,), (), graph) is None
    assert difference(lambda x: Chosen()(x + x.flip(-1)), graph, (x,), (), graph) is not None


def test_made_inputs_that_the_model_does_not_take_are_left_out() -> None:
    class Table(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.arange(10.0)[x.long()]

    x = torch.arange(5.0)
    graph = capture(Table(), (x,))
    with pytest.raises(IndexError):
        graph(x + 1000)
    assert difference(Table(), graph, (x,), (), graph) is None

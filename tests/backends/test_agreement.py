"""Compiled code is compared with the model: what counts as agreement, and what happens without it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reconvene.backends.agreement import disagreement
from reconvene.backends.compile import compile
from reconvene.backends.importing.decompositions import importable
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import CheckError

ONES = torch.ones(4)


@pytest.mark.parametrize(
    "found",
    [ONES, ONES + 0.009, torch.tensor([1.0, 1.0, 1.0, 0.995])],
    ids=["equal", "all a little off", "one a little off"],
)
def test_rounding_is_agreement(found: Tensor) -> None:
    assert disagreement([ONES], [found]) is None


def test_infinities_agree_where_they_are() -> None:
    masked = torch.tensor([1.0, -math.inf, math.nan])
    assert disagreement([masked], [masked.clone()]) is None
    assert disagreement([torch.full((2,), math.nan)], [torch.full((2,), math.nan)]) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "0 outputs instead of 1"),
        ([ONES.double()], "output 0: torch.float64"),
        ([torch.ones(2)], r"torch.float32 \(2,\) instead"),
        ([torch.tensor([1.0, 1.0, 1.0, 1.02])], "off by 0.02, the largest value is 1"),
        ([torch.tensor([1.0, 1.0, 1.0, math.nan])], "infinities or NaNs"),
    ],
)
def test_disagreement_is_named(found: list[Tensor], words: str) -> None:
    reason = disagreement([ONES], found)
    assert reason is not None
    with pytest.raises(CheckError, match=words):
        raise CheckError(reason)


def test_few_indices_may_differ() -> None:
    indices = torch.arange(200)
    one, many = indices.clone(), indices.clone()
    one[7], many[:20] = 8, 0
    assert disagreement([indices], [one]) is None
    assert disagreement([indices], [many]) == "output 0: 9.5% of the entries differ"


class Wave(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


@pytest.fixture
def misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """An importer that takes a sine for a cosine."""
    wrong = {**importable(), torch.ops.aten.sin.default: torch.ops.aten.cos.default}
    monkeypatch.setattr("reconvene.backends.importing.importer.importable", lambda: wrong)


@pytest.mark.usefixtures("misread")
def test_a_model_that_the_code_disagrees_with_is_refused_unless_nobody_asks() -> None:
    with pytest.raises(CheckError, match=r"does not compute what the model does: output 0.*check=False"):
        compile(Wave(), (torch.zeros(64),))
    found = compile(Wave(), (torch.zeros(64),), check=False).run(torch.zeros(64))
    torch.testing.assert_close(found, torch.ones(64))


class Counting(nn.Module):
    """Writes to a buffer whenever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * 2


def test_the_comparison_leaves_the_model_as_it_was() -> None:
    model = Counting()
    compile(model, (torch.ones(3),))
    assert model.calls == 0


@pytest.mark.usefixtures("misread")
def test_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["compile", f"{__file__}:Wave", "--input", "4x16", "-o", "wave"]
    assert main(line) == 1
    error = capsys.readouterr().err
    assert "error: the code for" in error and "Traceback" not in error and not Path("wave").exists()
    assert main([*line, "--no-check"]) == 0

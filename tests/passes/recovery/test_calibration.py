"""A person's own calibration inputs: taken as they are, cut to the network's batch, or refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.recovery.calibration import given_calibration

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EXAMPLE = (IMAGES[:2],)
FREE = capture(nn.Conv2d(3, 4, 3), EXAMPLE)
FIXED = capture(nn.Conv2d(3, 4, 3), EXAMPLE, ({},))


@pytest.mark.parametrize("given", [IMAGES, (IMAGES,), [IMAGES[:4], IMAGES[4:]], {"input": IMAGES}, [(IMAGES,)]])
def test_calls_are_what_was_given(given: Any) -> None:
    made = given_calibration(FREE, given, EXAMPLE)
    assert torch.equal(torch.cat([call[0] for call in made.calls]), IMAGES)
    assert len(made.calls) == (2 if isinstance(given, list) and len(given) == 2 else 1)
    assert made.description == "6 inputs that were given"


def test_a_fixed_batch_is_cut() -> None:
    made = given_calibration(FIXED, IMAGES, EXAMPLE)
    assert [len(call[0]) for call in made.calls] == [2, 2, 2]
    assert torch.equal(torch.cat([call[0] for call in made.calls]), IMAGES)


def test_numbers_take_the_type_of_the_example() -> None:
    ((images,),) = given_calibration(FREE, IMAGES.double(), EXAMPLE).calls
    assert images.dtype is torch.float32 and torch.equal(images, IMAGES)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.read(x) * mask


def test_several_inputs_are_cut_together() -> None:
    example = (torch.randn(1, 4), torch.ones(1, 1, dtype=torch.bool))
    graph = capture(Two(), example, ({}, {}))
    made = given_calibration(graph, (torch.randn(3, 4), torch.tensor([[True], [False], [True]])), example)
    assert [bool(call[1]) for call in made.calls] == [True, False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the list of calibration inputs is empty"),
        (IMAGES[:, :2], "do not fit the model: input 'input' has size 2 along axis 1"),
        ((IMAGES, IMAGES), "do not fit the model: the captured model takes the inputs input"),
        ({"image": IMAGES}, "'input'"),
        (torch.full((2, 3, 8, 8), float("nan")), "hold NaN or infinity"),
        ((IMAGES * 50).to(torch.uint8), "are uint8, and the model takes float32"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_calibration(FREE, given, EXAMPLE)


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(InputError, match="do not fit the model: input 'input' has size 5 along axis 0, and needs 2"):
        given_calibration(FIXED, IMAGES[:5], EXAMPLE)
    with pytest.raises(InputError, match="the calibration inputs hold a float"):
        given_calibration(FIXED, np.zeros(3).tolist(), EXAMPLE)

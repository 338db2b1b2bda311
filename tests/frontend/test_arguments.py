"""Example inputs by position, by keyword, or alone; the captured module is called as the model is."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver import api
from reconvene.frontend.base.errors import CaptureError, InputError
from reconvene.frontend.capture import capture

IMAGE, SCALE = torch.randn(2, 8), torch.rand(2, 1)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, image: Tensor, shift: Tensor | None = None, *, scale: Tensor, power: int = 1) -> Tensor:
        y = self.out(self.hidden(image).relu()) * scale**power
        return y if shift is None else y + shift


class Anything(Scaled):
    def forward(self, *args: Any, **named: Any) -> Tensor:  # type: ignore[override]
        return super().forward(*args, **named)


@pytest.mark.parametrize("given", [{"scale": SCALE, "image": IMAGE}, UserDict({"image": IMAGE, "scale": SCALE})])
def test_keywords_in_any_order(given: Any) -> None:
    model = Scaled().eval()
    result = api.prune(model, given)
    assert result.report.after.parameters < result.report.before.parameters
    more = {"image": torch.randn(5, 8), "scale": torch.rand(5, 1)}
    again = api.compact(model, given).module
    expected = model(**more)
    torch.testing.assert_close(again(**more), expected)
    torch.testing.assert_close(again(more["image"], scale=more["scale"]), expected)
    torch.testing.assert_close(again(scale=more["scale"], image=more["image"]), expected)
    assert api.compact(result.module, {"scale": SCALE, "image": IMAGE}).module(IMAGE, SCALE).shape == (2, 4)


def test_what_is_left_out_keeps_its_default_and_what_is_given_its_value() -> None:
    model = Scaled().eval()
    module = capture(model, {"image": IMAGE, "scale": SCALE, "power": 2, "shift": None})
    torch.testing.assert_close(module(IMAGE, None, scale=SCALE, power=2), model(IMAGE, scale=SCALE, power=2))
    with pytest.raises(InputError, match="input 'power' is 3, but the model was captured with 2"):
        module(IMAGE, None, scale=SCALE, power=3)
    with pytest.raises(InputError, match="input 'shift' was None at capture, and is a tensor now"):
        module(IMAGE, SCALE, scale=SCALE, power=2)


def test_one_tensor_is_one_input() -> None:
    model = nn.Linear(8, 4).eval()
    assert torch.equal(capture(model, IMAGE)(IMAGE), model(IMAGE))
    assert api.compact(model, IMAGE).module(IMAGE).shape == (2, 4)


def test_a_forward_that_takes_anything() -> None:
    model = Anything().eval()
    module = capture(model, {"image": IMAGE, "scale": SCALE})
    torch.testing.assert_close(module(image=IMAGE, scale=SCALE), model(IMAGE, scale=SCALE))


def test_names_that_do_not_fit_are_named() -> None:
    with pytest.raises(
        InputError, match=r"Scaled takes no input 'picture'.* it takes 'image', 'shift', 'scale', 'power'"
    ):
        capture(Scaled(), {"picture": IMAGE, "scale": SCALE})
    with pytest.raises(CaptureError, match="missing 1 required keyword-only argument: 'scale'"):
        capture(Scaled(), {"image": IMAGE})
    module = capture(Scaled(), {"image": IMAGE, "scale": SCALE})
    with pytest.raises(InputError, match=r"takes the inputs 'image', 'scale'; what was given lacks 'scale'"):
        api.compact(module, {"image": IMAGE})

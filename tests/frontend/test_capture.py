"""Capture: what is taken, how it is left, and one line that says what to change where a model cannot be followed."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from reconvene.frontend.base.errors import CaptureError, InputError
from reconvene.frontend.capture import capture, example_inputs_of
from reconvene.frontend.graph_module import CapturedModule

IMAGE = (torch.randn(2, 3, 8, 8),)


class Plain(nn.Module):
    """Convolution, normalisation, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.dropout = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(x)).relu())


def line_of(function: Any, text: str) -> str:
    """``file.py:12`` of the line of a function that holds `text`."""
    lines, first = inspect.getsourcelines(function)
    return f"{Path(__file__).name}:{first + next(n for n, line in enumerate(lines) if text in line)}"


def message_of(model: nn.Module, inputs: Any = IMAGE, **options: Any) -> str:
    """The message of the error that capturing raises."""
    with pytest.raises(CaptureError) as caught:
        capture(model, inputs, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_names_and_numbers_are_those_of_the_model() -> None:
    model = Plain().eval()
    module = capture(model, IMAGE)
    assert set(dict(module.named_parameters())) == set(dict(model.named_parameters()))
    assert torch.equal(module(*IMAGE), model(*IMAGE))
    module.graph.lint()


def test_capture_is_in_inference_mode_and_leaves_the_model_in_its_own() -> None:
    model = Plain().train()
    model.norm.eval()
    statistics = model.norm.running_mean.clone()
    module = capture(model, IMAGE)
    assert not module.training
    assert (model.training, model.norm.training, model.dropout.training) == (True, False, True)
    assert torch.equal(model.norm.running_mean, statistics)
    assert torch.equal(module(*IMAGE), model.eval()(*IMAGE))


def test_every_form_of_a_model_is_taken(tmp_path: Path) -> None:
    model = Plain().eval()
    program = torch.export.export(model, IMAGE)
    torch.export.save(program, tmp_path / "model.pt2")
    forms = [
        model,
        fx.symbolic_trace(model),
        program,
        tmp_path / "model.pt2",
        str(tmp_path / "model.pt2"),
        capture(model, IMAGE),
    ]
    for form in forms:
        module = capture(form, IMAGE)  # type: ignore[arg-type]
        assert isinstance(module, CapturedModule)
        torch.testing.assert_close(module(*IMAGE), model(*IMAGE))


def test_programs_carry_their_inputs() -> None:
    module = capture(torch.export.export(Plain().eval(), IMAGE))
    carried = example_inputs_of(module)
    assert carried is not None
    assert torch.equal(carried[0], IMAGE[0])
    assert example_inputs_of(Plain()) is None


def test_a_captured_module_is_given_back_as_it_is() -> None:
    module = capture(Plain(), IMAGE)
    assert capture(module) is module


def test_blocks_without_gradients_are_part_of_the_graph() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.body(x).relu()
            return self.head(y)

    model = Frozen()
    module = capture(model, IMAGE)
    assert not any(node.op == "call_module" or "wrap" in str(node.target) for node in module.graph.nodes)
    assert torch.equal(module(*IMAGE), model(*IMAGE))
    module(*IMAGE).sum().backward()
    gradients = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert gradients == {"head.weight", "head.bias"}


def test_a_branch_on_data_is_named_with_its_line() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return -x

    message = message_of(Branching())
    assert line_of(Branching.forward, "if x.sum()") in message
    assert "Branching" in message
    assert "torch.where" in message


def test_a_shape_that_depends_on_data_says_what_to_change() -> None:
    class Picking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(int(x[x > 0].sum().item()))

    message = message_of(Picking())
    assert line_of(Picking.forward, "torch.zeros") in message


def test_a_forward_that_fails_on_the_input_says_so() -> None:
    message = message_of(Plain(), (torch.randn(2, 5, 8, 8),))
    assert "does not run on the example input (2x5x8x8)" in message
    assert line_of(Plain.forward, "self.conv(x)") in message


def test_a_forward_that_raises_is_named_with_its_line() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("first line\nsecond line")

    message = message_of(Broken())
    assert "first line" in message
    assert "second line" not in message
    assert line_of(Broken.forward, "raise RuntimeError") in message


def test_a_wrong_number_of_inputs_says_so() -> None:
    assert "does not run on the example input" in message_of(Plain(), (*IMAGE, *IMAGE))


def test_a_size_that_is_not_free_says_so() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(192, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1))

    message = message_of(Fixed(), dynamic_shapes=({2: torch.export.Dim("height")},))
    assert "dynamic" in message


def test_missing_inputs_and_other_things_are_one_line() -> None:
    for given, text in ((Plain(), "without example inputs"), (3, "cannot capture a int")):
        with pytest.raises(InputError, match=text) as caught:
            capture(given)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_programs_take_their_keywords_and_give_them_on() -> None:
    class Scaled(Plain):
        def forward(self, x: Tensor, *, scale: Tensor, shift: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return super().forward(x) * scale + (0.0 if shift is None else shift)

    model, scale, shift = Scaled().eval(), torch.rand(2, 1, 1, 1), torch.rand(2, 1, 1, 1)
    module = capture(torch.export.export(model, IMAGE, {"shift": shift, "scale": scale}))
    expected = model(*IMAGE, scale=scale, shift=shift)
    carried = example_inputs_of(module)
    assert carried is not None
    assert torch.equal(module(*carried), expected)
    assert torch.equal(module(*IMAGE, scale=scale, shift=shift), expected)
    assert torch.equal(module(x=IMAGE[0], shift=shift, scale=scale), expected)


def test_training_flags_come_back_after_a_failure() -> None:
    class Branching(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    model = Branching().train()
    message_of(model)
    assert model.training
    assert model.norm.training

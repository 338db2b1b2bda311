"""What a forward pass keeps for the next one: in buffers it is captured, wherever they are written; elsewhere it is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import CaptureError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import load_program, save_program
from tests.support.stateful import STATEFUL, Keeping, frames

CALLS = 4


def in_turn(module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [module(x.clone()).clone() for x in inputs]


@pytest.mark.parametrize("name", STATEFUL)
def test_every_call_of_a_captured_graph_is_pytorchs(name: str) -> None:
    model = STATEFUL[name]()
    before = copy.deepcopy(model.state_dict())
    inputs = frames(CALLS)
    captured = capture(model, (inputs[0],))
    expected = in_turn(copy.deepcopy(model), inputs)
    for found, wanted in zip(in_turn(captured, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), "the graph has a state of its own"


@pytest.mark.parametrize("name", ["rotated in a layer", "two names", "slices"])
def test_state_goes_through_a_file(name: str, tmp_path: Path) -> None:
    model, inputs = STATEFUL[name](), frames(CALLS)
    captured = capture(model, (inputs[0],))
    save_program(captured, (inputs[0],), tmp_path / "model.pt2")
    expected = in_turn(model, inputs)
    for _ in range(2):
        found = in_turn(load_program(tmp_path / "model.pt2")[0], inputs)
        assert all(map(torch.equal, found, expected))


def grows(model: Any, x: Tensor) -> Tensor:
    model.kept = torch.cat([model.kept, x])
    return model.kept.sum(0)


def changes_type(model: Any, x: Tensor) -> Tensor:
    model.kept = model.kept + 0.5
    return x + model.kept


def shares(model: Any, x: Tensor) -> Tensor:
    model.other = model.kept
    model.kept.add_(1)
    return x + model.other


def begins_empty(model: Any, x: Tensor) -> Tensor:
    model.kept = x[:1] if model.kept is None else model.kept + x[:1]
    return model.kept * 2


@pytest.mark.parametrize(
    ("forward", "buffers", "words"),
    [
        (grows, {"kept": torch.zeros(1, 4)}, "float32 1x4 before a call and float32 4x4 after it"),
        (changes_type, {"kept": torch.zeros(4, dtype=torch.int64)}, "int64 4 before a call and float32 4 after it"),
        (shares, {"kept": torch.zeros(4), "other": torch.zeros(4)}, "share their memory after a call"),
        (begins_empty, {"kept": None}, "missing before a call"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_buffers_that_cannot_be_state_are_refused_by_name_and_line(
    forward: Callable[..., Tensor], buffers: dict[str, Tensor | None], words: str, inside: bool
) -> None:
    model = Keeping(forward, **buffers)
    with pytest.raises(CaptureError, match=words) as caught:
        capture(nn.Sequential(model) if inside else model, (torch.ones(3, 4),))
    assert "'0.kept'" in str(caught.value) if inside else "'kept'" in str(caught.value)
    assert f"{Path(__file__).name}:{forward.__code__.co_firstlineno + 1}" in str(caught.value)


def test_a_written_view_of_another_buffer_is_refused() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        model.kept.add_(1)
        return x[:, :2] + model.part

    model = Keeping(forward, kept=torch.zeros(4))
    model.register_buffer("part", model.kept[:2])
    with pytest.raises(
        CaptureError, match=r"'kept' and 'part' share their memory, and the model writes to it at .*\.py:\d+"
    ):
        capture(model, (torch.ones(3, 4),))


def test_a_buffer_that_is_put_into_other_memory_is_refused_by_name() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        model.kept.data = model.kept.data + 1
        return x + model.kept

    with pytest.raises(CaptureError, match=r"forward puts '0.kept' into other memory"):
        capture(nn.Sequential(Keeping(forward, kept=torch.zeros(4))), (torch.ones(3, 4),))


class Attribute(nn.Module):
    """Keeps `kept`, which is no buffer, between calls."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept


class CountsInAttribute(Attribute):
    def forward(self, x: Tensor) -> Tensor:
        self.kept += 1
        return x * self.kept


class DecidesLater(Attribute):
    def forward(self, x: Tensor) -> Tensor:
        self.kept += 1
        return x if self.kept < 100 else -x


class RemembersTheInput(Attribute):
    def forward(self, x: Tensor) -> Tensor:
        y = x if self.kept is None else x - self.kept
        self.kept = x
        return y


class Queue(Attribute):
    def forward(self, x: Tensor) -> Tensor:
        self.kept.append(x)
        return self.kept.pop(0) + x


class InADictionary(Attribute):
    def forward(self, x: Tensor) -> Tensor:
        self.kept["h"] = self.kept["h"] * 0.5 + x
        return self.kept["h"].relu()


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (CountsInAttribute, 0),
        (DecidesLater, 0),
        (RemembersTheInput, None),
        (Queue, [torch.zeros(3, 4)]),
        (InADictionary, {"h": torch.zeros(3, 4)}),
    ],
)
def test_state_in_attributes_is_refused_by_name(kind: type[Attribute], start: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), kind(copy.deepcopy(start)))
    with pytest.raises(CaptureError, match=r"attribute '1.kept' is kept from one call to the next.*register_buffer"):
        capture(model, (torch.ones(3, 4),))
    left = model[1].kept
    assert str(left) == str(start), "the model is as it was"


class Attends(nn.Module):
    """Keeps what is looked at afterwards, what depends on shapes only, and a count that decides nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.shape: Any = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.shape != x.shape:
            self.shape, self.positions = x.shape, torch.arange(4.0)
        self.scores = (x @ x.T).softmax(-1)
        return self.scores @ x + self.positions


def test_attributes_that_are_no_state_are_captured() -> None:
    model, x = Attends(), torch.randn(3, 4)
    expected = copy.deepcopy(model)(x)
    torch.testing.assert_close(capture(model, (x,))(x), expected)


def test_a_tensor_attribute_that_is_written_in_place_is_state_and_stays_as_it_was() -> None:
    class Counts(Attribute):
        def forward(self, x: Tensor) -> Tensor:
            self.kept.add_(1)
            return x * self.kept

    model, x = Counts(torch.zeros(1)), torch.ones(2, 3)
    captured = capture(model, (x,))
    assert model.kept.item() == 0
    assert [captured(x)[0, 0].item() for _ in range(3)] == [1, 2, 3]


class Counting(nn.Module):
    """Writes to parameters, in one way of those below."""

    def __init__(self, write: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        self.write(self, x)
        return self.layer(x) * self.scale


def under_no_grad(write: Callable[[Any, Tensor], object]) -> Callable[[Any, Tensor], object]:
    @torch.no_grad()
    def written(model: Any, x: Tensor) -> None:
        write(model, x)

    return written


WRITES: dict[str, Callable[[Any, Tensor], object]] = {
    "in place": lambda model, x: model.scale.mul_(1.5),
    "to a row": lambda model, x: model.layer.weight[0].fill_(0.5),
    "clamped": lambda model, x: model.layer.weight.clamp_(-0.2, 0.2),
    "copied": lambda model, x: model.scale.copy_(x.mean(0)),
}


@pytest.mark.parametrize("name", WRITES)
def test_parameters_that_are_written_under_no_grad_are_state(name: str) -> None:
    model, inputs = (
        Counting(under_no_grad(WRITES[name])).eval(),
        [torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(CALLS)],
    )
    before = copy.deepcopy(model.state_dict())
    captured = capture(model, (inputs[0],))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    for x in inputs:  # With gradients on, too.
        torch.testing.assert_close(captured(x), model(x))


@pytest.mark.parametrize("name", [*WRITES, "out"])
def test_parameters_that_are_written_with_gradients_are_refused_by_name(name: str) -> None:
    def out(model: Any, x: Tensor) -> object:
        return torch.add(model.scale, 1, out=model.scale)

    model = Counting(WRITES.get(name, out)).eval()
    before = copy.deepcopy(model.state_dict())
    parameter = "layer.weight" if name in ("to a row", "clamped") else "scale"
    line = rf"writes to the parameter '{parameter}' at \S*test_state.py:\d+ outside of torch.no_grad\(\)"
    with pytest.raises(CaptureError, match=line):
        capture(model, (torch.randn(3, 4),))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), "what was refused was tried on the model itself"


def assigned(model: Any, x: Tensor) -> None:
    model.scale = nn.Parameter(model.scale + 1)


def made_late(model: Any, x: Tensor) -> None:
    model.shift = nn.Parameter(x[0])


@pytest.mark.parametrize(("write", "name"), [(assigned, "scale"), (made_late, "shift")])
def test_parameters_that_forward_assigns_are_refused_by_name(write: Callable[[Any, Tensor], object], name: str) -> None:
    with pytest.raises(CaptureError, match=rf"assigns a new parameter '{name}' at \S*test_state.py:\d+"):
        capture(Counting(write).eval(), (torch.randn(3, 4),))

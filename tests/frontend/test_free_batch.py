"""A network captured with one image takes any batch, or says by name which size it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.base.errors import CaptureError, InputError
from reconvene.frontend.capture import FIXED, capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program, save_program


class Head(nn.Module):
    """Writes the size of the batch into a reshape, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu()).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3)


class Tokens(nn.Module):
    """Attention with a class token that is expanded to the batch: operators look whether the batch is one."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))[:, 0]


class Structured(nn.Module):
    """Takes a dict with a list in it, a number, and something that may be missing."""

    def forward(self, batch: dict[str, Any], factor: int, mask: Tensor | None = None) -> Tensor:
        found = batch["image"] * factor + batch["more"][0]
        return found if mask is None else found * mask


class Alone(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] == 1 else x * 3


class Squeezing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True).squeeze()


class Pairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] % 2:
            return x.flatten(1)
        return x.reshape(x.shape[0] // 2, 2, -1).sum(1)


class InTurn(nn.Module):
    """Goes through the batch one by one, so that their number is a part of the graph."""

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[0])
        for row in x:
            state = torch.tanh(state + row)
        return state


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(1, 3, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x, self.table]).sum(0)  # type: ignore[list-item]


def image(batch: int) -> Tensor:
    return torch.randn(batch, 3, 8, 8)


def captured(model: nn.Module, *inputs: Any) -> CapturedModule:
    return capture(model.eval(), inputs)


def notes(module: CapturedModule) -> str:
    return "; ".join(module.meta["input_sizes"].describe())


@pytest.mark.parametrize("example", [1, 4])
def test_a_size_that_forward_asks_for_may_vary(example: int) -> None:
    model = Head()
    module = captured(model, image(example))
    assert module.meta["example_inputs"][0].shape[0] == example
    for batch in (1, 2, 5):
        x = image(batch)
        assert torch.equal(module(x), model(x))
    assert "axis 0 may vary" in notes(module)


@pytest.mark.parametrize("example", [1, 3])
def test_conditions_that_only_operators_make_are_not_the_models(example: int) -> None:
    model = Tokens()
    module = captured(model, torch.randn(example, 5, 8))
    for batch in (1, 2, 6):
        x = torch.randn(batch, 5, 8)
        torch.testing.assert_close(module(x), model(x))


def test_tensors_in_dicts_and_lists_have_the_batch_too() -> None:
    model = Structured()

    def inputs(batch: int) -> tuple[Any, ...]:
        return {"image": torch.randn(batch, 4), "more": [torch.randn(batch, 1)]}, 3, torch.ones(batch, 1)

    module = captured(model, *inputs(1))
    for batch in (1, 6):
        given = inputs(batch)
        assert torch.equal(module(*given), model(*given))
    other, factor, mask = inputs(2)
    turned = {"more": other["more"], "image": other["image"]}
    assert torch.equal(module(batch=turned, mask=mask, factor=factor), model(other, factor, mask))


def test_other_values_of_inputs_that_are_no_tensors_are_refused_by_name() -> None:
    given = {"image": torch.randn(1, 4), "more": [torch.randn(1, 1)]}
    module = captured(Structured(), given, 3)
    with pytest.raises(InputError, match="input 'factor' is 4, but the model was captured with 3"):
        module(given, 4)
    with pytest.raises(InputError, match=r"takes the inputs batch, factor; it was called with 1 by position"):
        module(given)
    with pytest.raises(InputError, match="other containers"):
        module({"image": given["image"]}, 3)


@pytest.mark.parametrize(("example", "refused"), [(1, 2), (3, 1)])
def test_a_branch_on_the_batch_holds_on_its_own_side_only(example: int, refused: int) -> None:
    model = Alone()
    module = captured(model, image(example))
    assert torch.equal(module(image(example) * 0 + 1), model(image(example) * 0 + 1))
    with pytest.raises(InputError, match=f"input 'x' .*axis 0.* {refused}|input 'x' has size {refused} along axis 0"):
        module(image(refused))


def test_a_squeeze_that_would_take_the_batch_away_is_refused_for_one() -> None:
    model = Squeezing()
    module = captured(model, image(4))
    assert torch.equal(module(x := image(6)), model(x))
    with pytest.raises(InputError, match="input 'x' along axis 0 has size 1"):
        module(image(1))
    assert captured(model, image(1))(image(1)).shape == (3,)


def test_conditions_on_the_batch_are_kept_and_named() -> None:
    model = Pairs()
    module = captured(model, image(4))
    assert torch.equal(module(x := image(6)), model(x))
    with pytest.raises(InputError, match="input 'x' along axis 0 has size 5"):
        module(image(5))
    assert torch.equal(captured(model, image(3))(y := image(5)), model(y))


class Counted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)


def test_the_line_that_takes_the_batch_for_a_number_is_named() -> None:
    module = captured(Counted(), image(3))
    line = Counted.forward.__code__.co_firstlineno + 1
    assert f"{Path(__file__).name}:{line} in forward" in notes(module)


@pytest.mark.parametrize("model", [InTurn(), Table()])
def test_where_the_batch_is_a_part_of_the_graph_another_is_refused(model: nn.Module) -> None:
    module = captured(model, image(1))
    assert torch.equal(module(x := image(1)), model(x))
    with pytest.raises(InputError, match="input 'x' has size 2 along axis 0, and needs 1 there"):
        module(image(2))
    assert "the batch is fixed: " in notes(module)


def test_all_sizes_are_fixed_on_request() -> None:
    module = capture(Head(), (image(1),), FIXED)
    with pytest.raises(InputError, match="needs 1 there"):
        module(image(2))


def test_other_axes_are_fixed_and_named() -> None:
    module = captured(Head(), image(1))
    with pytest.raises(InputError, match="input 'x' has size 9 along axis 3, and needs 8 there"):
        module(torch.randn(1, 3, 8, 9))
    with pytest.raises(InputError, match=r"input 'x' has 3 axes, and needs 4: Nx3x8x8"):
        module(torch.randn(3, 8, 8))


def test_sizes_that_go_together_are_compared() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    module = captured(Sum(), torch.randn(2, 4), torch.randn(2, 4))
    with pytest.raises(
        InputError, match="input 'y' has size 3 along axis 0, and needs 5 there as in the inputs before it"
    ):
        module(torch.randn(5, 4), torch.randn(3, 4))


def test_one_example_is_enough_to_declare_a_size_dynamic() -> None:
    model = Tokens().eval()
    module = capture(model, (torch.randn(1, 5, 8),), ({0: torch.export.Dim.DYNAMIC},))
    torch.testing.assert_close(module(x := torch.randn(4, 5, 8)), model(x))
    with pytest.raises(CaptureError, match="fixed by the model"):
        capture(Alone(), (image(1),), ({0: torch.export.Dim.AUTO},))


def test_a_free_batch_survives_rewriting_training_and_copies() -> None:
    import copy

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    module = copy.deepcopy(captured(model, image(1))).train()
    F.cross_entropy(module(image(5)), torch.zeros(5, dtype=torch.long)).backward()
    assert module.get_parameter("0.weight").grad is not None
    with pytest.raises(InputError, match="axis 2"):
        module(torch.randn(5, 3, 9, 8))


@pytest.mark.parametrize(("model", "shape"), [(Head(), (3, 8, 8)), (Tokens(), (5, 8))])
def test_a_free_batch_goes_through_a_file(model: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> None:
    module = captured(model, torch.randn(1, *shape))
    save_program(module, module.meta["example_inputs"], tmp_path / "model.pt2")
    loaded, inputs = load_program(tmp_path / "model.pt2")
    assert inputs is not None
    assert inputs[0].shape[0] == 1
    save_program(loaded, inputs, tmp_path / "again.pt2")
    again, _ = load_program(tmp_path / "again.pt2")
    for batch in (1, 4):
        x = torch.randn(batch, *shape)
        torch.testing.assert_close(again(x), model(x))
    with pytest.raises(InputError, match="input 'x' has size 9 along axis"):
        again(torch.randn(2, *shape[:-1], 9))

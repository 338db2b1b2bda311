"""Masks: what fits is applied, what does not is one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact

from ..support.models import assert_exact, randomise, widths

IMAGE = (torch.randn(2, 3, 8, 8),)


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.other.weight = self.one.weight
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.other(self.one(self.first(x)).relu()).relu())


def net() -> nn.Sequential:
    """Two convolutions."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))


def refusal(masks: Any, model: nn.Module | None = None) -> str:
    """The one line that compacting with these masks fails with."""
    with pytest.raises(InputError) as caught:
        compact(capture(model or net(), IMAGE), IMAGE, masks)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mask_has_one_entry_per_weight_or_per_filter() -> None:
    rows = torch.arange(8) > 2
    model = randomise(net())
    whole = assert_exact(model, IMAGE, {"0.weight": rows.reshape(8, 1, 1, 1).expand(8, 3, 3, 3)})
    short = compact(capture(model.double(), (IMAGE[0].double(),)), (IMAGE[0].double(),), {"0.weight": rows})
    assert widths(whole) == widths(short) == {"0": 5, "2": 4}


def test_zeros_and_ones_are_taken_for_a_mask() -> None:
    model = randomise(net())
    assert widths(compact(capture(model, IMAGE), IMAGE, {"0.weight": (torch.arange(8) > 2).float()}))["0"] == 5


def test_no_masks_and_empty_masks_change_nothing() -> None:
    module = capture(randomise(net()), IMAGE)
    for masks in (None, {}):
        result = compact(module, IMAGE, masks)
        assert result.after == result.before
        assert result.refusals == ()
    assert compact(module, IMAGE, {"0.weight": torch.ones(8, dtype=torch.bool)}).after == result.before


def test_a_mask_of_a_bias_alone_is_exact() -> None:
    result = assert_exact(randomise(net()), IMAGE, {"0.bias": torch.zeros(8, dtype=torch.bool)})
    assert widths(result)["0"] == 8


def test_the_captured_module_is_left_as_it_was() -> None:
    module = capture(randomise(net()), IMAGE)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    compact(module, IMAGE, {"0.weight": torch.arange(8) > 2})
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in before.items())


def test_an_unknown_name_says_which_is_near() -> None:
    message = refusal({"0.weigth": torch.ones(8, dtype=torch.bool)})
    assert "'0.weigth'" in message
    assert "'0.weight'" in message


@pytest.mark.parametrize("shape", [(7,), (8, 3), (8, 3, 3, 3, 1), (4, 3, 1, 1), ()])
def test_a_wrong_shape_names_both(shape: tuple[int, ...]) -> None:
    message = refusal({"0.weight": torch.ones(shape, dtype=torch.bool)})
    assert "8x3x3x3" in message
    assert "x".join(map(str, shape)) in message


def test_numbers_other_than_zero_and_one_are_no_mask() -> None:
    assert "other than 0 and 1" in refusal({"0.weight": torch.randn(8)})


@pytest.mark.parametrize("mask", [None, [True] * 8, "all", 3])
def test_other_things_are_no_mask(mask: Any) -> None:
    assert "give a boolean tensor" in refusal({"0.weight": mask})


def test_a_mask_holds_its_numbers() -> None:
    rows = torch.arange(8) > 2
    assert "the mask of '0.weight' is sparse_coo; give to_dense()" in refusal({"0.weight": rows.to_sparse()})
    assert "the mask of '0.weight' is a meta tensor" in refusal({"0.weight": rows.to("meta")})
    assert "the mask of '0.weight' is one number" in refusal({"0.weight": torch.tensor(True)})


def test_masks_are_by_the_names_of_parameters() -> None:
    rows = torch.arange(8) > 2
    assert "there is no parameter '0' to mask" in refusal({0: rows})
    assert "masks are by parameter name" in refusal([rows])


def test_a_mask_that_leaves_nothing_of_a_layer_is_refused() -> None:
    assert "leaves nothing" in refusal({"0.weight": torch.zeros(8, dtype=torch.bool)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = net()
    with torch.no_grad():
        model[2].weight[1, 2] = value
    assert "'2.weight' holds 1 entries" in refusal(None, model)


def test_statistics_that_are_not_numbers_are_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
    model[1].running_mean[3] = float("nan")
    assert "'1.running_mean'" in refusal(None, model)


def test_infinity_in_a_buffer_is_an_attention_mask() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.value, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
            self.register_buffer("mask", torch.full((5, 5), -float("inf")).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.query(x) @ self.query(x).transpose(1, 2) + self.mask
            return self.head(scores.softmax(-1) @ self.value(x))

    assert widths(assert_exact(randomise(Causal()), (torch.zeros(2, 5, 6),), "M1"))["value"] == 4


def test_either_name_of_a_tied_weight_masks_it() -> None:
    model = randomise(Tied())
    rows = torch.arange(8) > 2
    results = [
        assert_exact(model, IMAGE, {f"{name}.weight": rows[:, None, None, None].expand(8, 8, 1, 1)})
        for name in ("one", "other")
    ]
    assert results[0].after == results[1].after


def test_masks_of_both_names_of_a_tied_weight_are_combined() -> None:
    model = randomise(Tied())
    rows = torch.arange(8)
    masks = {"one.weight": rows > 2, "other.weight": rows < 6}
    wide = {name: mask[:, None, None, None].expand(8, 8, 1, 1) for name, mask in masks.items()}
    assert_exact(model, IMAGE, wide)


def test_a_mask_of_a_layer_that_is_not_read_must_fit_too() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.unread = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            self.unread(y)
            return y

    assert "8x8x1x1" in refusal({"unread.weight": torch.ones(3, dtype=torch.bool)}, Dead())


def test_a_layer_that_only_a_dropped_in_place_operator_reads_needs_no_mask() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.unread, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).relu()
            self.unread(y).relu_()
            return self.last(y)

    rows = (torch.arange(8) > 2)[:, None, None, None]
    masks = {"unread.weight": rows.expand(8, 8, 1, 1), "first.weight": rows.expand(8, 3, 1, 1)}
    assert widths(assert_exact(randomise(Dead()), IMAGE, masks))["first"] == 5

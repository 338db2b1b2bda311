"""Kinds of inputs on which two programs are compared: masks, ids and lengths vary within what the model takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.check_inputs import KINDS, check_inputs, resized
from reconvene.passes.index_ranges import IndexRange, index_ranges


def test_numbers_are_random_and_follow_the_seed() -> None:
    image = torch.zeros(2, 3, 4, 4)
    first, again, other = (check_inputs((image,), seed=seed)["as given"][0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype is torch.float32


def test_a_model_of_images_alone_has_no_masks_to_vary() -> None:
    made = check_inputs((torch.randn(2, 3, 4, 4),))
    assert list(made) == ["as given", "large mean", "constant"]
    far = made["large mean"][0]
    assert 990 < float(far.mean()) < 1010
    assert 0.8 < float(far.std()) < 1.2
    assert made["constant"][0].unique().numel() == 1


def test_structure_types_and_what_is_no_tensor_stay() -> None:
    example = {"image": torch.zeros(2, 3, dtype=torch.float16), "more": [torch.zeros(2, dtype=torch.complex64), True]}
    for (made,) in check_inputs((example,)).values():
        assert made["image"].dtype is torch.float16
        assert made["more"][0].dtype is torch.complex64
        assert made["more"][1] is True


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.int32])
def test_masks_vary(dtype: torch.dtype) -> None:
    keep = torch.ones(3, 5, dtype=dtype)
    keep[1, 3:] = 0
    made = {kind: values[0] for kind, values in check_inputs((keep,)).items()}
    assert torch.equal(made["as given"], keep)
    assert bool((made["all true"] == 1).all())
    assert made["one row false"].tolist() == [[1] * 5, [1] * 5, [0] * 5]
    assert made["one row true"].tolist() == [[0] * 5, [0] * 5, [1] * 5]
    assert 0 < made["random"].double().mean() < 1
    assert all(mask.dtype is dtype for mask in made.values())


def test_masks_of_one_sequence_and_of_queries_have_an_empty_row() -> None:
    one = check_inputs((torch.ones(1, 4, dtype=torch.bool),))["one row false"][0]
    assert not one.any()
    square = check_inputs((torch.ones(2, 1, 3, 3, dtype=torch.bool),))["one row false"][0]
    assert square[0, 0].any(1).tolist() == [True, True, False]
    assert not square[1].any()


def test_masks_of_floating_point_numbers_are_masks_where_they_tell() -> None:
    shares = torch.tensor([[1.0, 1.0, 0.0]])
    added = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    lowest = torch.zeros(2, 2).masked_fill(torch.eye(2).bool(), torch.finfo(torch.float32).min)
    assert check_inputs((shares,))["one row false"][0].tolist() == [[0.0, 0.0, 0.0]]
    assert check_inputs((added,))["one row false"][0].tolist() == [[0.0, 0.0], [-torch.inf, -torch.inf]]
    assert check_inputs((lowest,))["all true"][0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert "all true" not in check_inputs((torch.ones(2, 3),))


def test_whole_numbers_stay_between_zero_and_the_examples_largest() -> None:
    made = check_inputs((torch.tensor([[3, 7, 5]] * 40),))
    drawn = made["random"][0]
    assert int(drawn.min()) == 0
    assert int(drawn.max()) == 7
    assert not torch.equal(drawn, made["as given"][0])


def test_bytes_are_pixels() -> None:
    for image in (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.tensor([[9, 4, 1]] * 50, dtype=torch.uint8)):
        assert int(check_inputs((image,), ["random"])["random"][0].max()) > 200


def test_rows_of_ids_hold_the_padding_alone() -> None:
    ids = torch.randint(0, 5, (3, 4))
    made = check_inputs((ids,), ranges={0: IndexRange(0, 9, (1,))})
    assert made["one row false"][0][-1].tolist() == [1] * 4
    assert int(made["random"][0].max()) > 4


def test_examples_are_only_read_and_may_be_empty() -> None:
    mask, empty = torch.ones(2, 3, dtype=torch.bool), torch.zeros(0, 3, dtype=torch.int64)
    made = check_inputs((mask, empty), KINDS)
    assert bool(mask.all())
    assert all(values[1].shape == (0, 3) for values in made.values())


def test_resized_inputs_stay_what_they_were() -> None:
    keep = torch.tensor([[True, False]])
    assert resized(keep, (2, 3)).tolist() == [[True, False, True]] * 2
    assert resized(torch.tensor([4, 2, 3]), (2,)).tolist() == [4, 2]


def looked_up(model: nn.Module, ids: Tensor) -> IndexRange | None:
    return index_ranges(capture(model.eval(), (ids,))).get(0)


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, ids: Tensor) -> Tensor:
        return self.function(ids)


ROWS = torch.tensor([8, 0, 1, 2, 5])
IDS = torch.tensor([[1, 2, 3]])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda ids: F.embedding(ids, torch.ones(9, 2)), IndexRange(0, 8)),
        (lambda ids: F.embedding(ids, torch.ones(9, 2), padding_idx=1), IndexRange(0, 8, (1,))),
        (lambda ids: F.embedding((ids + 2).reshape(-1), torch.ones(9, 2)), IndexRange(-2, 6)),
        (lambda ids: torch.ones(4, 6)[:, ids], IndexRange(0, 5)),
        (lambda ids: torch.ones(1, 7).gather(1, ids), IndexRange(0, 6)),
        (lambda ids: torch.ones(7, 2).index_select(0, ids[0]), IndexRange(0, 6)),
        (lambda ids: F.one_hot(ids, 5), IndexRange(0, 4)),
        (lambda ids: F.embedding(ids, torch.ones(9, 2)) * F.embedding(ids, torch.ones(6, 2)), IndexRange(0, 5)),
        (lambda ids: (ids != 3).sum(1), IndexRange(None, None, (3,))),
        (lambda ids: ids * 2.0, None),
        (lambda ids: F.embedding_bag(ids, torch.ones(9, 2), padding_idx=1), IndexRange(0, 8, (1,))),
        (lambda ids: F.embedding_bag(ROWS, torch.ones(9, 2), ids[0]), IndexRange(0, 5, ascending=True)),
    ],
)
def test_what_ids_index_says_what_they_may_be(
    function: Callable[[Tensor], Tensor], expected: IndexRange | None
) -> None:
    assert looked_up(Calls(function), IDS) == expected


def test_where_bags_begin_is_in_order_in_all_kinds() -> None:
    for example in (torch.tensor([0, 1, 1, 4]), torch.tensor([0, 0]), torch.tensor([0])):
        made = check_inputs((example,), ranges={0: IndexRange(0, 5, ascending=True)})
        for starts, *_ in made.values():
            assert starts[0] == 0
            assert (starts.diff() >= 0).all()
            assert starts.max() <= 5
    bags = {kind: starts.tolist() for kind, (starts,) in made.items()}
    assert bags == {"as given": [0]}
    made = check_inputs((torch.tensor([0, 1, 1, 4]),), ranges={0: IndexRange(0, 5, ascending=True)})
    assert made["one row false"][0].tolist() == [0, 0, 0, 0]
    assert made["one row true"][0].tolist() == [0, 5, 5, 5]

"""Scores and shares of a person's own, and helpers that mask whole groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.dependency import dependency_view

IMAGE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Two layers whose outputs are added, so that both make each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image).relu()
        return self.last(first + self.second(first))


def chain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1))


def widths(result: reconvene.Result) -> list[int]:
    return [layer.channels_after for layer in result.report.layers]


def first_dearest(name: str, weight: Tensor) -> Tensor:
    """The later a channel, the cheaper."""
    rank = torch.arange(len(weight), 0, -1, dtype=weight.dtype)
    return rank.reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight)


def test_a_function_says_what_goes() -> None:
    result = reconvene.prune(chain(), IMAGE, method=first_dearest, sparsity=0.5)
    assert widths(result) == [4, 3, 4]
    assert result.plan.kept["0.weight"][0].tolist() == [0, 1, 2, 3]
    assert result.plan.kept["2.weight"][0].tolist() == [0, 1, 2]
    assert result.report.options["method"] == "own-score" and result.report.options["score"] == "first_dearest"


def test_scores_of_a_function_count_for_zeros_inside_layers_too() -> None:
    result = reconvene.prune(chain(), IMAGE, method=first_dearest, structure={"2": "row-block:2"}, sparsity=0.5)
    mask = result.plan.masks["2.weight"].flatten(1)
    assert int((~mask).sum()) == mask.numel() // 2
    assert not mask[4:].any()  # The cheapest two rows, of which row blocks take all.
    assert widths(result) == [8, 4, 4]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda name, weight: weight.sum(), r"gives a tensor of one number for '0.weight', which is 8x3x1x1"),
        (lambda name, weight: None, r"gives a NoneType for '0.weight'"),
        (lambda name, weight: weight * float("nan"), r"gives '0.weight' scores that are not finite"),
        (lambda name, weight: weight[99], r"fails on '0.weight': IndexError: .* at .*test_own_score.py:\d+"),
        (7, r"a method is a name, or a function that scores weights, not 7"),
    ],
)
def test_what_a_score_does_wrong_is_one_line(function: Any, message: str) -> None:
    with pytest.raises(reconvene.InputError, match=message) as caught:
        reconvene.prune(chain(), IMAGE, method=function)
    assert "\n" not in str(caught.value)


def test_shares_are_those_of_the_first_pattern_and_others_stay() -> None:
    assert widths(reconvene.prune(chain(), IMAGE, sparsity={"0": 0.25})) == [6, 6, 4]
    assert widths(reconvene.prune(chain(), IMAGE, sparsity={"2.weight": 0.5, "*": 0.25})) == [6, 3, 4]
    report = reconvene.prune(chain(), IMAGE, sparsity={"0": 0.25}).report
    assert report.options["layer_sparsity"] == {"0": 0.25} and report.options["sparsity"] == 0.0
    assert not report.refusals


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sparsity": {"conv9": 0.5}}, "the pattern 'conv9' matches no layer"),
        ({"sparsity": {"0": 1.0}}, "outside 0..1"),
        ({"sparsity": {}}, "shares of layers are by names"),
        ({"sparsity": {"0": 0.5}, "scope": "global"}, "leave the scope out"),
        ({"sparsity": {"0": 0.5}, "structure": "row-block:4"}, "a layer's own share is said with it"),
        ({"sparsity": {"0": 0.5}, "method": "reconvene"}, "shares a sparsity out itself"),
        ({"sparsity": {"0": 0.5}, "latency": 0.5, "target": "host"}, "shares of layers were given with a latency"),
    ],
)
def test_shares_that_make_no_sense_are_one_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(reconvene.InputError, match=message):
        reconvene.prune(chain(), IMAGE, **asked)


def test_modules_are_left_alone_by_themselves() -> None:
    model = chain()
    assert widths(reconvene.prune(model, IMAGE, ignore=[model[2]])) == [4, 6, 4]
    assert widths(reconvene.prune(model, IMAGE, ignore=model[0])) == [8, 3, 4]
    assert widths(reconvene.prune(nn.DataParallel(model), IMAGE, ignore=(model[2], "0.*"))) == [8, 6, 4]
    with pytest.raises(reconvene.InputError, match="the Conv2d to ignore is no part of the model"):
        reconvene.prune(model, IMAGE, ignore=[nn.Conv2d(1, 1, 1)])
    with pytest.raises(reconvene.InputError, match=r"the ReLU to ignore, '1', has no weights"):
        reconvene.prune(model, IMAGE, ignore=[model[1]])


def test_all_that_makes_a_channel_is_masked() -> None:
    view = dependency_view(canonicalize(reconvene.capture(Residual(), IMAGE)))
    shared = next(group for group in view.groups if group.prunable)
    masks = view.masks({shared: [1, 4]})
    assert set(masks) == {"first.weight", "first.bias", "second.weight", "second.bias"}
    assert all(
        (~mask).flatten(1 if mask.dim() > 1 else 0).reshape(8, -1).any(1).nonzero().flatten().tolist() == [1, 4]
        for mask in masks.values()
    )
    drop = np.zeros(8, bool)
    drop[[1, 4]] = True
    again = view.masks({shared: torch.from_numpy(drop)})
    assert all(torch.equal(again[name], mask) for name, mask in masks.items())
    model = Residual()
    small = reconvene.compact(model, IMAGE, masks=masks)
    assert widths(small) == [6, 6, 4]
    assert view.masks({shared: []}) == {}
    for wrong in ([8], [-1], [0.5], [True]):
        with pytest.raises(reconvene.InputError, match=r"first\.weight"):
            view.masks({shared: wrong})

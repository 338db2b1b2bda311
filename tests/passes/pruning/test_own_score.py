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


class Scorer:
    """Called with two arguments, it takes one."""

    def __call__(self, weight: Tensor) -> Tensor:
        return weight


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
        (lambda weight: weight, r"fails on '0.weight': TypeError: .* at .*test_own_score.py:\d+$"),
        (Scorer(), r"fails on '0.weight': TypeError: .* at .*test_own_score.py:\d+$"),
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


class Added(nn.Module):
    """``first`` and ``second`` make the same channels; ``alone`` makes its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.alone, self.last = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, row: Tensor) -> Tensor:
        first = self.first(row).relu()
        return self.last(self.alone(first + self.second(first)).relu())


ROW = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def test_layers_that_make_the_same_channels_lose_them_together_and_a_note_says_so() -> None:
    result = reconvene.prune(Added(), ROW, sparsity={"second": 0.5})
    assert widths(result) == [4, 4, 8, 8]
    assert result.report.notes[0] == "'first' loses 0.5 of its channels: they are those of 'second'"
    result = reconvene.prune(Added(), ROW, sparsity={"second": 0.75, "*": 0.25})
    assert widths(result) == [2, 2, 6, 8]
    assert result.report.notes[0] == "'first' loses 0.75 of its channels rather than 0.25: they are those of 'second'"
    for alike in ({"first": 0.5, "second": 0.5}, {"alone": 0.5}, {"*": 0.5}):
        assert not any(" loses " in note for note in reconvene.prune(Added(), ROW, sparsity=alike).report.notes)


def test_a_normalisation_is_no_layer_that_a_note_is_about() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    result = reconvene.prune(net, IMAGE, sparsity={"0": 0.5, "*": 0.25})
    assert widths(result) == [4, 4] and not any(" loses " in note for note in result.report.notes)
    result = reconvene.prune(net, IMAGE, sparsity={"1": 0.5})
    assert widths(result) == [4, 4]
    assert result.report.notes[0] == "'0' loses 0.5 of its channels: they are those of '1'"


def test_shares_of_two_such_layers_by_name_contradict_each_other() -> None:
    with pytest.raises(reconvene.InputError, match=r"'first', 'second' make the same channels, .* 0\.25 .* 0\.75 of"):
        reconvene.prune(Added(), ROW, sparsity={"first": 0.25, "second.weight": 0.75})


def test_a_layer_whose_channels_are_the_outputs_is_refused_by_name() -> None:
    report = reconvene.prune(Added(), ROW, sparsity={"last": 0.5}).report
    assert report.refusals == ("'last' loses no channels: the model's output keeps its shape",)
    assert report.notes[0] == f"nothing was removed: see what was refused, such as {report.refusals[0]}"
    report = reconvene.prune(Added(), ROW, sparsity={"last": 0.5, "alone": 0.5}).report
    assert len(report.refusals) == 1 and not any("nothing was removed" in note for note in report.notes)
    assert reconvene.prune(Added(), ROW, sparsity={"*": 0.5}).report.refusals == ()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"ignore": "*"}, "what could go is to be left alone, by '*'"),
        ({"sparsity": 0.01}, "the share is less than a channel of every layer; ask for a larger one"),
        (
            {"channel_multiple": 8},
            "see what was asked for, such as 4 channels of first.weight: 4 more stay to reach a multiple",
        ),
    ],
)
def test_a_pruning_that_removes_nothing_says_so(asked: dict[str, Any], why: str) -> None:
    assert reconvene.prune(Added(), ROW, **asked).report.notes[0].startswith(f"nothing was removed: {why}")


def deep() -> nn.Module:
    """Layers of 16 channels, whose weights are on scales far apart."""
    torch.manual_seed(0)
    made = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))
    with torch.no_grad():
        made[0].weight.mul_(100)
        made[2].weight.mul_(0.01)
    return made


@pytest.mark.parametrize(
    "score",
    [
        lambda name, weight: (weight.abs() + 1e-9).log(),
        lambda name, weight: -weight.abs(),
        lambda name, weight: weight.abs() - weight.abs().mean(),
        lambda name, weight: weight.abs(),
    ],
)
def test_no_layer_goes_first_over_the_network_for_the_sign_or_scale_of_its_scores(score: Any) -> None:
    found = widths(reconvene.prune(deep(), torch.randn(1, 16), method=score, scope="global", sparsity=0.5))
    assert sum(found[:3]) == 24 and all(4 <= width <= 12 for width in found[:3])


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

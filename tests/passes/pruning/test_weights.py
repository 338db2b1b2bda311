"""Unstructured pruning: exact shares, allocations by hand, schedules, and refusals."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.pruning.allocation import erk, uniform
from reconvene.passes.pruning.scores import SCORES, Weight
from reconvene.passes.pruning.weights import SCHEDULES, nth_lowest, sparsify, without_lowest

IMAGE = (torch.randn(4, 3, 8, 8),)
BATCHES = [(IMAGE, torch.tensor([0, 1, 2, 3]))]
NAMES = ("0.weight", "3.weight", "7.weight")


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


MODULE = capture(net(), IMAGE)
SIZES = {"0.weight": 216, "3.weight": 864, "7.weight": 60}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
def test_exactly_the_share_goes(score: str, allocation: str) -> None:
    found = sparsify(MODULE, IMAGE, score, 0.7, allocation=allocation, batches=BATCHES, rounds=5)
    assert tuple(found.masks) == NAMES
    zeros = {layer.name: layer.zeros for layer in found.layers}
    assert {name: int((~mask).sum()) for name, mask in found.masks.items()} == zeros
    if allocation == "global":
        assert sum(zeros.values()) == round(0.7 * 1140)
    if allocation == "uniform":
        assert zeros == {name: round(0.7 * size) for name, size in SIZES.items()}
    if allocation == "erk":
        assert abs(sum(zeros.values()) - 0.7 * 1140) <= 1.5


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.99), st.integers(1, 4), st.sampled_from(sorted(SCHEDULES)), st.integers(0, 5))
def test_shares_of_any_schedule_are_exact(sparsity: float, rounds: int, schedule: str, seed: int) -> None:
    found = sparsify(MODULE, IMAGE, "random", sparsity, rounds=rounds, schedule=schedule, seed=seed)
    assert sum(layer.zeros for layer in found.layers) == round(sparsity * 1140)


def test_magnitude_takes_the_smallest_of_all_layers() -> None:
    found = sparsify(MODULE, IMAGE, "magnitude", 0.5)
    weights = torch.cat([MODULE.get_parameter(name).abs().flatten() for name in NAMES])
    masks = torch.cat([found.masks[name].flatten() for name in NAMES])
    assert weights[masks].min() >= weights[~masks].max()


def test_rounds_never_bring_a_weight_back() -> None:
    few = sparsify(MODULE, IMAGE, "synflow", 0.5, rounds=1)
    assert {name: int((~mask).sum()) for name, mask in few.masks.items()}.keys() == SIZES.keys()
    first = 1 - 0.25**0.5
    once = sparsify(MODULE, IMAGE, "synflow", first, rounds=1)
    twice = sparsify(MODULE, IMAGE, "synflow", 0.75, rounds=2)
    for name, mask in twice.masks.items():
        assert not (mask & ~once.masks[name]).any()


def test_the_model_stays_as_it_was() -> None:
    before = {name: tensor.clone() for name, tensor in MODULE.state_dict().items()}
    for score in SCORES:
        sparsify(MODULE, IMAGE, score, 0.5, batches=BATCHES, rounds=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in MODULE.state_dict().items())
    assert not any(
        node.args[5] for node in MODULE.graph.nodes if "batch_norm" in str(node.target) and node.op == "call_function"
    )


def test_of_equal_scores_the_first_go() -> None:
    assert without_lowest(np.array([1.0, 0.0, 1.0, 1.0, 2.0]), 3).tolist() == [False, False, False, True, True]
    assert without_lowest(np.array([3.0, 3.0]), 0).all()
    assert not without_lowest(np.array([3.0, 3.0]), 2).any()


@given(
    st.lists(st.sampled_from([-math.inf, -1.0, 0.0]) | st.floats(-1e300, 1e300), min_size=1, max_size=200),
    st.integers(1, 12),
    st.data(),
)
def test_the_bracketed_rank_is_that_of_the_sorted_values(values: list[float], sample: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(values)))
    assert nth_lowest(np.array(values), n, sample) == sorted(values)[n - 1]


def test_most_ranks_are_found_between_two_values_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).permutation(100_000).astype(float)
    sizes: list[int] = []
    partition = np.partition
    monkeypatch.setattr(np, "partition", lambda array, n: sizes.append(array.size) or partition(array, n))
    assert [nth_lowest(values, n, sample=1024) for n in range(1, 100_001, 1000)] == list(range(0, 100_000, 1000))
    assert statistics.median(sizes) < 30_000


def test_erk_by_hand() -> None:
    # 54 of 108 weights stay. In proportion the first would keep 54 / 26 * 6 > 8, so it is dense, and 46 of 100 are left.
    shares = erk([Weight("a", (4, 2), False), Weight("b", (10, 10), False)], 0.5)
    assert shares == {"a": 0.0, "b": pytest.approx(0.54)}
    # A kernel's sizes count as well: (8 + 4 + 3 + 3) / 288 and (20 + 10) / 200, scaled to 48.8 of 488.
    shares = erk([Weight("c", (8, 4, 3, 3), True), Weight("d", (20, 10), False)], 0.9)
    assert shares == {"c": pytest.approx(1 - 48.8 / 48 * 18 / 288), "d": pytest.approx(1 - 48.8 / 48 * 30 / 200)}
    assert uniform([Weight("a", (4, 2), False)], 0.3) == {"a": 0.3}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6), st.floats(0.0, 0.99))
def test_erk_meets_the_budget_within_bounds(shapes: list[tuple[int, int]], sparsity: float) -> None:
    weights = [Weight(str(place), shape, False) for place, shape in enumerate(shapes)]
    shares = erk(weights, sparsity)
    assert all(-1e-9 <= share <= 1 for share in shares.values())
    total = sum(weight.size for weight in weights)
    assert sum(shares[weight.name] * weight.size for weight in weights) == pytest.approx(sparsity * total, abs=1e-6)


def test_schedules_by_hand() -> None:
    assert SCHEDULES["exponential"](0.75, 0.5) == pytest.approx(0.5)
    assert SCHEDULES["linear"](0.75, 0.5) == pytest.approx(0.375)


def test_layers_left_alone_do_not_count() -> None:
    found = sparsify(MODULE, IMAGE, "magnitude", 0.5, ignore=["7.*"])
    assert [layer.name for layer in found.layers] == ["0.weight", "3.weight"]
    assert sum(layer.zeros for layer in found.layers) == 540


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "outside 0..1"),
        ({"sparsity": float("nan")}, "outside 0..1"),
        ({"allocation": "fair"}, "choose global, uniform, erk"),
        ({"schedule": "slow"}, "choose one of exponential, linear"),
        ({"rounds": 0}, "1 or more"),
        ({"score": "snip"}, "give batches"),
        ({"score": "grasp"}, "give batches"),
        ({"score": "wisdom"}, "no score"),
        ({"ignore": ["*"]}, "no convolution or linear layer"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sparsify(MODULE, IMAGE, **options)


@pytest.mark.parametrize("score", ["random", "snip", "magnitude"])
def test_a_weight_that_is_read_transposed_too_loses_the_share_once(score: str) -> None:
    class Mirrored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.coder, self.head = nn.Linear(8, 4), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            code = self.coder(x).relu()
            return self.head(nn.functional.linear(code, self.coder.weight.t()).relu())

    inputs = (torch.randn(2, 8),)
    module = capture(Mirrored(), inputs)
    batches = [(inputs, torch.tensor([0, 1]))]
    masks = sparsify(module, inputs, score, 0.5, allocation="uniform", batches=batches).masks
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"coder.weight": 16, "head.weight": 12}
    assert all(name in dict(module.named_parameters()) for name in masks)

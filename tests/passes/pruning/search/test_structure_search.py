"""Maps by search: with a table made by hand and known sensitivities the best plan of all, and never one over the budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.mapping import MappingRules
from reconvene.passes.pruning.search.one_shot import Taken
from reconvene.passes.pruning.search.settings import SearchSettings
from reconvene.passes.pruning.search.structure_search import SearchedMap, StructureSearch, map_by_search
from reconvene.passes.structures import Structure
from reconvene.passes.weight_views import weight_views

X = (torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)


class Net(nn.Module):
    """Four layers that may take zeros, and three that may not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.square = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.each, self.point = nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1)
        self.large, self.hidden, self.fc = nn.Conv2d(16, 16, 5, padding=2), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.large(self.point(self.each(self.square(self.stem(x)))))
        return self.fc(self.hidden(x.mean((2, 3))))


VIEWS = weight_views(canonicalize(capture(Net().eval(), X)))
FREE = ("square.weight", "point.weight", "large.weight", "hidden.weight")
RULES = MappingRules(
    patterns=("pattern:8",), punched=("unstructured", "block-punched:4x4"), blocks=("unstructured", "row-block:4")
)
WIDE = SearchSettings(rounds=30, samples=20, noise=0.3, last_noise=0.1, pull=0.3)


@dataclass(frozen=True)
class Time:
    time: float


class Table:
    """A layer takes its dense time, and with zeros a share that is the smaller the more there are, and the coarser they lie."""

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.times = {view.name: float(generator.uniform(20, 200)) for view in VIEWS}
        self.overhead = {(name, form): float(generator.uniform(0, 0.9)) for name in self.times for form in range(3)}
        self.filled: list[tuple[str, Structure, float]] = []

    def __contains__(self, name: str) -> bool:
        return name in self.times

    def fill(self, asked: Iterable[tuple[str, Structure, float]], dense: Sequence[str] = ()) -> None:
        self.filled += asked

    def dense(self, name: str) -> Time:
        return Time(self.times[name])

    def sparse(self, name: str, structure: Structure, share: float) -> Time:
        assert (name, structure, share) in self.filled
        return Time(self.times[name] * (1 - share) * (1 + self.overhead[name, kind(structure)]))


def kind(structure: Structure) -> int:
    return ("unstructured", "pattern:8").index(str(structure)) if str(structure) in ("unstructured", "pattern:8") else 2


class Known:
    """Errors that a layer's sensitivity, the share of zeros and how coarse they lie say; two layers feel each other's."""

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng((seed, 1))
        self.sensitivity = {name: float(generator.uniform(0.1, 0.8)) for name in FREE}
        self.pairs = {pair: float(generator.uniform(-0.3, 0.3)) for pair in itertools.combinations(FREE, 2)}
        self.asked: list[dict[str, Taken]] = []

    def in_layer(self, name: str, structure: Structure, share: float) -> float:
        return self.sensitivity[name] * share**3 * (1.0, 1.3, 1.6)[kind(structure)]

    in_network = in_layer

    def quality(self, chosen: Mapping[str, Taken]) -> float:
        self.asked.append(dict(chosen))
        return self.told(chosen)

    def told(self, chosen: Mapping[str, Taken]) -> float:
        errors = {name: self.in_layer(name, *chosen[name]) if name in chosen else 0.0 for name in FREE}
        felt = sum(weight * errors[one] * errors[other] for (one, other), weight in self.pairs.items())
        return 1 - sum(errors.values()) - felt


def searched(
    seed: int = 0, budget: float = 0.4, rules: MappingRules = RULES, worth: Any = None, **asked: Any
) -> SearchedMap:
    said = {"settings": WIDE, "shares": (0.6, 0.8, 0.9), "choices": 9, **asked}
    return map_by_search(VIEWS, Table(seed), rules, StructureSearch(budget, **said), worth or Known(seed), seed)


def best(seed: int, budget: float, latency: float = 0.0) -> float:
    """Of all plans within the budget."""
    table, known = Table(seed), Known(seed)
    options: list[list[tuple[float, Taken | None]]] = []
    for view in VIEWS:
        if view.name in FREE:
            taken = [(one, share) for one in RULES.every(view)[1] for share in (0.6, 0.8, 0.9)]
            table.fill([(view.name, *one) for one in taken])
            options.append(
                [(table.times[view.name], None), *((table.sparse(view.name, *one).time, one) for one in taken)]
            )
    whole = sum(table.times.values())
    fixed = whole - sum(table.times[name] for name in FREE)
    found = []
    for plan in itertools.product(*options):
        time = fixed + sum(time for time, _ in plan)
        if time <= budget * whole:
            chosen = {name: taken for name, (_, taken) in zip(FREE, plan, strict=True) if taken is not None}
            found.append(known.told(chosen) + latency * (1 - time / whole))
    return max(found)


def total(found: SearchedMap) -> tuple[float, float]:
    pairs = [(layer.dense, layer.sparse) for layer in found.layers]
    return sum(dense or 0.0 for dense, _ in pairs), sum(sparse or 0.0 for _, sparse in pairs)


@pytest.mark.parametrize(("seed", "budget"), [(0, 0.55), (1, 0.75), (2, 0.6), (3, 0.8), (4, 0.9), (5, 0.7)])
def test_the_plan_is_the_best_of_all_within_the_budget(seed: int, budget: float) -> None:
    found = searched(seed, budget)
    assert found.quality == pytest.approx(best(seed, budget))
    dense, sparse = total(found)
    assert sparse <= budget * dense
    assert found.quality >= found.begun


@pytest.mark.parametrize("seed", range(4))
def test_time_within_the_budget_is_worth_what_is_said(seed: int) -> None:
    found = searched(seed, 0.9, latency=2.0)
    dense, sparse = total(found)
    assert found.quality + 2.0 * (1 - sparse / dense) == pytest.approx(best(seed, 0.9, 2.0))
    assert sparse < total(searched(seed, 0.9))[1]


def test_nothing_that_is_tried_is_over_the_budget() -> None:
    known, table = Known(), Table()
    found = map_by_search(VIEWS, table, RULES, StructureSearch(0.6, choices=9), known)
    whole = sum(table.times.values())
    for chosen in known.asked:
        saved = (table.times[name] - table.sparse(name, *taken).time for name, taken in chosen.items())
        assert whole - sum(saved) <= 0.6 * whole
    assert len(known.asked) == found.asked > 5


def test_the_same_seed_makes_the_same_plan() -> None:
    assert searched(2, 0.6).layers == searched(2, 0.6).layers
    assert searched(2, 0.6).best == searched(2, 0.6).best


def test_layers_that_may_take_nothing_keep_their_reasons() -> None:
    found = {layer.name.removesuffix(".weight"): layer for layer in searched(0, 0.75).layers}
    assert list(found) == ["stem", "square", "each", "point", "large", "hidden", "fc"]
    assert found["stem"].reason.startswith("a first convolution") and found["fc"].reason.startswith("a last layer")
    assert found["each"].reason.startswith("depthwise")
    left = searched(0, 0.95, MappingRules(ignore=("large.*", "point.weight", "square.weight")))
    reasons = {layer.name: (layer.structure, layer.reason) for layer in left.layers}
    assert reasons["large.weight"] == (None, "left alone by 'large.*'")


def test_every_reason_says_time_and_error_of_what_was_taken_and_of_its_neighbours() -> None:
    for layer in searched(0, 0.6).layers:
        if layer.structure is not None:
            assert layer.dense is not None and layer.sparse is not None
            told = f"{layer.asked} takes {layer.sparse / layer.dense:.2f} of its time at an error of "
            assert f" by search: {told}" in layer.reason and "; beside it " in layer.reason


def test_with_all_the_time_of_the_dense_network_all_stay_dense() -> None:
    found = searched(0, 1.0)
    assert all(layer.structure is None for layer in found.layers)
    assert found.quality == 1 and found.best[0] == {}


def test_where_no_structure_is_faster_none_is_tried() -> None:
    class Slow(Table):
        def sparse(self, name: str, structure: Structure, share: float) -> Time:
            return self.dense(name)

    known = Known()
    found = map_by_search(VIEWS, Slow(), RULES, StructureSearch(1.0), known)
    reasons = {layer.name: layer.reason for layer in found.layers}
    assert reasons["square.weight"] == "a 3x3 convolution, which no structure makes faster"
    assert reasons["hidden.weight"] == "a linear layer, which no structure makes faster"
    with pytest.raises(InputError, match=r"a budget of 0.9 .* at its fastest it is 1.000"):
        map_by_search(VIEWS, Slow(), RULES, StructureSearch(0.9), known)


def test_a_budget_that_cannot_be_reached_is_told_with_the_least_that_can() -> None:
    with pytest.raises(InputError) as caught:
        searched(0, 0.01)
    least = float(str(caught.value).split("at its fastest it is ")[1].split(";")[0])
    assert "a budget of 0.01 of the dense time cannot be reached" in str(caught.value)
    dense, sparse = total(searched(0, least))
    assert least - 0.002 < sparse / dense <= least


def test_networks_whose_outputs_are_no_numbers_are_the_worst() -> None:
    class Broken(Known):
        def in_network(self, name: str, structure: Structure, share: float) -> float:
            return float("nan") if kind(structure) == 2 else self.in_layer(name, structure, share)

        def quality(self, chosen: Mapping[str, Taken]) -> float:
            return float("nan") if any(kind(taken[0]) == 2 for taken in chosen.values()) else self.told(chosen)

    found = searched(1, 0.75, worth=Broken(1))
    assert np.isfinite(found.quality) and all(kind(taken[0]) != 2 for taken in found.best[0].values())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"budget": 0.0}, "budget 0.0 is no share of the dense time above 0 and up to 1"),
        ({"budget": 1.5}, "budget 1.5 is no share"),
        ({"budget": float("nan")}, "budget nan is no share"),
        ({"shares": ()}, "a search tries shares of zeros above 0"),
        ({"shares": (0.5, 0.0)}, "a search tries shares of zeros above 0"),
        ({"shares": (1.0,)}, "sparsity 1.0 is outside 0..1"),
        ({"choices": 1}, "of 1 choices of a layer nothing can be searched for"),
        ({"latency": -1.0}, "the reward's weight of latency is -1.0"),
        ({"settings": SearchSettings(rounds=0)}, "rounds 0 is not 1 or more"),
    ],
)
def test_what_makes_no_sense(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StructureSearch(**asked)


def test_names_to_ignore_that_match_nothing() -> None:
    with pytest.raises(InputError, match="the pattern 'x' matches no layer"):
        searched(rules=MappingRules(ignore=("x",)))

"""Units of structures as parts: as many go as were allotted, and what is left has the structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.scores import Evidence
from reconvene.passes.pruning.search.counts import Counts, counts
from reconvene.passes.pruning.search.distribution import initial
from reconvene.passes.pruning.search.parts import total
from reconvene.passes.pruning.search.rounds import search
from reconvene.passes.pruning.search.settings import SearchSettings
from reconvene.passes.pruning.search.structure_parts import StructureParts, pruned_share, structure_parts
from reconvene.passes.pruning.structure_rules import structure_rules
from reconvene.passes.pruning.structured import Ranked, structured_masks
from reconvene.passes.structures import recognise
from reconvene.passes.values import attribute
from reconvene.passes.weight_views import weight_views


@pytest.fixture(scope="module")
def module() -> torch.fx.GraphModule:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
    )
    return canonicalize(capture(layers, (torch.randn(1, 8, 16, 16),)))


def parts_of(module: torch.fx.GraphModule, spelled: str) -> StructureParts:
    """All layers, also those that stay dense unless they are named."""
    named = {view.name: spelled for view in weight_views(module)}
    return structure_parts(module, Evidence(), structure_rules(named))


@pytest.mark.parametrize(
    "spelled", ["row-block:4", "pattern:8", "2:4", "2:4:4", "unstructured", "block-punched:4x4", "dot:4"]
)
def test_as_many_units_go_as_were_allotted(module: torch.fx.GraphModule, spelled: str) -> None:
    parts = parts_of(module, spelled)
    described = parts.parts()
    budget = total(described) // 3
    taken = counts(initial(described), described, budget)
    masks = parts.masks(taken)
    assert masks.keys() == {view.name for view in parts.taken}
    for (view, structure), part, count in zip(parts.taken.items(), described, taken, strict=True):
        zeros = int((~masks[view.name]).sum())
        outside = view.shape.weights - part.size * part.price  # Patterns of 4 of 9 leave 5 out wherever they are.
        assert zeros == count * part.price + outside
        left = attribute(module, view.name).detach() * masks[view.name]
        assert not parts.structures(taken)[view][0].broken(view.seen(left))  # type: ignore[index]
        assert recognise(view.seen(left)) is not None and str(structure)
    assert pruned_share(parts, taken) == pytest.approx(
        sum(int((~mask).sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    )


def test_every_method_takes_what_was_allotted(module: torch.fx.GraphModule) -> None:
    """Masks by the spelled structures are those of the allocation."""
    for spelled in ("row-block:4", "pattern:8", "2:4"):
        parts = parts_of(module, spelled)
        described = parts.parts()
        taken = counts(initial(described), described, total(described) // 3)
        named = parts.spelled(taken)
        found = structured_masks(module, Evidence(), structure_rules(named), Ranked())
        assert found.masks.keys() == parts.masks(taken).keys() == named.keys()
        assert all(torch.equal(mask, found.masks[name]) for name, mask in parts.masks(taken).items())


def test_layers_that_stay_dense_are_no_parts(module: torch.fx.GraphModule) -> None:
    found = structure_parts(module, Evidence(), structure_rules("row-block:4"), ignore=("2",))
    assert [part.name for part in found.parts()] == ["4.weight"]
    with pytest.raises(InputError, match="snip scores weights on data"):
        structure_parts(module, Evidence(), structure_rules("row-block:4"), "snip")


def test_levels_of_n_of_m_are_units(module: torch.fx.GraphModule) -> None:
    parts = parts_of(module, "2:4")
    assert [(part.size, part.most) for part in parts.parts()] == [(4, 3)] * 4
    found = parts.structures((0, 1, 2, 3))
    assert [None if after is None else (str(after[0]), after[1]) for after in found.values()] == [
        None, ("3:4", 0.25), ("2:4", 0.5), ("1:4", 0.75),
    ]  # fmt: skip
    assert parts.masks((0, 1, 2, 3)).keys() == {"2.weight", "4.weight", "6.weight"}


def test_a_search_allots_the_share_of_zeros_by_layer(module: torch.fx.GraphModule) -> None:
    """What is lost is the scores that go, the last layer's counted tenfold: it loses least, as is best by brute force."""
    parts = parts_of(module, "2:4")
    described, last = parts.parts(), list(parts.taken)[-1]
    dear = {view: (10.0 if view is last else 1.0) * parts.scores[view] for view in parts.taken}

    def worth(one: Counts) -> float:
        masks = parts.masks(one)
        return -sum(float(dear[v][~v.seen(masks[v.name])].sum()) for v in parts.taken if v.name in masks)

    def quality(some: Sequence[Counts]) -> list[float]:
        return [worth(one) for one in some]

    budget = total(described) // 2
    wide = SearchSettings(rounds=40, samples=20, noise=0.5, last_noise=0.1, pull=0.5)
    found = search(described, budget, initial(described), wide, quality, np.random.default_rng(0))

    def left(one: Counts) -> int:
        return budget - sum(count * part.price for count, part in zip(one, described, strict=True))

    full = [
        one
        for one in np.ndindex(4, 4, 4, 4)
        if left(one) >= 0
        and all(part.price > left(one) for count, part in zip(one, described, strict=True) if count < part.most)
    ]
    assert found.chosen.counts in full
    assert found.chosen.quality == pytest.approx(max(worth(one) for one in full))
    assert found.chosen.counts[-1] == 0

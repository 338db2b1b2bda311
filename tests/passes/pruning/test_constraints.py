"""Constraints: the nearest network of a set, its masks, its groups, and sets that have it in common."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule, cloned
from reconvene.passes.compaction import compact
from reconvene.passes.pruning.channel_constraint import WholeChannels
from reconvene.passes.pruning.constraints import Constraint, InsideLayers
from reconvene.passes.pruning.decisions import Widths
from reconvene.passes.pruning.structure_rules import structure_rules
from reconvene.passes.structures import find_structure

IMAGE = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)
INSIDE = (
    "row-block:4",
    "bcr:4x4",
    "block-punched:4x4",
    "pattern",
    "connectivity",
    "2:4",
    "1:4:4",
    "unified:4x4",
    "dot:4",
)


class Residual(nn.Module):
    """Two convolutions whose channels are added, between others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.middle, self.back = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = (x + self.back(self.middle(x).relu())).relu()
        return self.last(x.mean((2, 3)))


def network() -> CapturedModule:
    return cloned(_captured())


@cache
def _captured() -> CapturedModule:
    torch.manual_seed(0)
    model = Residual()
    nn.init.uniform_(model.norm.weight, 0.5, 1.5)
    nn.init.normal_(model.norm.bias)
    return capture(model.double().eval(), (IMAGE[0].double(),))


def values(module: nn.Module, constraint: Constraint) -> dict[str, Tensor]:
    return {name: module.get_parameter(name).detach() for name in constraint.read}


def inside(asked: str | dict[str, str], share: float = 0.75, scope: str = "layer") -> InsideLayers:
    return InsideLayers.of(network(), structure_rules(asked), share, scope)


@pytest.mark.parametrize("name", INSIDE)
def test_inside_layers_the_nearest_has_the_structure_and_its_share(name: str) -> None:
    constraint = inside(name)
    assert constraint.names == constraint.read == ("middle.weight", "back.weight")
    weights = values(network(), constraint)
    found, masks = constraint.projected(weights), constraint.masks(weights)
    for weight in constraint.names:
        structure = find_structure(name)
        assert not structure.broken(found[weight])
        assert torch.equal(found[weight] != 0, masks[weight])
        share = structure.fixed_sparsity or 0.75
        assert float((~masks[weight]).double().mean()) == pytest.approx(share, abs=0.05)
        if name != "pattern":  # Its set is chosen over all layers.
            assert torch.equal(found[weight], structure.project(weights[weight], 0.75))
    assert constraint.sparsity(found) == pytest.approx(find_structure(name).fixed_sparsity or 0.75, abs=0.05)
    again = constraint.projected(found)
    assert all(torch.allclose(again[weight], found[weight]) for weight in constraint.names)
    apart = constraint.held(weights, masks)
    assert all(torch.equal(apart[weight], found[weight]) for weight in constraint.names)


def test_patterns_are_one_set_for_the_network_and_stay_it() -> None:
    constraint = inside("pattern:2")
    assert len({structure for structure in constraint.taken.values()}) == 1
    other = {name: torch.randn_like(value) for name, value in values(network(), constraint).items()}
    kernels = torch.cat([mask.reshape(-1, 9) for mask in constraint.masks(other).values()])
    assert len({tuple(kernel.tolist()) for kernel in kernels if bool(kernel.any())}) == 2


@pytest.mark.parametrize(("name", "shares"), [("pattern", (5 / 9, 1 - 0.25 * 9 / 4)), ("row-block:4", (0.75,))])
def test_what_sets_have_in_common(name: str, shares: tuple[float, ...]) -> None:
    constraint = inside(name)
    parts = constraint.factors()
    weights = values(network(), constraint)
    for part, share in zip(parts, shares, strict=True):
        assert part.sparsity(part.projected(weights)) == pytest.approx(share, abs=0.02)
    joint = constraint.projected(weights)
    for part in parts:  # What is in all of them is in each.
        assert all(torch.equal(value, joint[name]) for name, value in part.projected(joint).items())


@pytest.mark.parametrize("name", ["row-block:4", "2:4", "1:4:4", "bcr:4x4", "unified:4x4"])
def test_the_share_grows_on_the_way(name: str) -> None:
    constraint = inside(name)
    weights = values(network(), constraint)
    shares = []
    for done in (0.0, 0.3, 0.6, 0.9, 1.0):
        masks = constraint.masks(weights, done)
        shares.append(float(torch.cat([(~mask).double().reshape(-1) for mask in masks.values()]).mean()))
    assert shares == sorted(shares) and shares[0] <= 0.25 and len(set(shares)) >= 2
    assert shares[-1] == pytest.approx(find_structure(name).fixed_sparsity or 0.75, abs=0.05)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_layer_with_a_share_of_its_own(scope: str) -> None:
    constraint = inside({"middle": "row-block:4@0.25", "*": "row-block:4"}, 0.75, scope)
    weights = values(network(), constraint)
    for done in (0.5, 1.0):
        kept = {name: float(mask.double().mean()) for name, mask in constraint.masks(weights, done).items()}
        assert kept == pytest.approx({"middle.weight": 1 - 0.25 * done, "back.weight": 1 - 0.75 * done}, abs=0.02)
    shares = {view.name: share for view, (_, share) in constraint.with_shares(weights).items()}
    assert shares == pytest.approx({"middle.weight": 0.25, "back.weight": 0.75}, abs=0.01)


def test_sets_in_common_are_by_the_layers_own_share() -> None:
    """Patterns leave 4 of 9 weights, and the second set as many kernels as make up for the rest."""
    constraint = inside({"middle": "pattern@0.7", "*": "pattern"}, 0.8)
    _, kernels = constraint.factors()
    kept = {name: float(mask.double().mean()) for name, mask in kernels.masks(values(network(), kernels)).items()}
    assert kept == pytest.approx({"middle.weight": 0.3 * 9 / 4, "back.weight": 0.2 * 9 / 4}, abs=0.01)


def test_over_the_network_layers_lose_what_is_smallest() -> None:
    module = network()
    with torch.no_grad():
        module.get_parameter("back.weight").mul_(100)
    found = InsideLayers.of(module, structure_rules("row-block:4"), 0.5, "global")
    masks = found.masks(values(module, found))
    assert bool(masks["back.weight"].all()) and float(masks["middle.weight"].double().mean()) < 0.01


@pytest.mark.parametrize("name", [*INSIDE, "channels"])
def test_groups_are_sums_of_squares_through_which_gradients_pass(name: str) -> None:
    module = network()
    constraint: Constraint = inside(name) if name != "channels" else WholeChannels.of(module, 0.5, Widths())
    weights = {key: value.clone().requires_grad_() for key, value in values(module, constraint).items()}
    found = constraint.groups(weights)
    assert all(bool((norm >= 0).all()) for kinds in found.values() for norm in kinds)
    first = torch.stack([kinds[0].sum() for kinds in found.values()]).sum()
    first.backward()  # type: ignore[no-untyped-call]
    touched = constraint.read if name != "channels" else constraint.names
    gradients = {key: weights[key].grad for key in touched}
    counts = {
        key: float((grad / (2 * weights[key]).detach()).median()) for key, grad in gradients.items() if grad is not None
    }
    assert set(counts) == set(touched) and all(round(count, 6) >= 1 for count in counts.values())


def test_blocks_have_columns_and_rows_and_kernels_single_weights() -> None:
    sizes = {name: [tuple(norm.shape) for norm in inside(name).groups(values(network(), inside(name)))["middle.weight"]]
             for name in ("bcr:4x4", "pattern", "2:4")}  # fmt: skip
    assert sizes == {"bcr:4x4": [(3, 2, 36), (3, 2, 4)], "pattern": [(12, 8), (12, 8, 8)], "2:4": [(12, 2, 9, 4)]}


def test_whole_channels_are_the_nearest_and_are_removed_exactly() -> None:
    module = network()
    constraint = WholeChannels.of(module, 0.5, Widths())
    assert set(constraint.names) == {"first.weight", "first.bias", "norm.weight", "norm.bias", "middle.weight",
                                     "middle.bias", "back.weight", "back.bias"}  # fmt: skip
    assert set(constraint.read) == {*constraint.names, "last.weight"}
    weights = values(module, constraint)
    found = constraint.projected(weights)
    rows = torch.cat([weights["middle.weight"].flatten(1), weights["middle.bias"][:, None]], 1)
    kept = found["middle.weight"].flatten(1).any(1)
    best = max(combinations(range(12), 6), key=lambda chosen: float(rows[list(chosen)].square().sum()))
    assert kept.nonzero().reshape(-1).tolist() == list(best)
    with torch.no_grad():
        for name, value in found.items():
            module.get_parameter(name).copy_(value)
    assert constraint.sparsity(values(module, constraint)) == 0.5
    result = compact(module, (IMAGE[0].double(),))
    assert result.certificate.max_absolute < 1e-12
    assert [result.module.get_parameter(f"{name}.weight").shape[0] for name in ("first", "middle", "back")] == [4, 6, 4]


def test_channel_groups_are_all_that_makes_or_reads_a_channel() -> None:
    module = network()
    constraint = WholeChannels.of(module, 0.5, Widths())
    weights = values(module, constraint)
    squares = {name: value.square() for name, value in weights.items()}
    (middle,) = constraint.groups(weights)["middle.weight"]
    by_hand = squares["middle.weight"].sum((1, 2, 3)) + squares["middle.bias"] + squares["back.weight"].sum((0, 2, 3))
    torch.testing.assert_close(middle, by_hand)
    (shared,) = constraint.groups(weights)["first.weight"]
    by_hand = sum(
        (squares[name].flatten(1).sum(1) if squares[name].dim() > 1 else squares[name] for name in
         ("first.weight", "first.bias", "norm.weight", "norm.bias", "back.weight", "back.bias")),
        squares["middle.weight"].sum((0, 2, 3)) + squares["last.weight"].sum(0),
    )  # fmt: skip
    torch.testing.assert_close(shared, by_hand)


def test_channels_that_would_stay_are_not_zeroed() -> None:
    class Held(Residual):
        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.first(x)).relu()
            y = self.back(self.middle(x).relu()).sort(1).values
            return self.last((x + y).mean((2, 3)))

    module = capture(Held().double().eval(), (IMAGE[0].double(),))
    constraint = WholeChannels.of(module, 0.5, Widths())
    assert {group.name for group in constraint.losing} == {"middle.weight"}
    with pytest.raises(InputError, match=r"no channel of this model could be removed: all are left alone by ignore"):
        WholeChannels.of(module, 0.5, Widths(ignore=("middle",)))


def test_a_network_of_which_nothing_takes_a_structure_is_refused() -> None:
    with pytest.raises(InputError, match="no layer of this model takes a structure of zeros"):
        inside("row-block:5")

"""Channels for a budget: both ways to choose them."""

from __future__ import annotations

import pytest

from reconvene.backends.machines.targets import find_target
from reconvene.driver.exploring.ground import Ground
from reconvene.driver.exploring.kinds import finder
from reconvene.driver.exploring.settings import Settings
from reconvene.driver.searched_mapping import HeldOut
from reconvene.driver.shrinking.held_out import calibration
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.scores import Evidence
from reconvene.passes.pruning.search.settings import SearchSettings
from reconvene.passes.pruning.search.structure_search import StructureSearch
from tests.driver.exploring.test_explore import ONE, X, dense
from tests.driver.training.test_loop import images


def ground(*variants: str, ignore: tuple[str, ...] = (), batches: bool = True) -> Ground:
    scored = calibration(images(64), 32, 0) if batches else ()
    few = StructureSearch(choices=3, settings=SearchSettings(rounds=1, samples=3))
    settings = Settings((0.6,), variants, ignore=ignore, structure_search=few)
    held_out = HeldOut(images(64), 0.25) if batches else None
    return Ground(dense(), ONE, find_target("rpi4"), Evidence(X, scored), settings, held_out=held_out)


@pytest.mark.parametrize("kind", ["channels", "channels:knapsack"])
def test_fewer_channels_meet_the_budget_and_are_multiples(kind: str) -> None:
    on = ground(kind)
    choice = finder(kind)(on, kind, 0.6)
    assert choice.module is not None and not choice.structures
    assert choice.reached == pytest.approx(on.share_of(choice.module)) and choice.reached <= 0.6
    widths = [choice.module.get_parameter(f"{layer}.weight").shape[0] for layer in (0, 3)]
    assert all(width % on.target.channel_multiple == 0 and width <= 16 for width in widths) and sum(widths) < 32
    assert choice.told.endswith("of the parameters gone with their channels")


def test_a_knapsack_needs_images_and_patterns_match() -> None:
    with pytest.raises(InputError, match="scores channels on images, and there are none"):
        finder("channels:knapsack")(ground("channels", batches=False), "channels:knapsack", 0.6)
    with pytest.raises(InputError, match="matches no"):
        finder("channels")(ground("channels", ignore=("conv9",)), "channels", 0.6)

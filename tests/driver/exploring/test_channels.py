"""Channels for a budget: goals that one clock tells, moved until another is content; and both ways to choose them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from reconvene.backends.machines.targets import find_target
from reconvene.driver.exploring.channels import Tried, widest_within
from reconvene.driver.exploring.ground import Ground
from reconvene.driver.exploring.kinds import finder
from reconvene.driver.exploring.settings import Settings
from reconvene.driver.shrinking.held_out import calibration
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.latency import OutOfReach
from reconvene.passes.pruning.scores import Evidence
from tests.driver.exploring.test_explore import ONE, X, dense
from tests.driver.training.test_loop import images

_NONE = fx.GraphModule(nn.Module(), fx.Graph())


def giving(share: Callable[[float], float], least: float = 0.0) -> Callable[[float], Tried]:
    """Networks that take `share` of the goal; none for goals below `least`."""

    def give(goal: float) -> Tried:
        if goal < least:
            raise OutOfReach(f"{goal} is too little")
        return Tried(share(goal), _NONE)

    return give


def test_a_clock_that_agrees_is_asked_once() -> None:
    asked: list[float] = []
    found = widest_within(giving(lambda goal: (asked.append(goal), goal)[1]), 0.5)
    assert found.share == 0.5 and asked == [0.5]


@given(st.floats(0.1, 0.9), st.floats(0.7, 1.4), st.floats(-0.1, 0.1))
def test_the_budget_is_met_and_nearly_used(budget: float, slope: float, offset: float) -> None:
    def share(goal: float) -> float:
        return slope * goal + offset

    found = widest_within(giving(share), budget)
    assert found.share <= budget
    assert found.share >= min(budget, share(1.0)) - 0.06


def test_steps_are_no_trap() -> None:
    """Widths are multiples: shares of 0.2, 0.4 ..., and a goal below 0.3 has none."""
    found = widest_within(giving(lambda goal: round(goal * 5 + 0.5) / 5, least=0.3), 0.5)
    assert found.share == 0.4
    with pytest.raises(OutOfReach, match=r"no widths take 0.35 .* take 0.4"):
        widest_within(giving(lambda goal: round(goal * 5 + 0.5) / 5, least=0.3), 0.35)


def ground(*variants: str, ignore: tuple[str, ...] = (), batches: bool = True) -> Ground:
    scored = calibration(images(64), 32, 0) if batches else ()
    settings = Settings((0.6,), variants, ignore=ignore)
    return Ground(dense(), ONE, find_target("rpi4"), Evidence(X, scored), settings)


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

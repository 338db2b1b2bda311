"""Rewards: accuracy, and what is saved of the dense network's costs."""

from __future__ import annotations

import pytest

from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.search.rewards import REWARDS, Costs, Reward, find_reward

DENSE = Costs(1000.0, 200.0, 50.0)


def test_by_hand() -> None:
    saved = Costs(600.0, 50.0, 40.0).saved(DENSE)
    assert saved == Costs(pytest.approx(0.4), pytest.approx(0.75), pytest.approx(0.2))
    assert find_reward("accuracy")(0.9, saved) == 0.9
    assert find_reward("macs")(0.9, saved) == pytest.approx(0.9 + 0.25 * 0.4)
    assert find_reward("parameters")(0.9, saved) == pytest.approx(0.9 + 0.25 * 0.75)
    assert find_reward("latency")(0.9, saved) == pytest.approx(0.9 + 0.25 * 0.2)
    assert Reward(macs=1, parameters=2, latency=3)(0.5, saved) == pytest.approx(0.5 + 0.4 + 1.5 + 0.6)


def test_what_costs_nothing_saves_nothing() -> None:
    assert Costs(500.0, 100.0).saved(Costs(1000.0, 200.0)).latency == 0


def test_the_target_s_time_is_worth_more_than_multiplications_where_they_differ() -> None:
    """One allocation saves more multiply-accumulates, the other more time."""
    fewer, faster = Costs(500.0, 200.0, 45.0).saved(DENSE), Costs(800.0, 200.0, 30.0).saved(DENSE)
    assert REWARDS["macs"](0.9, fewer) > REWARDS["macs"](0.9, faster)
    assert REWARDS["latency"](0.9, fewer) < REWARDS["latency"](0.9, faster)


def test_mistakes_are_one_line() -> None:
    with pytest.raises(InputError, match="choose one of accuracy, macs"):
        find_reward("speed")
    for weight in (-1.0, float("nan")):
        with pytest.raises(InputError, match="weight of latency"):
            Reward(latency=weight).check()

"""Zeros inside layers chosen by time: times are given by hand, so that the answer is known."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.pruning.decisions import Widths
from reconvene.passes.pruning.methods import find_method
from reconvene.passes.pruning.methods.base import Aim, ChannelMethod, Pruned
from reconvene.passes.pruning.scores import Evidence
from reconvene.passes.pruning.structure_rules import structure_rules
from reconvene.passes.pruning.zeros_latency import NetworkTime, ZerosGoal, ZerosTime

IMAGE = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)
DENSE = {"0.weight": 100.0, "1.weight": 400.0, "2.weight": 400.0, "5.weight": 100.0}
"""All of the time that the layers of `net` take: of 1000."""


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 64, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip


MODULE = capture(net(), IMAGE)


class Clock:
    """Times by the share of weights that stay, from a share of zeros on at which a kernel that skips them takes over."""

    def __init__(self, **since: float) -> None:
        """`since`: by layer, ``l1`` for ``1.weight``; 0 for layers that are not named."""
        self.since = {f"{name[1:]}.weight": share for name, share in since.items()}
        self.asked: list[dict[str, float]] = []

    def __call__(self, masks: Mapping[str, Tensor]) -> NetworkTime:
        kept = {name: float(mask.float().mean()) for name, mask in masks.items()}
        self.asked.append(kept)
        times = {name: time * self.factor(name, kept.get(name, 1.0)) for name, time in DENSE.items()}
        return NetworkTime(sum(times.values()), times)

    def factor(self, name: str, kept: float) -> float:
        return kept if 1 - kept >= self.since.get(name, 0.0) else 1.0


def pruned(
    latency: float, time: ZerosTime, structure: str | Mapping[str, str] = "row-block:4", scope: str = "layer"
) -> Pruned:
    aim = Aim(widths=Widths(scope), latency=latency, zeros_time=time, structures=structure_rules(structure))
    return find_method("magnitude", ChannelMethod).prune(MODULE, Evidence(IMAGE), aim)


def shares(found: Pruned) -> dict[str, float]:
    assert found.timing is not None
    return {layer.name: round(layer.zeros, 2) for layer in found.timing.layers}


def test_the_least_share_that_reaches_the_goal() -> None:
    """200 of 1000 stay dense: half of the time is 300 of the other 800."""
    found, timing = pruned(0.5, Clock()), pruned(0.5, Clock()).timing
    assert timing is not None
    assert 0.49 <= timing.reached <= 0.5 and 0.62 <= timing.sparsity <= 0.64
    assert (timing.wanted, timing.dense, timing.sparse) == (0.5, 1000.0, pytest.approx(1000 * timing.reached))
    assert shares(found)["0.weight"] == shares(found)["5.weight"] == 0
    assert 0.62 <= shares(found)["1.weight"] == shares(found)["2.weight"] <= 0.64
    zeros = {layer.name: layer.zeros / layer.weights for layer in found.compaction.zeros}
    assert zeros["1.weight"] == pytest.approx(shares(found)["1.weight"], abs=0.01)
    origin = found.compaction.plan.origin
    assert (origin["latency"], origin["modelled_latency"], origin["sparsity"]) == (0.5, timing.reached, timing.sparsity)


def test_what_is_reached_is_timed_where_kernels_change_over() -> None:
    """Below 0.7 zeros nothing is faster at all, so that the line between the ends is far off."""
    clock = Clock(l1=0.7, l2=0.7)
    found = pruned(0.9, clock)
    assert found.timing is not None
    assert 0.7 <= found.timing.sparsity <= 0.71 and found.timing.reached == pytest.approx(0.2 + 0.8 * 0.3, abs=0.01)
    last = clock.asked[-1]
    assert {name: round(1 - last[name], 2) for name in last} == {name: shares(found)[name] for name in last}
    assert len(clock.asked) < 16


def test_layers_that_gain_nothing_keep_their_weights() -> None:
    """The second layer has no fast kernel below 0.99 zeros: the third alone goes from 400 to 200 of 1000."""
    found = pruned(0.8, Clock(l1=0.99))
    given = {layer.name: layer for layer in found.compaction.zeros}
    assert given["1.weight"].zeros == 0 and "gains nothing" in given["1.weight"].reason
    assert given["1.weight"].asked is None and given["2.weight"].asked == "row-block:4"
    assert shares(found)["1.weight"] == 0 and 0.49 <= shares(found)["2.weight"] <= 0.53


def test_a_layer_that_its_neighbours_need_keeps_its_zeros() -> None:
    """Without zeros in the second layer the third has to take its dense kernel."""

    class Neighbours(Clock):
        def __call__(self, masks: Mapping[str, Tensor]) -> NetworkTime:
            found = super().__call__(masks)
            together = all(not bool(masks[name].all()) for name in ("1.weight", "2.weight") if name in masks)
            alone = "1.weight" not in masks or "2.weight" not in masks or not together
            times = {**found.layers, "1.weight": 400.0, "2.weight": 400.0 if alone else found.layers["2.weight"]}
            return NetworkTime(sum(times.values()), times)

    found = pruned(0.8, Neighbours())
    assert found.timing is not None and found.timing.reached <= 0.8
    assert shares(found)["1.weight"] == shares(found)["2.weight"] > 0.4


def test_all_of_the_time_needs_no_zeros() -> None:
    assert set(shares(pruned(1.0, Clock())).values()) == {0.0}


def test_what_the_least_zeros_reach_is_told_with_them() -> None:
    """Patterns have zeros at any share: five of nine, with which the third layer alone is fast enough."""
    found = pruned(0.9, Clock(l1=0.99), "pattern,row-block:4")
    assert found.timing is not None and found.timing.reached == pytest.approx(0.6 + 0.4 * 4 / 9, abs=1e-6)
    assert shares(found)["1.weight"] == 0 and found.timing.sparsity == pytest.approx(5 / 9)


def test_structures_by_name_and_shares_over_the_network() -> None:
    found = pruned(0.6, Clock(), {"2": "block-punched:8x4", "*": "row-block:4"})
    given = {layer.name: layer.asked for layer in found.compaction.zeros}
    assert (given["1.weight"], given["2.weight"]) == ("row-block:4", "block-punched:8x4")
    ranked = pruned(0.6, Clock(), scope="global")
    assert ranked.timing is not None and 0.59 <= ranked.timing.reached <= 0.6
    assert shares(ranked)["1.weight"] != shares(ranked)["2.weight"]


def test_a_fixed_share_beside_one_that_is_found() -> None:
    found = pruned(0.5, Clock(), {"2": "2:4", "*": "row-block:4"})
    assert shares(found)["2.weight"] == 0.5 and 0.73 <= shares(found)["1.weight"] <= 0.77


@pytest.mark.parametrize(("own", "share"), [("row-block:4@0.3", 0.3), ("2:4", 0.5)])
def test_a_share_of_a_layers_own_stays_even_where_it_gains_nothing(own: str, share: float) -> None:
    found = pruned(0.8, Clock(l2=0.99), {"2": own, "*": "row-block:4"}, "global")
    assert shares(found)["2.weight"] == share and found.timing is not None and found.timing.reached <= 0.8
    assert shares(found)["1.weight"] > 0.4


def test_what_cannot_be_reached_is_refused() -> None:
    with pytest.raises(InputError, match=r"latency 0.1 cannot be reached .*: with 99.9% of them it is 0.20\d;"):
        pruned(0.1, Clock())
    with pytest.raises(InputError, match="no layer of this model has a known time"):
        pruned(0.5, lambda masks: NetworkTime(0.0, {}))
    with pytest.raises(InputError, match=r"2:4 says its share of zeros itself.*such as row-block:4"):
        pruned(0.5, Clock(), "2:4")
    with pytest.raises(InputError, match=r"latency 1\.5 is outside"):
        ZerosGoal(1.5, Clock())
    aim = Aim(latency=0.5, zeros_time=Clock(), structures=structure_rules("row-block:4"))
    with pytest.raises(InputError, match="not be aimed at by the method layerwise; find its sparsity with a score"):
        find_method("layerwise", ChannelMethod).check_aim(aim)
    with pytest.raises(ValueError, match="nothing tells the time"):
        _ = Aim(latency=0.5, structures=structure_rules("row-block:4")).zeros_goal

"""What is masked goes, or is not masked: whatever a method wants, nothing is zeroed that the analysis cannot remove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes import compaction
from reconvene.passes.outcome import Compaction
from reconvene.passes.pruning import trial
from reconvene.passes.pruning.baselines import Setting, make_candidate
from reconvene.passes.pruning.latency import LatencyGoal
from reconvene.passes.pruning.methods.base import Aim
from reconvene.passes.pruning.methods.reconvene import Reconvene
from reconvene.passes.pruning.scores import Evidence

from ...support.models import randomise, widths
from ...support.pruning import ONE_SHOT, prune

IMAGE = (torch.randn(2, 3, 12, 12),)


class Framed(nn.Module):
    """Channels in a frame that is no constant of theirs, before a layer that loses channels as usual."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.held, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.free, self.after = nn.Conv2d(16, 12, 3), nn.Conv2d(12, 5, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        features = self.free(self.between(self.norm(self.held(x)).relu())).relu()
        return self.after(features).mean((2, 3))


FRAMES: dict[str, Callable[[Tensor], Tensor]] = {
    "a frame of 0.7": lambda x: F.pad(x, (1, 1, 1, 1), value=0.7),
    "an average of it": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), value=0.7), 2),
    "a pool's windows inside it": lambda x: F.max_pool2d(F.pad(x, (3, 3, 3, 3), value=-0.2), 2),
}


def all_masked_are_gone(result: Compaction) -> bool:
    """Whether every filter that the plan's masks zero is missing from the plan's kept ones."""
    for name, mask in result.plan.masks.items():
        zeroed = ~mask.reshape(mask.shape[0], -1).any(1)
        kept = result.plan.kept.get(name, {}).get(0, torch.arange(len(zeroed)))
        if zeroed.any() and zeroed[kept].any():
            return False
    return True


@pytest.mark.parametrize("frame", FRAMES)
def test_channels_that_would_stay_are_not_zeroed(frame: str) -> None:
    model = randomise(Framed(FRAMES[frame]))
    result = prune(capture(model, IMAGE), IMAGE)
    assert all_masked_are_gone(result)
    assert not [name for name in result.plan.masks if name.startswith(("held", "norm"))]
    assert widths(result) == {"held": 16, "free": 6, "after": 5}
    held = next(group for group in result.groups if group.name == "held.weight")
    assert (held.asked, held.got) == (8, 0)
    ended, read = held.reasons
    assert ended.startswith("constant channels are not constant any more after 'pad' at ")
    assert read.startswith("read by 'conv2d_1' at ")
    assert f"8 of 8 channels are not zeroed, because they would stay: {ended}" in result.refusals[0]
    with torch.no_grad():
        stored = dict(result.module.named_parameters())
        assert torch.equal(stored["held.weight"], model.held.weight)


@pytest.mark.parametrize("method", ONE_SHOT)
def test_this_holds_for_every_method(method: str) -> None:
    batches = [(IMAGE, torch.tensor([0, 1]))]
    result = prune(capture(randomise(Framed(FRAMES["a frame of 0.7"])), IMAGE), IMAGE, method, 0.5, batches=batches)
    assert all_masked_are_gone(result)
    assert widths(result) == {"held": 16, "free": 6, "after": 5}


def test_this_holds_for_global_scope_and_for_a_goal_of_time() -> None:
    module = capture(randomise(Framed(FRAMES["a frame of 0.7"])), IMAGE)
    assert widths(prune(module, IMAGE, scope="global"))["held"] == 16
    goal = LatencyGoal(0.6, lambda name, read, made: float(read * made) if name.endswith("weight") else 0.0)
    result = prune(module, IMAGE, latency=goal)
    assert all_masked_are_gone(result)
    assert widths(result)["held"] == 16
    assert widths(result)["free"] <= 8, "the layers that can lose channels make up for the one that cannot"
    with pytest.raises(InputError, match="cannot be reached"):
        prune(module, IMAGE, latency=LatencyGoal(0.01, goal.time))


def test_this_holds_for_reconvene_and_what_it_is_compared_with() -> None:
    module = capture(randomise(Framed(FRAMES["a frame of 0.7"])), IMAGE)
    found = (
        Reconvene(layers="all", evaluator="random", reinitialize="none")
        .prune(module, Evidence(IMAGE), Aim(0.9))
        .compaction
    )
    assert all_masked_are_gone(found)
    assert widths(found)["held"] == 16
    for method in ("spai-uniform", "spai-global", "reconvene"):
        assert make_candidate(method, module, Setting(Evidence(IMAGE))).module.held.weight.shape[0] == 16


class Halved(nn.Module):
    """Of sixteen channels, the second half gets a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.after = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.after(torch.cat([F.pad(x[:, :8], (1, 1)), F.pad(x[:, 8:], (1, 1), value=0.7)], 1))


@pytest.mark.parametrize(("multiple", "left"), [(1, 12), (8, 16), (4, 12)])
def test_the_other_channels_of_a_layer_go(multiple: int, left: int) -> None:
    model = randomise(Halved())
    with torch.no_grad():  # Four of the lowest eight are in either half.
        order = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15])
        model.first.weight[order] = torch.arange(1.0, 17).reshape(16, 1, 1, 1).expand(16, 3, 3, 3) * 0.1
    result = prune(capture(model, IMAGE), IMAGE, sparsity=0.5, multiple=multiple)
    assert all_masked_are_gone(result)
    assert widths(result)["first"] == left
    made = [group for group in result.groups if "first" in group.name]
    assert sum(group.asked for group in made) == 8
    assert sum(group.got for group in made) == 16 - left


def test_a_channel_that_carries_the_constants_of_others_is_zeroed_and_named() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=1)))
    result = prune(capture(model, IMAGE), IMAGE)
    assert widths(result)["0"] == 5
    assert len(result.refusals) == 1
    assert "carries the constants" in result.refusals[0]


def test_a_decision_that_can_be_carried_out_costs_one_analysis(monkeypatch: Any) -> None:
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return compaction.analyse(*args)

    monkeypatch.setattr(trial, "analyse", counted)
    module = capture(randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))), IMAGE)
    assert widths(prune(module, IMAGE))["0"] == 4
    assert len(calls) == 1

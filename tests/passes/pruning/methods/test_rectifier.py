"""How many channels of which layers go, and which."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.decisions import AS_WANTED, Decision, Widths
from reconvene.passes.pruning.methods.rectifier import Rectifier, first_layers, last_layers, rectify
from reconvene.passes.pruning.methods.sensitivity import Sensitivity
from reconvene.passes.pruning.weights import LayerSparsity

from ....support.models import view_of

IMAGE = (torch.randn(1, 3, 8, 8),)


class Residual(nn.Module):
    """A stem and a block that is added to it, a depthwise pair, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.point, self.depth = nn.Conv2d(8, 10, 1), nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.last, self.fc = nn.Conv2d(10, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.outer(self.inner(x).relu())
        return self.fc(self.last(self.depth(self.point(x)).relu()).mean((2, 3)))


MODEL = Residual()
VIEW = view_of(MODEL, IMAGE)
WEIGHTS = {name: value.detach() for name, value in MODEL.named_parameters() if value.dim() > 1}


def found(threshold: float = 0.5, **shares: float) -> Sensitivity:
    """A sensitivity with the sparsities given; all other convolutions have none."""
    names = [name for name in WEIGHTS if name != "fc.weight"]
    layers = tuple(
        LayerSparsity(
            name, WEIGHTS[name].numel(), round(shares.get(name.split(".")[0], 0.0) * WEIGHTS[name].numel()), True
        )
        for name in names
    )
    return Sensitivity(threshold, layers)


def decisions(
    sensitivity: Sensitivity, widths: Widths = AS_WANTED, seed: int = 0, **choices: str
) -> dict[str, Decision]:
    """Of a rectifier that takes (1 - s) of the channels everywhere, unless another choice is given."""
    scores = {name: value.abs() for name, value in WEIGHTS.items()}
    rectifier = Rectifier(**{"keep": "channels", "ends": "pruned", **choices})
    made = rectify(VIEW, sensitivity, scores, rectifier, widths, seed)
    return {decision.group.name: decision for decision in made}


def removed(sensitivity: Sensitivity, **options: Any) -> dict[str, int]:
    return {name: int(d.drop.sum()) for name, d in decisions(sensitivity, **options).items() if d.drop.any()}


def test_a_resilient_layer_keeps_what_its_sparsity_leaves() -> None:
    assert removed(found(inner=0.75)) == {"inner.weight": 9}
    assert removed(found(inner=0.5)) == {}
    assert decisions(found(inner=0.5))["inner.weight"].reasons == ("sensitive: no sparser than the average",)


def test_layers_that_are_added_are_one_unit_of_their_weights() -> None:
    stem, outer = WEIGHTS["stem.weight"].numel(), WEIGHTS["outer.weight"].numel()
    pooled = (stem * 0.2 + outer * 0.9) / (stem + outer)
    assert removed(found(stem=0.2, outer=0.9)) == {"stem.weight": 8 - round((1 - pooled) * 8)}
    assert removed(found(stem=0.2, outer=0.9), residual="inside") == {}
    assert "2 layers share" in decisions(found(outer=0.9), residual="inside")["stem.weight"].reasons[0]


def test_a_depthwise_convolution_is_no_residual_branch() -> None:
    both = found(point=0.8, depth=0.8)
    assert removed(both) == removed(both, residual="inside") == {"point.weight": 8}


def test_the_lowest_scores_go() -> None:
    norms = WEIGHTS["inner.weight"].abs().sum((1, 2, 3))
    drop = torch.from_numpy(decisions(found(inner=0.75))["inner.weight"].drop)
    assert norms[drop].max() < norms[~drop].min()


def test_random_channels_follow_the_seed() -> None:
    one, same, other = (
        decisions(found(inner=0.75), channels="random", seed=seed)["inner.weight"].drop.tolist() for seed in (1, 1, 2)
    )
    assert one == same != other and sum(one) == 9


def test_floor_multiple_and_at_least_one() -> None:
    assert removed(found(inner=0.75), widths=Widths(multiple=4)) == {"inner.weight": 8}
    assert removed(found(inner=0.75), widths=Widths(minimum=5)) == {"inner.weight": 7}
    assert removed(found(inner=1.0)) == {"inner.weight": 11}


def test_the_floor_is_also_a_share_of_the_layer() -> None:
    assert removed(found(inner=0.75), widths=Widths(least_share=0.5)) == {"inner.weight": 6}
    assert removed(found(inner=0.75), widths=Widths(minimum=5, least_share=0.3)) == {"inner.weight": 7}
    assert (
        "at least 6 channels stay"
        in decisions(found(inner=0.9), widths=Widths(least_share=0.5))["inner.weight"].reasons
    )


def test_a_density_is_kept_by_the_one_side_that_may_lose_channels() -> None:
    """The block's inner convolutions lie between the stem's channels, which stay, so that w = d, and not its root."""
    both = found(inner=0.75, outer=0.75)
    assert removed(both, keep="density", residual="inside") == {"inner.weight": 9}


def test_a_density_is_the_product_of_both_sides() -> None:
    """Everything but the stem's own inputs at a density of 1/4: all widths a half, the inner layers' exactly."""
    shares = {"stem": 0.5, "inner": 0.75, "outer": 0.75, "point": 0.75, "depth": 0.5, "last": 0.75}
    assert removed(found(threshold=0.0, **shares), keep="density") == {
        "stem.weight": 4, "inner.weight": 6, "point.weight": 5, "last.weight": 2,
    }  # fmt: skip


def test_the_first_layer_stays_whole_and_so_does_what_is_added_to_it() -> None:
    assert first_layers(VIEW) == {"stem.weight"} and last_layers(VIEW) == {"fc.weight"}
    sparse = found(stem=0.9, inner=0.75, outer=0.9)
    assert removed(sparse, ends="whole") == {"inner.weight": 9}
    reasons = decisions(sparse, ends="whole")["stem.weight"].reasons
    assert reasons == ("made by the network's first convolution, which stays whole",)


def test_the_last_layer_has_no_say() -> None:
    """``fc`` is dense: asked, it would keep what it reads."""
    shares = {"stem": 0.5, "inner": 0.75, "outer": 0.75, "point": 0.75, "depth": 0.5, "last": 0.75}
    linear = LayerSparsity("fc.weight", 100 * WEIGHTS["fc.weight"].numel(), 0, False)
    with_fc = Sensitivity(0.0, (*found(**shares).layers, linear))
    removals = [removed(with_fc, keep="density", ends=ends).get("last.weight", 0) for ends in ("whole", "pruned")]
    assert removals == [2, 0]


def test_layers_named_by_a_pattern_stay() -> None:
    assert removed(found(inner=0.75, point=0.8, depth=0.8), widths=Widths(ignore=("inner",))) == {"point.weight": 8}


def test_what_is_not_compared_is_not_touched() -> None:
    reasons = decisions(Sensitivity(0.5, found(inner=0.9).layers[1:2]))["point.weight"].reasons
    assert reasons == ("made by a layer that the evaluator does not compare",)


@pytest.mark.parametrize(
    "options",
    [
        {"residual": "all"},
        {"channels": "best"},
        {"keep": "weights"},
        {"ends": "open"},
        {"widths": Widths(ignore=("nothing*",))},
    ],
)
def test_unknown_choices_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"choose one of|matches no layer"):
        decisions(found(inner=0.75), **options)

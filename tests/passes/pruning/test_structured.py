"""Pruning inside of layers: every structure with every score, by layer and over the network, in layers of every kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.outcome import Compaction
from reconvene.passes.pruning import structured
from reconvene.passes.pruning.decisions import Widths
from reconvene.passes.pruning.methods import find_method, methods_of
from reconvene.passes.pruning.methods.base import Aim, ChannelMethod
from reconvene.passes.pruning.methods.one_shot import OneShot
from reconvene.passes.pruning.scores import Evidence, Request, Score, check_scores
from reconvene.passes.pruning.structure_rules import structure_rules
from reconvene.passes.pruning.structured import Ranked, structured_masks
from reconvene.passes.structures import Pattern, find_structure, recognise
from reconvene.passes.values import attribute

IMAGE = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)
BATCHES = [(IMAGE, torch.tensor([0, 1]))]
EVIDENCE = Evidence(IMAGE, BATCHES)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 4),
    ).eval()  # fmt: skip


MODEL = net()
MODULE = capture(MODEL, IMAGE)
NAMES = ("3.weight", "5.weight", "9.weight")


def masks(asked: Any, evidence: Evidence = EVIDENCE, **ranked: Any) -> dict[str, torch.Tensor]:
    return dict(structured_masks(MODULE, evidence, structure_rules(asked), Ranked(**ranked)).masks)


def prune(
    asked: Any, sparsity: float = 0.75, method: str = "magnitude", module: Any = MODULE, **widths: Any
) -> Compaction:
    aim = Aim(sparsity, Widths(**widths), structures=structure_rules(asked))
    inputs = module.meta["example_inputs"] if module is not MODULE else IMAGE
    return find_method(method, ChannelMethod).prune(module, Evidence(inputs, BATCHES), aim).compaction


@pytest.mark.parametrize(
    "name", ["row-block:4", "bcr:4x4", "block-punched:8x4", "pattern:8,block-row:4", "2:4:4", "dot:4"]
)
def test_the_result_has_what_was_asked_and_computes_what_the_masked_network_does(name: str) -> None:
    found = prune(name, 0.5 if name == "2:4:4" else 0.75)
    asked = [layer for layer in found.zeros if layer.asked]
    assert [layer.name for layer in asked] == list(NAMES)
    for mask in found.plan.masks.values():
        assert abs(float((~mask).float().mean()) - (0.5 if name == "2:4:4" else 0.75)) < 0.04
    assert found.certificate.max_relative <= found.certificate.tolerance
    for layer in asked:
        weight = found.module.get_parameter(layer.name).detach()
        assert weight.numel() - int(weight.count_nonzero()) == layer.zeros
        if layer.shape == tuple(MODULE.get_parameter(layer.name).shape):
            assert layer.asked is not None and not find_structure(layer.asked).broken(weight)
            assert layer.structure == str(recognise(weight))
    left = {layer.name: layer.reason for layer in found.zeros if not layer.asked}
    assert left["0.weight"].startswith("a first convolution") and left["10.weight"].startswith("a last layer")
    assert found.plan.origin["structure"] == {"*": name} and set(found.plan.masks) == set(NAMES)


def test_magnitude_is_the_projection() -> None:
    weight = MODEL.get_parameter("3.weight").detach()
    for name in ("unstructured", "row-block:4", "connectivity"):
        found = masks({"3": name}, sparsity=0.6)["3.weight"]
        assert torch.equal(weight * found, find_structure(name).project(weight, 0.6))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 2.0**-13), (torch.float32, 2.0**80)])
def test_what_goes_does_not_depend_on_the_range_of_squares(dtype: torch.dtype, scale: float, scope: str) -> None:
    """Weights of 1e-4 are common in float16, where their squares are 0."""
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4))
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(torch.randint(1, 100, layer.weight.shape) * 2.0**-6)
    found = []
    for factor in (1.0, scale):
        scaled = copy.deepcopy(model).to(dtype)
        for layer in scaled:
            layer.weight.data *= factor
        module = capture(scaled, (torch.zeros(1, 8, dtype=dtype),))
        rules = structure_rules("row-block:4,unstructured")
        found.append(structured_masks(module, Evidence(()), rules, Ranked(scope=scope)).masks)
    assert sorted(found[0]) == ["0.weight", "1.weight"]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_scores_of_large_layers_are_finite_in_float16_too() -> None:
    """Their sum is not, beyond 65504."""
    check_scores("magnitude", {"fc.weight": torch.full((300, 300), 1.0, dtype=torch.float16)})
    with pytest.raises(InputError, match="not finite"):
        check_scores("magnitude", {"fc.weight": torch.tensor([1.0, float("inf")])})


def test_the_sum_of_absolute_values_is_another_score() -> None:
    weight = MODEL.get_parameter("3.weight").detach()
    found = masks({"3": "row-block:4"}, squared=False)["3.weight"]
    assert torch.equal(found, find_structure("row-block:4").mask(weight.abs(), 0.5))
    assert not torch.equal(found, masks({"3": "row-block:4"})["3.weight"])


@pytest.mark.parametrize(
    ("method", "scope"),
    [*((name, "layer") for name in methods_of(OneShot)), ("magnitude", "global"), ("snip", "global")],
)
def test_every_score_gives_the_share(method: str, scope: str) -> None:
    found = prune("row-block:4", 0.75, method, scope=scope)
    before = {layer.name: MODULE.get_parameter(layer.name).numel() for layer in found.zeros}
    kept = {layer.name: layer.weights - layer.zeros for layer in found.zeros if layer.asked}
    plan = {name: int(mask.sum()) for name, mask in found.plan.masks.items()}
    if scope == "layer":
        assert all(abs(plan[name] - before[name] / 4) <= 4 for name in NAMES)
    else:
        assert abs(sum(plan.values()) - sum(before[name] for name in NAMES) / 4) <= 4
    assert kept and found.certificate.max_relative <= found.certificate.tolerance


def test_over_the_network_units_of_different_sizes_are_ranked_by_their_means() -> None:
    """The second convolution's weights are larger by far, so that the first loses nearly all of what goes."""
    model = net()
    with torch.no_grad():
        model[5].weight.mul_(100)
    rules = structure_rules({"3": "row-block:4", "5": "block-punched:8x4"})
    found = structured_masks(capture(model, IMAGE), Evidence(IMAGE), rules, Ranked(sparsity=0.4, scope="global")).masks
    assert bool(found["5.weight"].all()) and int((~found["3.weight"]).sum()) == pytest.approx(0.4 * 2 * 4608, abs=4)
    everything = structured_masks(capture(model, IMAGE), Evidence(IMAGE), rules, Ranked(sparsity=0.99, scope="global"))
    assert int(everything.masks["3.weight"].sum()) == 4


def test_structures_that_say_their_share_themselves_do_not_count_for_the_networks() -> None:
    found = masks({"3": "2:4", "5": "row-block:4"}, sparsity=0.9, scope="global")
    assert float(found["3.weight"].float().mean()) == 0.5
    assert float(found["5.weight"].float().mean()) == pytest.approx(0.1, abs=0.001)


@pytest.mark.parametrize("method", methods_of(OneShot))
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_layers_with_shares_of_their_own_have_them_and_the_others_the_general_one(method: str, scope: str) -> None:
    found = prune({"3": "row-block:4@0.25", "5": "2:4", "*": "row-block:4"}, 0.75, method, scope=scope)
    kept = {name: float(mask.float().mean()) for name, mask in found.plan.masks.items()}
    assert kept["3.weight"] == pytest.approx(0.75, abs=0.01) and kept["5.weight"] == 0.5
    assert kept["9.weight"] == pytest.approx(0.25, abs=0.02)
    assert {layer.name: layer.asked for layer in found.zeros if layer.asked} == {
        "3.weight": "row-block:4@0.25", "5.weight": "2:4", "9.weight": "row-block:4",
    }  # fmt: skip
    assert found.plan.origin["structure"] == {"3": "row-block:4@0.25", "5": "2:4", "*": "row-block:4"}


def test_patterns_are_one_set_for_the_network() -> None:
    found = structured_masks(
        MODULE, Evidence(IMAGE), structure_rules({"3": "pattern:3", "5": "pattern:3"}), Ranked(sparsity=0.7)
    )
    structures = {choice.structure for choice in found.choices if choice.structure}
    (pattern,) = structures
    assert isinstance(pattern, Pattern) and len(pattern.patterns) == 3
    squares = [MODULE.get_parameter(name).detach().square() for name in ("3.weight", "5.weight")]
    assert pattern.patterns == Pattern(3).fitted(squares).patterns
    both = torch.cat([found.masks[name].reshape(-1, 9) for name in ("3.weight", "5.weight")])
    assert {tuple(row) for row in both.tolist() if any(row)} <= {
        tuple(bool(number >> position & 1) for position in range(9)) for number in pattern.patterns
    }


def test_unified_blocks_are_in_the_result() -> None:
    found = prune({"3": "unified:4x4", "5": "row-block:4"})
    weight = found.module.get_parameter("3.weight").detach()
    assert not find_structure("unified:4x4").broken(weight)
    torch.testing.assert_close(
        weight, find_structure("unified:4x4").project(MODEL.get_parameter("3.weight").detach(), 0.75)
    )
    assert found.certificate.max_relative <= found.certificate.tolerance
    assert {layer.name: layer.structure for layer in found.zeros}["3.weight"] == "unified:4x4"


def test_grouped_and_transposed_convolutions() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, groups=2),
        nn.ReLU(), nn.Conv2d(8, 4, 1),
    ).eval()  # fmt: skip
    module = capture(model, IMAGE)
    for name in ("row-block:4", "2:4", "block-punched:4x4", "pattern"):
        found = structured_masks(module, Evidence(IMAGE), structure_rules(name), Ranked(sparsity=0.5))
        for choice in (choice for choice in found.choices if choice.structure):
            stored = attribute(module, choice.view.name).detach()
            seen = choice.view.seen(stored * found.masks[choice.view.name])
            assert not choice.structure.broken(seen) and str(recognise(seen)).split(":")[0] in ("2", name.split(":")[0])
    result = prune("row-block:4", module=module)
    assert [layer.name for layer in result.zeros if layer.asked] == ["2.weight", "4.weight"]
    assert result.certificate.max_relative <= result.certificate.tolerance


@pytest.mark.parametrize("layer", [nn.GRU(16, 16, batch_first=True), nn.LSTM(16, 16, batch_first=True)])
def test_recurrent_layers(layer: nn.Module) -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.head = layer, nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.recurrent(x)[0])

    module = capture(Sequence().eval(), (torch.randn(2, 3, 16),))
    found = prune("block-column:16", module=module)
    asked = {layer.name: (layer.structure, layer.zeros / layer.weights) for layer in found.zeros if layer.asked}
    assert asked == {
        "recurrent.weight_ih_l0": ("row-block:16", 0.75), "recurrent.weight_hh_l0": ("row-block:16", 0.75),
    }  # fmt: skip
    assert found.certificate.max_relative <= found.certificate.tolerance
    assert prune("row-block:4", 0.5, "magnitude-l1" if isinstance(layer, nn.LSTM) else "random", module=module).zeros


@pytest.mark.parametrize("name", ["row-block:4", "pattern:8", "bcr:4x4", "unstructured"])
def test_what_a_round_removed_does_not_come_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With scores that are others in every round, and below zero too."""
    seen: list[dict[str, torch.Tensor]] = []

    def weigh(request: Request) -> dict[str, torch.Tensor]:
        seen.append(dict(request.masks))
        return {weight.name: torch.randn(weight.shape, generator=request.generator) for weight in request.weights}

    monkeypatch.setattr(structured, "score_for", lambda name, evidence: Score("new", weigh, rounds=4))
    seen.append(masks({"3": name}, sparsity=0.9, squared=False))
    before, *others = [found["3.weight"] for found in seen[1:]]
    assert len(others) == 3
    for after in others:
        assert not bool((after & ~before).any())
        assert int(after.sum()) < int(before.sum())
        before = after
    assert not find_structure(name).broken(before) and 0.08 < float(before.float().mean()) < 0.11


def test_refusals_are_in_the_result_and_the_layer_stays_dense() -> None:
    found = prune("pattern,connectivity")
    assert any(
        line.startswith("9.weight stays dense: pattern:8: patterns are of 3x3 kernels") for line in found.refusals
    )
    layer = next(layer for layer in found.zeros if layer.name == "9.weight")
    assert layer.zeros == 0 and layer.asked is None and "single weights" in layer.reason


def test_the_model_stays_as_it_was() -> None:
    before = {name: tensor.clone() for name, tensor in MODULE.state_dict().items()}
    prune({"3": "unified", "5": "pattern"})
    assert all(torch.equal(tensor, before[name]) for name, tensor in MODULE.state_dict().items())


def test_what_has_no_meaning_is_refused() -> None:
    rules = structure_rules("2:4")
    with pytest.raises(InputError, match="removes channels alone"):
        find_method("reconvene", ChannelMethod).prune(MODULE, Evidence(IMAGE), Aim(0.5, structures=rules))
    with pytest.raises(InputError, match=r"sparsity 0.8 has no meaning with 2:4"):
        Aim(0.8, structures=rules)
    assert Aim(0.8, structures=structure_rules("2:4,row-block:4")).structures
    assert Aim(0.25, structures=structure_rules("3:4")).sparsity == 0.25
    with pytest.raises(InputError, match=r"sparsity 0.8 has no meaning with 2:4, row-block:4@0.7, which says"):
        Aim(0.8, structures=structure_rules({"3": "2:4", "*": "row-block:4@0.7"}))
    with pytest.raises(InputError, match="latency"):
        Aim(0.5, latency=0.5, structures=rules)
    with pytest.raises(InputError, match="snip scores weights on data"):
        masks("2:4", Evidence(IMAGE), score="snip")

"""Every method gives a candidate that is what it says, and leaves the network it was given alone."""

from __future__ import annotations

import pytest
import torch

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.networks.papers import network_for
from reconvene.passes.pruning.baselines import BASELINES, Candidate, Setting, make_candidate
from reconvene.passes.pruning.methods import METHODS
from reconvene.passes.pruning.scores import Evidence, synthetic_batches

INPUTS = (torch.randn(2, 3, 32, 32),)
torch.manual_seed(0)
MODULE = capture(network_for("vgg16", 10, 32, 0.125).build(), INPUTS)
DENSE = sum(parameter.numel() for parameter in MODULE.parameters())


def candidate(method: str, score: str = "magnitude", sparsity: float = 0.9) -> Candidate:
    batches = synthetic_batches(MODULE, INPUTS, size=4)
    return make_candidate(method, MODULE, Setting(Evidence(INPUTS, batches), score, sparsity))


@pytest.mark.parametrize("method", [*BASELINES, *METHODS])
def test_candidates_run_and_the_network_stays(method: str) -> None:
    before = {name: value.clone() for name, value in MODULE.state_dict().items()}
    made = candidate(method)
    assert made.module(INPUTS[0]).shape == (2, 10)
    assert all(torch.equal(value, before[name]) for name, value in MODULE.state_dict().items())
    assert made.size.parameters == sum(parameter.numel() for parameter in made.module.parameters())
    assert (made.weights < DENSE) is (method != "dense")
    assert (made.size.parameters < DENSE) is (method not in ("dense", "upai", "iterative"))


@pytest.mark.parametrize("score", ["magnitude", "snip", "synflow", "random"])
def test_upai_keeps_the_shapes_and_masks_p(score: str) -> None:
    made = candidate("upai", score)
    prunable = sum(mask.numel() for mask in made.masks.values())
    assert made.size.parameters == DENSE and DENSE - made.weights == round(0.9 * prunable)


@pytest.mark.parametrize(
    ("method", "like"),
    [
        ("spai-uniform", "reconvene"),
        ("spai-global", "reconvene"),
        ("spai-channels-uniform", "reconvene-channels-mean"),
        ("spai-channels-global", "reconvene-channels-mean"),
    ],
)
def test_spai_has_about_as_many_parameters_as_reconvene(method: str, like: str) -> None:
    wanted = candidate(like).size.parameters
    found = candidate(method).size.parameters
    assert wanted <= found <= 1.25 * wanted


def test_uniform_width_is_uniform() -> None:
    made = candidate("spai-uniform")
    shares = {
        name: made.module.get_parameter(name).shape[0] / value.shape[0]
        for name, value in MODULE.named_parameters()
        if value.dim() == 4
    }
    assert max(shares.values()) - min(shares.values()) < 0.1


def test_a_target_s_multiple_is_kept() -> None:
    plain, rounded = (
        candidate(method).module for method in ("reconvene-channels-mean", "reconvene-channels-multiple-of-8")
    )
    widths = [
        (plain.get_parameter(name).shape[0], rounded.get_parameter(name).shape[0])
        for name, value in MODULE.named_parameters()
        if value.dim() == 4
    ]
    assert all(wide == -(-narrow // 8) * 8 for narrow, wide in widths)
    assert any(narrow < 8 for narrow, _ in widths)


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'nas'.*upai"):
        candidate("nas")

"""Every method gives a candidate that is what it says, and leaves the network it was given alone."""

from __future__ import annotations

import pytest
import torch

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.networks.papers import network_for
from reconvene.passes.pruning.baselines import (
    BASELINES,
    Candidate,
    Setting,
    made_by,
    make_candidate,
    placed,
    same_place,
)
from reconvene.passes.pruning.methods import METHODS, methods_of
from reconvene.passes.pruning.methods.base import TrainingMethod
from reconvene.passes.pruning.scores import Evidence, synthetic_batches

INPUTS = (torch.randn(2, 3, 32, 32),)
torch.manual_seed(0)
MODULE = capture(network_for("vgg16", 10, 32, 0.125).build(), INPUTS)
DENSE = sum(parameter.numel() for parameter in MODULE.parameters())


def candidate(method: str, score: str = "magnitude", sparsity: float = 0.9, at: str = "p") -> Candidate:
    batches = synthetic_batches(MODULE, INPUTS, size=4)
    return make_candidate(method, MODULE, Setting(Evidence(INPUTS, batches, calls=(INPUTS,)), score, sparsity, at))


@pytest.mark.parametrize("method", [*BASELINES, *(name for name in METHODS if name != "layerwise")])
def test_candidates_run_and_the_network_stays(method: str) -> None:
    before = {name: value.clone() for name, value in MODULE.state_dict().items()}
    made = candidate(method)
    assert made.module(INPUTS[0]).shape == (2, 10)
    assert all(torch.equal(value, before[name]) for name, value in MODULE.state_dict().items())
    assert made.size.parameters == sum(parameter.numel() for parameter in made.module.parameters())
    later = method in methods_of(TrainingMethod)  # These find their zeros in training.
    assert (made.method is not None) is later
    assert (made.weights < DENSE) is (method != "dense" and not later)
    assert (made.size.parameters < DENSE) is (method not in ("dense", "upai", "iterative") and not later)


def test_a_method_for_structures_alone_is_not_compared() -> None:
    with pytest.raises(InputError, match="makes zeros of a structure; name one"):
        candidate("layerwise")


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


@pytest.mark.parametrize("method", ["uniform", "spai-uniform"])
def test_uniform_width_is_uniform(method: str) -> None:
    made = candidate(method)
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


def test_a_uniform_width_keeps_the_density() -> None:
    """The first layer reads three channels and the last writes ten, whatever the width; between them it is 1 - p."""
    assert candidate("uniform", sparsity=0.5).kept == pytest.approx(0.5 * candidate("dense").kept, rel=0.05)


def test_effective_multiply_accumulates_by_hand() -> None:
    """An entry of a kernel is used once for every pixel that comes out: VGG-16 has five stages, each of half the side."""
    masked, dense = candidate("upai"), candidate("dense")
    assert masked.size.macs == dense.effective_macs == dense.size.macs
    sides = [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1]
    used = [side**2 * int(mask.sum()) for side, mask in zip(sides, masked.masks.values(), strict=True)]
    assert masked.effective_macs == len(INPUTS[0]) * sum(used)


@pytest.mark.parametrize(
    ("method", "at", "size"),
    [("upai", "macs", "effective_macs"), ("uniform", "macs", "effective_macs"), ("reconvene", "weights", "kept")],
)
def test_a_method_is_placed_by_search(method: str, at: str, size: str) -> None:
    made = candidate(method, at=at)
    dense = candidate("dense")
    wanted = dense.kept - round(0.9 * dense.kept) if at == "weights" else candidate("reconvene").effective_macs
    found = made.placed
    assert found is not None and (found.at, found.wanted) == (at, wanted)
    assert found.reached == getattr(made, size) and abs(found.miss) < 0.05
    there = candidate(method, sparsity=found.sparsity)
    assert there.placed is None and getattr(there, size) == found.reached


def test_where_nothing_is_to_be_searched() -> None:
    found = candidate("upai", at="weights").placed
    assert found is not None and found.sparsity == 0.9 and found.miss == 0
    assert candidate("reconvene", sparsity=0.0, at="macs").placed is None
    assert same_place("upai", "snip", "weights") == "p" == same_place("reconvene", "magnitude", "macs")
    assert same_place("upai", "snip", "macs") == "macs" == same_place("reconvene", "synflow", "macs")


def test_what_cannot_be_placed_is_one_line() -> None:
    with pytest.raises(InputError, match="trained finds its zeros in training"):
        placed("trained", made_by(TrainingMethod()), MODULE, Setting(Evidence(INPUTS), at="weights"))
    with pytest.raises(InputError, match="equal 'latency'; choose one of p, weights, macs"):
        Setting(Evidence(INPUTS), at="latency")


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'nas'.*upai"):
        candidate("nas")

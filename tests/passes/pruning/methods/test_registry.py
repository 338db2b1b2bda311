"""One registry of methods: names, kinds, options, and what is said where one is asked for what it does not do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import reconvene
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.decisions import Widths
from reconvene.passes.pruning.methods import METHODS, find_method, methods_of
from reconvene.passes.pruning.methods.base import Aim, ChannelMethod, Method, SparseMethod
from reconvene.passes.pruning.methods.reconvene import Reconvene
from reconvene.passes.pruning.scores import SCORES
from reconvene.passes.pruning.structure_rules import structure_rules

IMAGE = (torch.randn(1, 3, 8, 8),)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_frozen_value_of_its_name(name: str) -> None:
    method = METHODS[name]
    assert method.name == name and dataclasses.is_dataclass(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.score = "other"  # type: ignore[attr-defined]
    assert method == type(method)() and method.with_options({}) == method
    assert method.scored_by in {None, *SCORES}
    with pytest.raises(InputError, match=f"the method {name} has no option 'wisdom'; it has"):
        method.with_options({"wisdom": 1})


@pytest.mark.parametrize("name", methods_of(ChannelMethod))
def test_a_structure_is_made_or_refused(name: str) -> None:
    method, rules = METHODS[name], structure_rules("row-block:4")
    assert isinstance(method, ChannelMethod)
    if method.makes_structures:
        method.check_aim(Aim(structures=rules))
    else:
        with pytest.raises(InputError, match="removes channels alone"):
            method.check_aim(Aim(structures=rules))


@pytest.mark.parametrize("ignored", [5, [5], [None], b"fc"])
def test_what_to_ignore_is_names(ignored: Any) -> None:
    with pytest.raises(InputError, match="what to ignore is names"):
        reconvene.prune(nn.Linear(2, 2), (torch.randn(1, 2),), ignore=ignored)


def test_every_method_is_of_a_kind_that_something_asks_for() -> None:
    assert {*methods_of(ChannelMethod), *methods_of(SparseMethod)} == set(METHODS)
    assert find_method("reconvene", ChannelMethod) == Reconvene()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("wisdom", Method, "there is no method 'wisdom'; choose one of magnitude, .*reconvene, .*iterative"),
        ("iterative", ChannelMethod, "the method iterative is none that removes channels; choose one of magnitude"),
        ("reconvene", SparseMethod, "the method reconvene is none that zeroes weights; .*iterative"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(name: str, kind: type[Method], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_method(name, kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Widths(scope="galaxy"), "choose layer or global"),
        (lambda: Widths(multiple=0), "channel multiple 0"),
        (lambda: Widths(minimum=0), "minimum channels 0"),
        (lambda: Aim(1.0), "sparsity 1.0 is outside"),
        (lambda: Aim("half"), "sparsity 'half' is outside"),
        (lambda: Aim(10**400), "is outside 0..1"),
        (lambda: Aim(latency="half"), "latency 'half' is outside"),
        (lambda: Aim(latency=0.0), "latency 0.0 is outside"),
        (lambda: Aim(latency=1.5), "latency 1.5 is outside"),
    ],
)
def test_what_is_out_of_range_is_never_made(made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()


def test_a_goal_needs_what_tells_the_time() -> None:
    assert Aim().goal is None
    with pytest.raises(ValueError, match="tells the time"):
        _ = Aim(latency=0.5).goal


def test_an_own_number_type_is_a_number() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    share: Any = torch.tensor(0.5).numpy()[()]
    result = reconvene.prune(model, IMAGE, sparsity=share)
    assert result.plan.kept["0.weight"][0].numel() == 4
    assert result.report.options["sparsity"] == 0.5

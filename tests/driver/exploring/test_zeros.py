"""Zeros for a budget: of one structure, or mapped to layers by rules."""

from __future__ import annotations

import re

import pytest

from reconvene.driver.exploring.kinds import finder
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.latency import OutOfReach
from reconvene.passes.pruning.structure_rules import structure_rules
from reconvene.passes.pruning.structured import Ranked, structured_masks
from tests.driver.exploring.test_channels import ground


@pytest.mark.parametrize("kind", ["row-block:4", "block-punched:4x4,unstructured", "mapped", "searched"])
def test_what_is_spelled_is_what_was_timed(kind: str) -> None:
    """The share that the names say gives the masks whose time is told."""
    on = ground(kind, batches=kind == "searched")
    choice = finder(kind)(on, kind, 0.6)
    assert choice.module is None and set(choice.structures) == {"3.weight"}
    masks = structured_masks(on.module, on.evidence, structure_rules(choice.structures), Ranked()).masks
    assert on.times(masks).total / on.dense == choice.reached <= 0.6
    zeros = 1 - float(masks["3.weight"].float().mean())
    assert re.search(r"^[\d.]+% zeros of \S+ in 1 layer$", choice.told)
    assert float(choice.told.partition("%")[0]) == pytest.approx(100 * zeros, abs=0.06)
    if kind == "mapped":
        assert choice.plan is not None and dict(choice.plan) == choice.structures and choice.plan.made["data"] == "easy"
    if kind == "searched":
        assert choice.plan is not None and dict(choice.plan) == choice.structures
        assert choice.plan.made["method"] == "search" and choice.plan.made["on"] == "16 images held out of training"


def test_less_than_a_share_takes_is_out_of_reach() -> None:
    on = ground("row-block:4")
    for kind in ("row-block:4", "mapped"):
        with pytest.raises(OutOfReach, match="cannot be reached by zeros"):
            finder(kind)(on, kind, 0.05)
    with pytest.raises(OutOfReach, match=r"nothing that was tried takes 0.05 of the dense network's time; "):
        finder("searched")(on, "searched", 0.05)
    with pytest.raises(InputError, match="tells accuracy on images, and there are none"):
        finder("searched")(ground("searched", batches=False), "searched", 0.05)


def test_what_fits_no_layer_and_names_of_none_are_mistakes() -> None:
    with pytest.raises(InputError, match="no layer of this model takes a structure"):
        finder("row-block:5")(ground("row-block:5", batches=False), "row-block:5", 0.6)
    for kind in ("row-block:4", "mapped"):
        with pytest.raises(InputError, match="matches no"):
            finder(kind)(ground(kind, ignore=("conv9",), batches=False), kind, 0.6)

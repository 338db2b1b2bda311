"""Plans by search from a network to what pruning makes of them: on calibration inputs, and on images held out of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import reconvene
from reconvene.driver.mapping import HeldOut
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data.datasets import Images
from reconvene.passes.pruning.search.settings import SearchSettings
from reconvene.passes.pruning.search.structure_search import StructureSearch
from reconvene.passes.pruning.structure_plan import StructurePlan

X = (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
SHORT = StructureSearch(0.5, (0.6, 0.9), 3, settings=SearchSettings(rounds=2, samples=4))


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Times are found once for all tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECONVENE_CACHE", str(folder))
        yield folder


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32),
        nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip


def images(count: int = 40) -> Images:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 3, 8, 8), np.uint8)
    return Images("noise", pixels, generator.integers(0, 4, count), (0.5,) * 3, (0.25,) * 3)


def test_a_plan_within_the_budget_that_goes_into_pruning() -> None:
    plan = reconvene.map_structures(net(), X, "rpi4", search=SHORT, calibration=list(X))
    assert 0 < plan.sparse <= 0.5 * plan.dense
    assert (plan.made["method"], plan.made["budget"], plan.made["seed"]) == ("search", 0.5, 0)
    assert plan.made["on"] == "4 inputs that were given" and plan.made["quality"] == "nearness of outputs"
    assert StructurePlan.from_json(plan.to_json()) == plan
    assert plan == reconvene.map_structures(net(), X, "rpi4", search=SHORT, calibration=list(X))
    result = reconvene.prune(net(), X, structure=plan)
    found = {layer.name: layer for layer in result.report.zeros}
    assert set(plan) and all(found[name].asked == spelled for name, spelled in plan.items())
    assert "by search" in result.report.to_html()


def test_the_quality_is_that_of_the_network_which_pruning_makes() -> None:
    """This one has no normalisation, so that nothing but zeros changes; and no pattern that several layers share."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    plan = reconvene.map_structures(
        model, X, "rpi4", search=dataclasses.replace(SHORT, budget=0.8), calibration=list(X)
    )
    assert len(plan) == 1
    pruned = reconvene.prune(model, X, structure=plan).module
    with torch.no_grad():
        dense, small = model(*X), pruned(*X)
    error = ((small - dense).square().sum() / dense.square().sum()).item()
    assert plan.made["found"] == pytest.approx(1 - error, rel=1e-4)


def test_accuracy_on_images_held_out_of_training() -> None:
    held = HeldOut(images(), share=0.25)
    plan = reconvene.map_structures(net(), X, "rpi4", search=SHORT, held_out=held)
    assert plan.made["on"] == "10 images held out of training" and plan.made["quality"] == "accuracy"
    # Of 10 images each is right or not.
    assert round(float(plan.made["found"] or 0) * 10, 6).is_integer()  # type: ignore[arg-type]
    assert float(plan.made["found"] or 0) >= float(plan.made["begun at"] or 0)  # type: ignore[arg-type]
    assert plan.sparse <= 0.5 * plan.dense


def test_the_network_is_left_as_it_was() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reconvene.map_structures(model, X, "rpi4", search=SHORT, held_out=HeldOut(images(), share=0.25))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_makes_no_sense_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="cannot be reached: with every layer at its fastest it is"):
        reconvene.map_structures(net(), X, "rpi4", search=StructureSearch(0.01), calibration=list(X))
    for wrong in ({"sparsity": 0.7}, {"beta": 0.1}, {"data": "easy"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} is for the rules, and a search decides by itself"):
            reconvene.map_structures(net(), X, search=SHORT, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="calibration and held_out are for a search"):
        reconvene.map_structures(net(), X, calibration="noise")
    with pytest.raises(InputError, match="calibration inputs beside held_out have no meaning"):
        reconvene.map_structures(net(), X, "rpi4", search=SHORT, calibration="noise", held_out=HeldOut(images()))
    with pytest.raises(InputError, match=r"held_out 1\.0 is not a share between 0 and 1"):
        HeldOut(images(), share=1.0)
    with pytest.raises(InputError, match="-1 images make no sense"):
        HeldOut(images(), images=-1)

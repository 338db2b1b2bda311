"""Every method that trains, with structures and with channels: what comes out, what is logged, and kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reconvene.driver.training.log import figures_in
from reconvene.driver.training.loop import Trained, train
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.graph_module import CapturedModule, cloned
from reconvene.passes.compaction import compact
from reconvene.passes.pruning.methods import find_method
from reconvene.passes.pruning.methods.constrained import ConstrainedMethod
from reconvene.passes.structures import find_structure
from tests.driver.training.test_loop import PRESET, SHAPE, images, killed_at, network, same

METHODS: dict[str, dict[str, Any]] = {
    "one-shot": {},
    "gradual": {"every": 1},
    "admm": {"rho": (0.01, 0.1), "every": 0.5},
    "reweighted": {"refreshes": 2},
    "sr-ste": {"strength": 1e-3},
}
FIGURES = {
    "one-shot": ("sparsity",),
    "gradual": ("sparsity", "mask_changes"),
    "admm": ("sparsity", "residual", "rho"),
    "reweighted": ("sparsity", "residual"),
    "sr-ste": ("sparsity", "mask_changes"),
}
MODULE = network()
TWO = PRESET.changed({"epochs": 2})


def method(name: str, structure: Any = "row-block:4", **options: Any) -> ConstrainedMethod:
    return find_method(name, ConstrainedMethod).with_options({"structure": structure, **METHODS[name], **options})


def trained(folder: Path, how: ConstrainedMethod, preset: Any = TWO, **options: Any) -> Trained:
    return train(MODULE, images(), images(32, 1), preset, folder, method=how, **options)


@pytest.mark.parametrize("structure", ["row-block:4", "channels"])
@pytest.mark.parametrize("name", METHODS)
def test_five_kills_change_nothing(name: str, structure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"preset": TWO.changed({"ema": 0.5}), "checkpoint_every": 1}
    how = method(name, structure, sparsity=0.5)
    whole = trained(tmp_path / "whole", how, **options)
    for moment in (1, 3, 3, 2, 4):
        with killed_at(moment, monkeypatch):
            trained(tmp_path / "killed", how, **options)
    again = trained(tmp_path / "killed", how, **options)
    assert same(whole, again)
    strip = [[{name: value for name, value in row.items() if name != "seconds"} for row in done.rows]
             for done in (whole, again)]  # fmt: skip
    assert strip[0] == strip[1]
    assert figures_in(whole.rows) == FIGURES[name] and whole.rows[-1]["sparsity"] == 0.5


@pytest.mark.parametrize("structure", ["2:4", "bcr:4x4", "pattern:4", "block-punched:4x4", "unified:4x4"])
@pytest.mark.parametrize("name", METHODS)
def test_what_comes_out_has_the_structure(name: str, structure: str, tmp_path: Path) -> None:
    done = trained(tmp_path, method(name, structure, **{} if structure == "2:4" else {"sparsity": 0.75}))
    weight = done.module.get_parameter("3.weight").detach()
    found = find_structure(structure)
    share = found.fixed_sparsity or 0.75
    assert not found.broken(weight)
    assert float((weight == 0).float().mean()) == pytest.approx(share, abs=0.04)
    assert done.rows[-1]["sparsity"] == pytest.approx(share, abs=0.04)
    assert all(bool(done.module.get_parameter(dense).all()) for dense in ("0.weight", "9.weight"))


@pytest.mark.parametrize("name", METHODS)
def test_an_average_has_the_structure_too(name: str, tmp_path: Path) -> None:
    how = method(name, "unified:4x4", sparsity=0.5)
    done = trained(tmp_path, how, TWO.changed({"ema": 0.5}))
    assert not find_structure("unified:4x4").broken(done.module.get_parameter("3.weight").detach())


@pytest.mark.parametrize("name", METHODS)
def test_channels_that_became_zero_are_removed_exactly(name: str, tmp_path: Path) -> None:
    done = trained(tmp_path, method(name, "channels", sparsity=0.5))
    assert isinstance(done.module, CapturedModule)
    double = cloned(done.module).double()
    small = compact(double, (torch.randn(SHAPE).double(),))
    assert [small.module.get_parameter(weight).shape[0] for weight in ("0.weight", "3.weight")] == [4, 4]
    assert small.certificate.max_absolute < 1e-12
    x = torch.randn(5, 3, 8, 8).double()
    torch.testing.assert_close(small.module(x), double(x), rtol=0, atol=1e-12)


def test_the_residual_of_admm_falls(tmp_path: Path) -> None:
    how = method("admm", "row-block:4", sparsity=0.75, rho=(1.0, 3.0, 9.0), every=1.0, retrain=0.25)
    rows = trained(tmp_path, how, PRESET.changed({"epochs": 8, "batch": 4, "milestones": ()})).rows
    residuals = [row["residual"] for row in rows]
    assert residuals[4] < 0.7 * residuals[0] and residuals[5:] == [0, 0, 0]
    assert [row["rho"] for row in rows] == [1, 3, 3, 9, 9, 0, 0, 0]
    assert [row["sparsity"] for row in rows] == pytest.approx([0.0] * 5 + [0.75] * 3)


def test_layers_of_names_take_structures_of_their_own(tmp_path: Path) -> None:
    done = trained(tmp_path, method("one-shot", {"0": "row-block:4", "*": "1:4"}, sparsity=0.5))
    shares = [float((done.module.get_parameter(name) == 0).float().mean()) for name in ("0.weight", "3.weight")]
    assert shares == pytest.approx([0.5, 0.75], abs=0.02)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_layers_have_shares_of_their_own(name: str, scope: str, tmp_path: Path) -> None:
    how = method(name, {"0": "row-block:4@0.25", "*": "row-block:4"}, sparsity=0.75, scope=scope)
    done = trained(tmp_path, how)
    shares = [float((done.module.get_parameter(weight) == 0).float().mean()) for weight in ("0.weight", "3.weight")]
    assert shares == pytest.approx([0.25, 0.75], abs=0.02)


def test_a_training_of_another_structure_is_another_training(tmp_path: Path) -> None:
    trained(tmp_path, method("one-shot"))
    with pytest.raises(InputError, match="another training"):
        trained(tmp_path, method("one-shot", "bcr:4x4"))
    with pytest.raises(InputError, match=r"no layer of this model takes a structure of zeros: 0.weight"):
        trained(tmp_path / "other", method("one-shot", "row-block:3"))

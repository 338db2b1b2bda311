"""Channels taken step by step: budgets lie on one way, which is gone once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconvene.backends.machines.targets import find_target
from reconvene.driver.exploring import shrunk
from reconvene.driver.exploring.figures import figures_of
from reconvene.driver.exploring.ground import Ground
from reconvene.driver.exploring.run import explored
from reconvene.driver.exploring.settings import SHRUNK, Settings, shrinking_by
from reconvene.driver.exploring.telling import Teller
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.graph_module import CapturedModule
from tests.driver.exploring.test_explore import PRESET, task, uncompiled
from tests.driver.training.test_loop import killed_at

STEPS = {
    "step": 0.2,
    "epochs": 1,
    "batch": 16,
    "train_images": 0,
    "test_images": 0,
    "candidate_images": 0,
    "augment": "none",
}
SHRINKING = shrinking_by("rl-pruner-smoke").changed({**STEPS, "sparsity": 0.4, "rounds": 1})
SETTINGS = Settings((0.7, 0.01), (SHRUNK,), PRESET, shrinking=SHRINKING, told_by="model")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are multiply-accumulates."""

    def share_of(self: Ground, module: CapturedModule) -> float:
        return figures_of(module).macs / figures_of(self.module).macs

    monkeypatch.setattr(Teller, "compiled", uncompiled)
    monkeypatch.setattr(Ground, "share_of", share_of)


def test_budgets_lie_on_one_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of a fifth of 32 filters; killed in a step and in a training, it ends alike."""
    whole = explored(task(tmp_path / "whole", SETTINGS))
    assert [(refusal.kind, refusal.budget) for refusal in whole.refusals] == [(SHRUNK, 0.01)]
    assert "no step of the shrinking takes 0.01" in whole.refusals[0].reason
    dense, *small = whole.variants
    assert [variant.budget for variant in small] == [0.7]
    for variant in small:
        assert variant.macs / dense.macs == variant.reached <= variant.budget  # type: ignore[operator]
        assert variant.told.endswith(" steps") and "of the filters gone in" in variant.told
    made = task(tmp_path / "run", SETTINGS, checkpoint_every=2)
    for moment in (5, 5):
        with killed_at(moment, monkeypatch):
            explored(made)
    again = explored(made)
    assert again.variants == whole.variants and again.refusals == whole.refusals
    steps: list[int] = []
    monkeypatch.setattr(shrunk, "shrink", lambda *_: steps.append(1))
    assert explored(made).variants == whole.variants and steps == []


def test_its_settings_count_only_where_it_is_made(tmp_path: Path) -> None:
    other = replace(SETTINGS, shrinking=SHRINKING.changed({"rounds": 2}))
    assert SETTINGS.recorded() != other.recorded()
    assert replace(SETTINGS, variants=("mapped",)).recorded() == replace(other, variants=("mapped",)).recorded()
    mine: Any = replace(find_target("rpi4"), name="mine")
    with pytest.raises(InputError, match="'mine' is none"):
        SETTINGS.check(mine)
    with pytest.raises(InputError, match="no training preset is called 'none'"):
        shrinking_by("none")

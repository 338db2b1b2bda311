"""The comparison of what decides how much every layer loses: which runs there are, and what the page says of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allocation import PRESET, SHARES, Place, Run, page, runs, timed

from reconvene.driver.shrinking.course import RULES
from reconvene.driver.training.loop import Hardware
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data.datasets import Images

IMAGES = Images("noise", np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, np.int64), (0.5,) * 3, (0.25,) * 3)


def options(**more: Any) -> argparse.Namespace:
    common = {"model": "resnet20", "width": 1.0, "dataset": "cifar10", "shares": list(SHARES), "seeds": [0, 1]}
    return argparse.Namespace(**{**common, "rules": ["dense", *RULES], "rewards": ["accuracy"], **more})


def place() -> Place:
    return Place((IMAGES, IMAGES), Path("work"), Hardware(), "rpi4", {}, {})


def test_rules_that_go_step_by_step_pass_the_smaller_shares() -> None:
    found = runs(options(seeds=[0]))
    assert {run.rule: [r.shares for r in found if r.rule == run.rule] for run in found} == {
        "dense": [(0.2,), (0.4,), (0.6,)], "rl-pruner": [SHARES], "uniform": [SHARES], "magnitude": [SHARES],
        "taylor": [(0.2,), (0.4,), (0.6,)], "latency": [(0.2,), (0.4,), (0.6,)], "knapsack": [(0.2,), (0.4,), (0.6,)],
    }  # fmt: skip
    assert len({run.name for run in runs(options(rewards=["macs", "latency"]))}) == 2 * (3 + 2 + 2 + 3 + 3 + 3)


def test_a_share_takes_as_many_epochs_whatever_decides() -> None:
    """Two fifths in steps of a twentieth: eight steps of one epoch."""
    settings = {
        rule: place().settings(Run("resnet20", 1.0, "cifar10", rule, "accuracy", 0, (0.4,)))
        for rule in ("dense", *RULES)
    }
    trained = {
        rule: some.course.steps * some.training.epochs if rule != "dense" else some.training.epochs
        for rule, some in settings.items()
    }
    assert set(trained.values()) == {8}


def test_lines_are_of_their_run_share_and_settings() -> None:
    run = Run("resnet20", 1.0, "cifar10", "uniform", "accuracy", 0, SHARES)
    settings = place().settings(run)
    keys = {run.key(share, settings, {}) for share in SHARES}
    keys.add(run.key(0.2, settings.changed({"epochs": 2}), {}))
    keys.add(run.key(0.2, settings, {"epochs": 3}))
    keys.add(Run("resnet20", 1.0, "cifar10", "uniform", "accuracy", 1, SHARES).key(0.2, settings, {}))
    assert len(keys) == 6 and PRESET == "rl-pruner-laptop"


def line(rule: str, seed: int, accuracy: float, share: float = 0.4, **more: Any) -> dict[str, Any]:
    return {
        "key": f"{rule}{seed}", "model": "resnet20", "width": 1.0, "dataset": "cifar10", "rule": rule, "reward": "accuracy",
        "seed": seed, "share": share, "dense": 0.8, "target": "rpi4", "dense_preset": {},
        "settings": {"course": {"step": 0.05, "held_out": 0.1}, "preset": {"epochs": 1}}, "train_images": 10000,
        "test_images": 2000, "precision": "float32", "device": "cpu", "threads": 1, "environment": {"torch": "2"},
        "accuracy": accuracy, "macs": 0.5, "parameters": 0.4, "latency": 0.6, "epochs": 8,
        "seconds": {"search": 900.0, "removal": 180.0, "training": 720.0}, "file": None, **more,
    }  # fmt: skip


def test_the_page_compares_equal_seeds_and_says_what_it_cost() -> None:
    lines = [
        line("uniform", 0, 0.70), line("uniform", 1, 0.72), line("rl-pruner", 0, 0.73), line("rl-pruner", 1, 0.73),
        line("rl-pruner", 0, 0.72, reward="latency", key="timed"), line("uniform", 0, 0.60, share=0.6),
    ]  # fmt: skip
    text = page(lines, {"where": "a processor", "ms": {"rl-pruner0": 0.25}})
    rows = {row.split(" | ")[0].strip("| "): row for row in text.splitlines() if row.startswith("| ")}
    assert "+2.0" in rows["rl-pruner"] and "73.0" in rows["rl-pruner"] and "0.250" in rows["rl-pruner"]
    assert "50.0 | 40.0 | 60.0" in rows["rl-pruner"] and "0.50 | 50, 10, 40 |" in rows["rl-pruner"]
    assert "+2.0" in rows["rl-pruner, latency"] and "at the beginning: 80.0" in text
    assert "60% of the filters" in rows and "a processor" in text


def test_times_are_of_networks_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the networks"):
        timed([line("uniform", 0, 0.7, file="none/model.pt2")], tmp_path)

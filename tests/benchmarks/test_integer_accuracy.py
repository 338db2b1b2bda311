"""What 8 bits cost trained networks: which runs there are, what compiled code answers, and what the page says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import integer_accuracy
import numpy as np
import pytest
import torch
from integer_accuracy import TRAINED, VARIANTS, WAYS, Cell, Compiled, Place, cells, measured, page
from torch import nn

import reconvene
from reconvene.driver.training.evaluation import answers
from reconvene.driver.training.loop import Hardware
from reconvene.frontend.data.datasets import Images


def images(count: int) -> Images:
    generator = np.random.default_rng(count)
    labels = generator.integers(0, 10, count)
    # Images that have something of their label in them.
    pixels = generator.integers(0, 100, (count, 3, 32, 32)) + 15 * labels[:, None, None, None]
    return Images("stripes", pixels.astype(np.uint8), labels, (0.5,) * 3, (0.25,) * 3)


def test_the_pruned_network_follows_its_dense_one() -> None:
    options = argparse.Namespace(models=["resnet20", "vgg16:0.5"], dataset="cifar10", seeds=[0, 1])
    found = cells(options)
    assert [(cell.model, cell.width, cell.variant, cell.seed) for cell in found[:4]] == [
        ("resnet20", 1.0, "dense", 0), ("resnet20", 1.0, "half of the channels", 0),
        ("vgg16", 0.5, "dense", 0), ("vgg16", 0.5, "half of the channels", 0),
    ]  # fmt: skip
    assert len({cell.key for cell in found}) == len({cell.name for cell in found}) == 8


def test_compiled_code_answers_for_any_number_of_images() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    ).eval()
    some = images(300)
    result = reconvene.quantize(model, some.batch(count=32))
    integers = answers(Compiled(result.module, torch.Size((3, 32, 32))), some)
    assert len(integers) == 300 and float((integers == answers(result.module, some)).double().mean()) > 0.95


def test_a_line_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of seconds, both variants: the pruned network begins with the dense one's file."""
    short = {"epochs": 1, "milestones": (), "train_images": 64, "test_images": 256, "batch": 32}
    for name in ("DENSE", "FURTHER", "ROUNDED"):
        monkeypatch.setattr(integer_accuracy, name, short)
    monkeypatch.setattr(integer_accuracy, "CALIBRATION", 16)
    monkeypatch.setattr(integer_accuracy, "WAYS", {"histogram": {}})
    place = Place((images(64), images(256)), tmp_path, Hardware())
    line = measured(Cell("resnet8-cifar", 0.5, "cifar10", "half of the channels", 0), place)
    assert set(line["int8"]) == {"histogram", TRAINED} and all(0 <= value <= 1 for value in line["int8"].values())
    assert {folder.name for folder in tmp_path.iterdir()} == {
        "resnet8-cifar-0.5-0-0", "resnet8-cifar-0.5-0.5-0", "resnet8-cifar-0.5-0.5-0-rounded",
    }  # fmt: skip
    assert line["bytes"]["int8"] < 0.5 * line["bytes"]["float"]


def test_the_page_pairs_equal_seeds() -> None:
    ways = [*WAYS, TRAINED]
    lines: list[dict[str, Any]] = [
        {
            "model": "resnet20", "width": 1.0, "variant": variant, "seed": seed, "float": 0.8 + seed / 100,
            "int8": dict.fromkeys(ways, 0.795 + seed / 100), "agreement": dict.fromkeys(ways, 0.975),
            "bytes": {"float": 4000, "int8": 1100}, "test_images": 10000, "calibration": 256,
            "dataset": "cifar10", "precision": "float32",
            "presets": {"dense": {}, "further": {}, "rounded": {}}, "environment": {"torch": "2"},
        }
        for variant in VARIANTS
        for seed in (0, 1)
    ]  # fmt: skip
    (row, _) = [row for row in page(lines).splitlines() if row.startswith("| resnet20")]
    assert row.startswith("| resnet20, dense | 2 | 80.5") and "0.50" in row and "97.5" in row and "| 4 / 1 |" in row

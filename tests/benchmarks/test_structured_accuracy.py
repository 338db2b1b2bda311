"""The comparison of methods that train under structures: which trainings there are, and what the page says of them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import pytest
from structured_accuracy import Cell, cells, method_of, page, with_share


@pytest.mark.parametrize(
    ("text", "parts"),
    [("row-block:4:0.8", ("row-block:4", 0.8)), ("2:4", ("2:4", None)), ("pattern:0.5", ("pattern", 0.5))],
)
def test_structures_are_spelled_with_their_share(text: str, parts: tuple[str, float | None]) -> None:
    assert with_share(text) == parts


def test_the_dense_network_is_trained_on_once_for_each_seed() -> None:
    options = argparse.Namespace(
        seeds=[0, 1], structures=["2:4", "pattern:0.5"], methods=["dense", "admm"], model="resnet20", width=1.0,
        dataset="cifar10",
    )  # fmt: skip
    found = cells(options)
    assert [(cell.seed, cell.method, cell.structure) for cell in found] == [
        (0, "dense", None), (0, "admm", "2:4"), (0, "admm", "pattern"),
        (1, "dense", None), (1, "admm", "2:4"), (1, "admm", "pattern"),
    ]  # fmt: skip
    assert len({cell.key for cell in found}) == 6


def cell(method: str, seed: int = 0, structure: str | None = "row-block:4") -> Cell:
    return Cell("resnet20", 1.0, "cifar10", method, structure, None if structure is None else 0.8, seed)


def test_every_method_is_trained_equally_long() -> None:
    names = ("one-shot", "gradual", "admm", "reweighted", "sr-ste", "without data", "distilled", "dense")
    found = {name: method_of(cell(name)) for name in names}
    assert len({preset.epochs * preset.train_images for _, preset in found.values()}) == 1
    assert found["dense"][0] is None and found["admm"][0] is not None
    assert (found["admm"][0].recorded()["structure"], found["admm"][0].recorded()["sparsity"]) == ("row-block:4", 0.8)


def line(method: str, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    structure = None if method == "dense" else "row-block:4"
    return {
        "key": "", **asdict(cell(method, seed, structure)), "dense": 0.7, "before": 0.2, "accuracy": accuracy, "epochs": 4,
        "images": 10000, "test_images": 500, "dense_preset": {}, "parameters": 50_000, "bytes": 252_000, "seconds": 1.0,
        "precision": "bfloat16", "threads": 1, "environment": {"torch": "2"}, **more,
    }  # fmt: skip


def test_the_page_compares_equal_seeds() -> None:
    lines = [
        line("dense", 0, 0.80), line("dense", 1, 0.82), line("one-shot", 0, 0.78), line("one-shot", 1, 0.81),
        line("admm", 0, 0.79), line("without data", 1, 0.75),
    ]  # fmt: skip
    text = page(lines, {"where": "a processor", "resnet20, width 1": {"row-block:4 80%": 0.5, "dense": 1.25}})
    rows = [[part.strip() for part in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]
    dense, own, less, more, before = (row for row in rows if row[0] in ("dense", "row-block:4 80%"))
    assert dense == ["dense", "81.0 ± 1.4", "", "", "50,000", "252", "1.250"]
    assert own == ["row-block:4 80%", "79.5 ± 2.1", "79.0", "75.0", "50,000", "252", "0.500"]
    assert less[1:] == ["-1.5 ± 0.7", "-1.0", "-7.0"]
    assert more[1:] == ["+0.0 ± 0.0", "+1.0", "-6.0"]
    assert before[1:] == ["20.0"] and "a processor" in text and "on 500 test images" in text

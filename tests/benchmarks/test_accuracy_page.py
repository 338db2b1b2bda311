"""The tables of accuracies: which runs stand where, what is marked, and that older lines are still read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accuracy_page import chosen, differences, reports, table, tables

from reconvene.driver.runs import Run


def line(method: str, seed: int, accuracy: float, *, sparsity: float = 0.9, **more: Any) -> dict[str, Any]:
    """A line as `reconvene.driver.runs.run_one` writes it; fields that are None are left out, as in older ones."""
    made = {
        "model": "vgg16", "width": 0.5, "dataset": "cifar10", "method": method, "score": "magnitude",
        "sparsity": sparsity, "seed": seed, "preset": "laptop", "settings": {}, "at": None, "compute": None,
        "accuracy": accuracy, "parameters": 1000, "weights": 100, "macs": 5_000_000, "latency_ms": 1.0,
        "prune_seconds": 1.0, "train_seconds": 2.0, **more,
    }  # fmt: skip
    made = {name: value for name, value in made.items() if value is not None}
    return {**made, "key": Run.of(made).key}


PLACED = {"at": "weights", "wanted": 100, "reached": 103, "sparsity": 0.85}
LINES = [
    line("dense", 0, 0.70, sparsity=0.0),
    line("upai", 0, 0.68),
    line("upai", 1, 0.66),
    line("reconvene", 0, 0.60, epochs=8),
    line("reconvene", 1, 0.62, epochs=8),
    line("reconvene", 0, 0.65, epochs=16, compute="equal"),
    line("reconvene", 0, 0.64, epochs=8, at="weights", placed=PLACED),
]


def cells(text: str, *start: str) -> list[str]:
    """The cells of the row of a table that starts so."""
    (found,) = [row for row in text.splitlines() if row.startswith(f"| {' | '.join(start)} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_runs_that_are_the_same_everywhere_stand_everywhere() -> None:
    at_weights = chosen(LINES, "weights", "epochs")
    assert [(entry["method"], entry["accuracy"]) for entry in at_weights] == [
        ("dense", 0.70), ("upai", 0.68), ("upai", 0.66), ("reconvene", 0.64),
    ]  # fmt: skip
    # Its own multiply-accumulates are those that the others are placed at.
    assert [entry["method"] for entry in chosen(LINES, "macs", "equal")] == ["dense", "reconvene"]


def test_rows_say_how_they_were_trained() -> None:
    text = table(LINES)
    assert cells(text, "upai, magnitude", "0.9")[2:6] == ["E = B", "2", "–", "67.0 ± 1.4"]
    assert cells(text, "reconvene, magnitude", "0.9", "E")[3:6] == ["2", "8", "61.0 ± 1.4"]
    assert cells(text, "reconvene, magnitude", "0.9", "B")[3:6] == ["1", "16", "65.0"]


def test_a_place_that_was_missed_is_marked() -> None:
    text = table(LINES, "weights")
    assert cells(text, "reconvene, magnitude", "0.9")[2:5] == ["0.850", "**+3.0%**", "E"]
    assert cells(text, "upai, magnitude", "0.9")[2:5] == ["0.9", "–", "E = B"]


def test_differences_are_between_equal_seeds() -> None:
    assert cells(differences(LINES), "0.9") == ["0.9", "+2.0", "-6.0 ± 2.8"]
    assert cells(differences(LINES, "p", "equal"), "0.9") == ["0.9", "+2.0", "-3.0"]


def test_all_rows_are_as_wide_as_their_head() -> None:
    for part in tables(LINES).split("\n\n"):
        rows = [row for row in part.splitlines() if row.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_every_network_has_a_page_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"data": "CIFAR-10", "precision": "bfloat16", "threads": 1, "environment": {"torch": "2"}}
    lines = [{**entry, **facts} for entry in (*LINES, line("dense", 0, 0.9, sparsity=0.0, model="resnet20"))]
    text = reports(lines, tmp_path / "r.jsonl")
    assert text.count("At equal p.") == 2
    pages = {path.name: path.read_text().splitlines()[4] for path in tmp_path.glob("*.md")}
    assert pages == {
        "r-vgg16-0.5.md": "# Accuracy: vgg16 of width 0.5 on CIFAR-10",
        "r-resnet20-0.5.md": "# Accuracy: resnet20 of width 0.5 on CIFAR-10",
    }

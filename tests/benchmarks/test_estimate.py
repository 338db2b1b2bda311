"""Figures of other engines stand beside ours of the same target, type and variant."""

from __future__ import annotations

from typing import Any

import estimate
import pytest


def row(variant: str, cycles: float, macs: int = 400, **changed: Any) -> dict[str, Any]:
    """What one network takes, in millions; float32 on the target of the other engines where nothing else is said."""
    made = {"network": "net", "target": "rpi4", "variant": variant, "cycles": cycles * 1e6, "macs": macs}
    return made | {"memory_mb": 7.0} | changed


FLOATS = [row("dense", 40), row("pruned 50%", 15, 100)]

OTHERS = [
    row("dense", 10, dtype="int8"), row("pruned 50%", 5, 100, dtype="int8"), row("dense", 20, dtype="float16"),
    row("dense", 70, target="rpi3"), row("pruned 50%", 30, 100, target="rpi3"), row("dense", 1, network="other"),
]  # fmt: skip
"""Rows that other engines' float32 figures on rpi4 do not belong beside."""


@pytest.fixture(autouse=True)
def one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine that takes 80 million cycles for the network in float32, and one for a network without a row."""
    engines = (("net", "engine", 107.5, 80.0, 61), ("none", "engine", 1.0, 1.0, 1))
    monkeypatch.setattr(estimate, "PEERS", engines)


@pytest.mark.parametrize("rows", [FLOATS, FLOATS + OTHERS, OTHERS + FLOATS], ids=["alone", "before", "after"])
def test_float_figures_of_other_engines_are_beside_our_float_rows_whatever_else_was_made(rows: list[Any]) -> None:
    assert estimate.peers_table(rows).splitlines()[2:] == [
        "| net | engine | 107.5 M | 80.0 | 61 | 40.0 | 7 | 0.50 | 0.75 |"
    ]


def test_every_share_of_channels_has_a_column_of_its_own() -> None:
    rows = [*FLOATS, row("pruned 70%", 8, 50), row("pruned 70%", 1, 50, dtype="int8")]
    head, _, line = estimate.peers_table(rows).splitlines()
    assert "| ours, pruned 50% / theirs by multiply-accumulates | ours, pruned 70% / theirs" in head
    assert line.endswith("| 0.50 | 0.75 | 0.80 |")


def test_a_network_of_another_type_alone_is_beside_no_engine() -> None:
    assert len(estimate.peers_table(OTHERS).splitlines()) == 2

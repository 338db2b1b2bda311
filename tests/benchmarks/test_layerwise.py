"""Rows of both halves of the photographs are one on the page of zeros without data, and half of a measurement is none."""

from __future__ import annotations

from typing import Any

import layerwise


def row(calibration: str, **changed: Any) -> dict[str, Any]:
    """What one network with zeros gave."""
    made = {
        "structure": "row-block:4", "share": 0.5, "method": "layerwise", "scope": "layer", "calibration": calibration,
        "photographs": 10, "top1": 8, "top5": 9, "crops": 100, "agree": 80, "weights": 0.6, "seconds": 2.0,
    }  # fmt: skip
    return made | changed


def test_counts_of_both_halves_are_added_and_shares_averaged() -> None:
    (found,) = layerwise.joined([row("first", top1=7), row("first", share=0.7), row("second", weights=0.4)])
    assert (found["photographs"], found["top1"], found["top5"], found["agree"]) == (20, 15, 18, 160)
    assert (found["weights"], found["seconds"], found["calibration"]) == (0.5, 2.0, "photographs")


def test_every_share_has_its_rows() -> None:
    cases = list(layerwise.cases(("row-block:4",), (0.5, 0.7)))
    assert [case.calibration for case in cases] == 2 * ["none", *2 * ["synthetic", "first", "second"]]
    assert {case.method for case in cases if case.calibration == "none"} == {"magnitude"}


def test_the_table_has_a_line_for_every_row() -> None:
    lines = layerwise.table([row("synthetic"), row("none", method="magnitude")]).splitlines()
    assert lines[2] == "| row-block:4 50% | layerwise | by layer | synthetic | 8 | 9 | 80.0% | 60.0% | 2 |"
    assert len(lines) == 4

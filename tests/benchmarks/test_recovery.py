"""Rows of both halves of the photographs are one on the page, and half of a measurement is none."""

from __future__ import annotations

from typing import Any

import recovery


def row(calibration: str, *, method: str = "reconstruction", recovered: bool = True, **changed: Any) -> dict[str, Any]:
    """What one smaller network gave."""
    made = {
        "method": method, "share": 0.1, "recovery": recovered, "calibration": calibration, "photographs": 10, "top1": 8,
        "top5": 9, "crops": 100, "agree": 80, "parameters": 0.9, "macs": 0.8, "error": {}, "cost_seconds": 1.0,
        "recovery_seconds": 2.0,
    }  # fmt: skip
    return made | changed


def test_counts_of_both_halves_are_added_and_shares_averaged() -> None:
    rows = [
        row("first"),
        row("first", recovered=False, agree=1),
        row("second", top1=7, parameters=0.7),
        row("second", recovered=False, agree=2),
    ]
    plain, solved = sorted(recovery.joined(rows), key=lambda entry: entry["agree"])
    assert (solved["photographs"], solved["top1"], solved["agree"], solved["parameters"]) == (20, 15, 160, 0.8)
    assert (solved["chosen_on"], solved["on"], solved["seconds"]) == ("photographs", "photographs", 3.0)
    assert (plain["agree"], plain["on"]) == (3, "nothing")


def test_a_half_alone_is_left_out() -> None:
    assert recovery.joined([row("first"), row("second", recovered=False)]) == []


def test_what_was_looked_at_is_said() -> None:
    rows = [row("synthetic"), row("none", method="magnitude", recovered=False), row("synthetic", method="magnitude")]
    found = {(entry["method"], entry["chosen_on"], entry["on"]) for entry in recovery.joined(rows)}
    assert found == {
        ("reconstruction", "synthetic", "synthetic"),
        ("magnitude", "nothing", "nothing"),
        ("magnitude", "nothing", "synthetic"),
    }

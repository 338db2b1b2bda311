"""The share that the demo takes is the largest that was measured to leave 16 of the 20 photographs right."""

from __future__ import annotations

import json
from pathlib import Path

from reconvene.driver.verbs.demo_trained import CALIBRATION, SHARE, note

RESULTS = Path(__file__).parents[3] / "docs" / "results" / "recovery.json"


def test_the_share_is_the_largest_that_was_measured_to_leave_16_of_20_right() -> None:
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert (record["setting"]["images"], record["setting"]["steps"]) == (CALIBRATION.images, CALIBRATION.steps)
    rows = [row for row in record["rows"] if (row["method"], row["on"]) == ("reconstruction", "synthetic")]
    good = [row["share"] for row in rows if row["top1"] >= 16]
    assert max(good) == SHARE and max(row["share"] for row in rows) > SHARE


def test_the_note_states_the_share_and_what_training_would_be_for() -> None:
    assert f"{SHARE:.0%} of the channels" in note() and "training" in note()

"""What a model's file says of the data it was trained on: it comes back, stays through verbs, and is read strictly."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import reconvene
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.data.facts import Colours, DataFacts, facts_of
from reconvene.frontend.image_bytes import on_image_bytes
from reconvene.frontend.program_file import read_program, save_program

FACTS = DataFacts(("ripe", "unripe"), Colours((0.5, 0.25, 0.125), (0.1, 0.2, 0.3)), 0.25)
_three = st.tuples(*[st.floats(0.001, 10)] * 3)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1), min_size=2, unique=True),
    st.one_of(st.none(), st.builds(Colours, _three, _three)),
    st.floats(0, 0.99),
)
def test_facts_come_back(classes: list[str], colours: Colours | None, share: float) -> None:
    facts = DataFacts(tuple(classes), colours, share)
    assert DataFacts.from_plain(json.loads(json.dumps(facts.to_plain()))) == facts


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["one"]}, {"classes": ["a", "a"]}, {"classes": ["a", ""]}, {"classes": ["a", "b\n"]},
        {"classes": "ab"}, {"classes": [1, 2]}, {"mean": None}, {"mean": [1, 2]}, {"std": [1, 0, 1]},
        {"std": [1, -1, 1]}, {"test_share": 1}, {"test_share": "a"}, {"more": 1},
    ],
)  # fmt: skip
def test_other_facts_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        DataFacts.from_plain({**FACTS.to_plain(), **change})


def saved(path: Path) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x = torch.zeros(1, 3, 8, 8)
    save_program(capture(model, (x,)), (x,), path, data=FACTS)
    return path


def test_a_file_keeps_them_and_verbs_hand_them_on_where_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "model.pt2")
    assert read_program(path).data == FACTS
    assert main(["prune", str(path), "--sparsity", "0.5", "-o", "small.pt2"]) == 0
    assert read_program("small.pt2").data == FACTS
    assert main(["compact", "small.pt2", "-o", "again.pt2"]) == 0
    assert read_program("again.pt2").data == FACTS
    assert main(["capture", "small.pt2", "-o", "copy.pt2"]) == 0
    assert read_program("copy.pt2").data == FACTS
    assert main(["capture", "small.pt2", "--image-bytes", "NHWC", "-o", "bytes.pt2"]) == 0
    # Nobody normalises its images outside any more.
    assert read_program("bytes.pt2").data == replace(FACTS, colours=None)
    on_bytes = on_image_bytes(reconvene.load("small.pt2").module, (0.5, 0.25, 0.125), (0.1, 0.2, 0.3))
    assert facts_of(on_bytes) == replace(FACTS, colours=None)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"classes": ["x"]}, "cannot read the data in .* damaged"),
        (None, "cannot read the data in"),
        ("other", "the data in .* is of another program"),
    ],
)
def test_a_damaged_record_is_one_line(note: Any, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt2")
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in records if name.endswith("reconvene_data.json"))
    record = json.loads(records[name])
    record = {**record, "program": "0" * 64} if note == "other" else {**record, "data": note}
    records[name] = json.dumps(record).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in records.items():
            archive.writestr(place, content)
    with pytest.raises(InputError, match=message) as caught:
        _ = read_program(path).data
    assert "\n" not in str(caught.value)

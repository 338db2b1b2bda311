"""Models that take and give named tuples and dataclasses, in files that everybody can read and that keep the names."""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import read_program, save_program

Boxes = collections.namedtuple("Boxes", "box label")
Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Logits:
    values: Tensor
    attention: Tensor | None = None


torch.export.register_dataclass(Logits, serialized_type_name="tests.containers.Logits")
X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, pair: Any, scale: Tensor) -> Any:
        y = self.layer(pair.left) * scale
        return Boxes(y, [Logits(y + 1), {"top": torch.max(y, 1)}]), pair.right


INPUTS = (Pair(X, (X + 1,)), torch.tensor(2.0))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = capture(Detector().eval(), INPUTS)
    save_program(module, INPUTS, tmp_path / "detector.pt2", certificate={"dtype": "float64"})
    return tmp_path / "detector.pt2"


def test_names_come_back_as_named_tuples(saved: Path) -> None:
    stored = read_program(saved)
    assert stored.example_inputs is not None
    assert stored.certificate == {"dtype": "float64"}
    (boxes, right), wanted = stored.module(*stored.example_inputs), capture(Detector().eval(), INPUTS)(*INPUTS)
    assert stored.example_inputs[0]._fields == ("left", "right")
    assert torch.equal(right[0], X + 1)
    assert (type(boxes).__name__, boxes._fields) == ("Boxes", ("box", "label"))
    assert vars(boxes.label[0]).keys() == {"values", "attention"} and boxes.label[0].attention is None
    assert boxes.label[1]["top"]._fields == wanted[0].label[1]["top"].__match_args__
    # Saved again, and called with a plain tuple.
    save_program(stored.module, stored.example_inputs, saved)
    again = read_program(saved).module
    assert torch.equal(again(*INPUTS)[0].box, boxes.box)


@dataclasses.dataclass
class Answer:
    first: Tensor | None
    second: Tensor
    third: Tensor | None = None
    fourth: Tensor | None = None


torch.export.register_dataclass(Answer, serialized_type_name="tests.containers.Answer")


class Answering(nn.Module):
    def forward(self, asked: Answer) -> dict[str, Answer]:
        assert asked.third is not None
        return {"given": Answer(None, asked.second + asked.third, fourth=asked.third), "asked": asked}


def test_fields_that_are_none_come_back_too(tmp_path: Path) -> None:
    asked = Answer(None, X, X + 1)
    save_program(capture(Answering().eval(), (asked,)), (asked,), tmp_path / "answering.pt2")
    stored = read_program(tmp_path / "answering.pt2")
    assert stored.example_inputs is not None
    wanted = Answering()(asked)
    for given in (
        asked,
        stored.example_inputs[0],
        (X, X + 1),
    ):  # The person's own class, the file's, or what they hold.
        found = stored.module(given)
        for name, answer in wanted.items():
            for field in dataclasses.fields(Answer):
                value, expected = getattr(found[name], field.name), getattr(answer, field.name)
                assert value is None if expected is None else torch.equal(value, expected)
    given = found["given"]
    assert [field.name for field in dataclasses.fields(given)] == ["first", "second", "third", "fourth"]
    assert given[0] is given["second"] is given.second and type(given).__name__ == "Answer"
    # Saved again, and captured again.
    save_program(capture(stored.module), stored.example_inputs, tmp_path / "again.pt2")
    assert read_program(tmp_path / "again.pt2").module(asked)["given"].first is None


def test_anybody_can_read_the_file(saved: Path) -> None:
    module = torch.export.load(saved).module()
    (box, label), _ = module((X, (X + 1,)), torch.tensor(2.0))
    assert torch.equal(box, read_program(saved).module(*INPUTS)[0].box)
    assert type(label[0]) is tuple


def test_a_file_of_plain_containers_has_no_names(tmp_path: Path) -> None:
    save_program(capture(nn.Linear(8, 4).eval(), (X,)), (X,), tmp_path / "plain.pt2")
    assert not [name for name in zipfile.ZipFile(tmp_path / "plain.pt2").namelist() if "reconvene" in name]


def changed(path: Path, change: Callable[[Any], object]) -> None:
    """Changes the names in a file."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("reconvene_names.json"):
                record = json.loads(content)
                change(record)
                content = json.dumps(record).encode()
            target.writestr(name, content)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["outputs"]["entries"][0].update(name="__import__('os')"),
        lambda r: r["outputs"]["entries"][0].update(fields=["a b", "c"]),
        lambda r: r["outputs"]["entries"][0].update(fields=["box"]),
        lambda r: r["outputs"].update(entries=[]),
        lambda r: r.pop("inputs"),
        lambda r: r["outputs"]["entries"][0]["entries"][1]["entries"][0].update(none=["values", "attention"]),
        lambda r: r["outputs"]["entries"][0]["entries"][1]["entries"][0].update(fields=["values", "__init__"]),
        lambda r: r["outputs"]["entries"][0]["entries"][1]["entries"][0].update(none=[]),
    ],
)
def test_names_that_are_none_are_refused(saved: Path, change: Callable[[Any], object]) -> None:
    changed(saved, change)
    with pytest.raises(InputError, match=r"cannot read the names of '.*'.*; the file is damaged"):
        read_program(saved)


def test_a_certificate_is_of_the_names_too(saved: Path) -> None:
    changed(saved, lambda r: r["outputs"]["entries"][0].update(fields=["label", "box"]))
    with pytest.raises(InputError, match="of another program"):
        _ = read_program(saved).certificate

"""Plans: what was kept, written, read back and applied to a fresh copy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.compaction import apply_plan, compact
from reconvene.passes.outcome import Compaction
from reconvene.passes.plan import Plan
from tests.support.pruning import prune

from ..support.models import randomise

IMAGE = (torch.randn(2, 3, 8, 8),)


def net() -> nn.Module:
    """Two convolutions with normalisation, the same for every call."""
    torch.manual_seed(2)
    return randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 4, 1)
        )
    )


@pytest.fixture
def pruned() -> Compaction:
    """Half of the channels by magnitude."""
    return prune(capture(net(), IMAGE), IMAGE, "magnitude", 0.5)


def refusal(path: Path) -> str:
    """The one line that loading fails with."""
    with pytest.raises(InputError) as caught:
        Plan.load(path)
    assert "\n" not in str(caught.value)
    assert path.stem in str(caught.value)
    return str(caught.value)


def test_kept_positions_are_those_of_the_original() -> None:
    result = compact(
        capture(net(), IMAGE),
        IMAGE,
        {name: torch.arange(8) > 2 for name in ("0.weight", "0.bias", "1.weight", "1.bias")},
    )
    expected = [3, 4, 5, 6, 7]
    assert {name: {a: i.tolist() for a, i in axes.items()} for name, axes in result.plan.kept.items()} == {
        "0.weight": {0: expected},
        "0.bias": {0: expected},
        "1.weight": {0: expected},
        "1.bias": {0: expected},
        "1.running_mean": {0: expected},
        "1.running_var": {0: expected},
        "3.weight": {1: expected},
    }
    assert result.plan.shapes["3.weight"] == (6, 8, 3, 3)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path, pruned: Compaction) -> None:
    pruned.plan.save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    assert plan.shapes == pruned.plan.shapes
    assert plan.origin == pruned.plan.origin
    assert plan.origin["method"] == "magnitude"
    for mine, theirs in ((plan.kept, pruned.plan.kept),):
        assert mine.keys() == theirs.keys()
        assert all(
            torch.equal(mine[name][axis], index) for name, axes in theirs.items() for axis, index in axes.items()
        )
    assert all(torch.equal(plan.masks[name], mask) for name, mask in pruned.plan.masks.items())
    assert sorted(os.listdir(tmp_path)) == ["plan.json", "plan.safetensors"]


def test_a_plan_applied_to_a_fresh_copy_gives_the_same_model(tmp_path: Path, pruned: Compaction) -> None:
    pruned.plan.save(tmp_path / "plan.json")
    result = apply_plan(Plan.load(tmp_path / "plan.json"), capture(net(), IMAGE), IMAGE)
    assert result.after == pruned.after
    assert torch.equal(result.module(*IMAGE), pruned.module(*IMAGE))


def test_a_plan_fits_the_same_model_with_other_weights(pruned: Compaction) -> None:
    other = net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert apply_plan(pruned.plan, capture(other, IMAGE), IMAGE).after.parameters == pruned.after.parameters


def test_a_plan_for_another_model_is_refused(pruned: Compaction) -> None:
    other = randomise(nn.Sequential(nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 6, 3)))
    with pytest.raises(InputError, match="of shape") as caught:
        apply_plan(pruned.plan, capture(other, IMAGE), IMAGE)
    assert "\n" not in str(caught.value)


def test_a_plan_with_names_a_model_lacks_is_refused(pruned: Compaction) -> None:
    other = randomise(nn.Sequential(nn.Identity(), nn.Identity(), nn.Conv2d(3, 8, 3)))
    with pytest.raises(InputError, match="there is no parameter '0"):
        apply_plan(pruned.plan, capture(other, IMAGE), IMAGE)


def test_a_model_with_zeros_elsewhere_is_refused(pruned: Compaction) -> None:
    other = net()
    with torch.no_grad():
        other[3].weight[:, pruned.plan.kept["0.weight"][0]] = 0
    with pytest.raises(InputError, match="zeros elsewhere"):
        apply_plan(pruned.plan, capture(other, IMAGE), IMAGE)


def test_a_missing_plan_says_so(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.json")


def test_a_folder_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    refusal(tmp_path / "folder.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"plan"', "{}", '{"format": "other"}', "\xff\xfe"])
def test_other_text_is_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_bytes(text.encode("latin-1"))
    assert "is not a plan" in refusal(tmp_path / "other.json")


def test_another_version_is_refused(tmp_path: Path, pruned: Compaction) -> None:
    file = tmp_path / "plan.json"
    pruned.plan.save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    assert "version 99" in refusal(file)


def test_missing_tensors_are_named(tmp_path: Path, pruned: Compaction) -> None:
    pruned.plan.save(tmp_path / "plan.json")
    (tmp_path / "plan.safetensors").unlink()
    assert "plan.safetensors" in refusal(tmp_path / "plan.json")


def test_damaged_tensors_are_named(tmp_path: Path, pruned: Compaction) -> None:
    pruned.plan.save(tmp_path / "plan.json")
    (tmp_path / "plan.safetensors").write_bytes(b"garbage")
    assert "or of another plan than" in refusal(tmp_path / "plan.json")


def test_tensors_of_another_plan_are_refused(tmp_path: Path, pruned: Compaction) -> None:
    pruned.plan.save(tmp_path / "plan.json")
    save_file({"kept/other/0": torch.arange(3)}, tmp_path / "plan.safetensors")
    assert "or of another plan than" in refusal(tmp_path / "plan.json")


@pytest.mark.parametrize(
    "damage", [{"parameters": 3}, {"parameters": {"a": 3}}, {"parameters": None}, {"tensors": 3}, {"tensors": ""}]
)
def test_a_damaged_description_is_refused(tmp_path: Path, pruned: Compaction, damage: dict[str, object]) -> None:
    file = tmp_path / "plan.json"
    pruned.plan.save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    refusal(file)


def test_a_plan_does_not_read_tensors_outside_its_folder(tmp_path: Path, pruned: Compaction) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    pruned.plan.save(tmp_path / "plan.json")
    description = json.loads((tmp_path / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**description, "tensors": "../plan.safetensors"}))
    refusal(folder / "plan.json")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, pruned: Compaction) -> None:
    with pytest.raises(InputError, match="cannot write"):
        pruned.plan.save(tmp_path / "missing" / "plan.json")

"""Levels: their masks are nested, their starts rewound, and a kill changes nothing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_kills import write_images

from reconvene.driver.cli.command_line import main
from reconvene.driver.training.levels import LEVELS_FILE, Ladder, Level, open_levels, rewind_step, train_levels
from reconvene.driver.training.loop import train
from reconvene.driver.training.presets import Preset
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.program_file import load_program
from reconvene.passes.pruning.scores import synthetic_batches
from tests.driver.training.test_loop import SHAPE, images, killed_at, network

PRESET = Preset(epochs=2, batch=8, rate=0.05, milestones=(1,), augment="crop-flip")
INPUTS = (torch.zeros(SHAPE),)
Climb = tuple[Path, tuple[Level, ...]]
LADDER = Ladder(levels=3, share=0.5, rewind="4it")


def climbed(folder: Path, ladder: Ladder = LADDER, **options: Any) -> tuple[Level, ...]:
    return tuple(train_levels(network(), INPUTS, images(), images(32, 1), PRESET, ladder, folder, **options))


def masks(level: Level) -> dict[str, torch.Tensor]:
    return {name: mask.bool() for name, mask in load_file(level.model.parent / "masks.safetensors").items()}


def weights(level: Level) -> dict[str, torch.Tensor]:
    return dict(load_program(level.model)[0].state_dict())


def same(first: tuple[Level, ...], second: tuple[Level, ...]) -> bool:
    pairs = [(weights(one), weights(two)) for one, two in zip(first, second, strict=True)]
    return all(torch.equal(one[name], two[name]) for one, two in pairs for name in one)


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory) -> Climb:
    """A folder with all levels, in one go. Tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("levels")
    return folder, climbed(folder)


def test_every_level_removes_its_share_of_what_remained(climb: Climb) -> None:
    folder, levels = climb
    total = 3 * 8 * 9 + 8 * 8 * 9 + 8 * 2
    assert [level.weights for level in levels] == [total] * 4
    assert [level.zeros for level in levels] == [round(total * (1 - 0.5**n)) for n in range(4)]
    for before, after in itertools.pairwise(levels):
        for name, mask in masks(after).items():
            assert not (mask & ~masks(before)[name]).any()
            assert not weights(after)[name][~mask].any()
    assert open_levels(folder) == levels


def test_a_level_keeps_the_largest_weights_of_the_level_before(climb: Climb) -> None:
    levels = climb[1]
    trained, kept = weights(levels[1]), masks(levels[2])
    left = torch.cat([trained[name][mask].abs() for name, mask in kept.items()])
    gone = torch.cat([trained[name][masks(levels[1])[name] & ~mask].abs() for name, mask in kept.items()])
    assert left.min() >= gone.max()


def test_survivors_begin_where_the_dense_network_was_early(climb: Climb, tmp_path: Path) -> None:
    """The same as training by hand from an early state, under the level's masks."""
    level = climb[1][2]
    early = train(network(), images(), images(32, 1), PRESET, tmp_path / "early", last_step=4)
    again = train(early.module, images(), images(32, 1), PRESET, tmp_path / "again", masks=masks(level), first_step=4)  # type: ignore[arg-type]
    assert all(torch.equal(value, weights(level)[name]) for name, value in again.module.state_dict().items())


def test_without_rewinding_a_level_begins_with_the_initial_weights(tmp_path: Path) -> None:
    level = climbed(tmp_path / "levels", Ladder(levels=1, share=0.5))[1]
    assert not (tmp_path / "levels" / "start").exists()
    again = train(network(), images(), images(32, 1), PRESET, tmp_path / "again", masks=masks(level))
    assert all(torch.equal(value, weights(level)[name]) for name, value in again.module.state_dict().items())


@pytest.mark.parametrize("moment", [2, 9, 14, 23])
def test_killed_levels_go_on_to_the_same_weights(
    moment: int, climb: Climb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(moment, monkeypatch):
        climbed(tmp_path / "killed", checkpoint_every=2)
    assert same(climb[1], climbed(tmp_path / "killed", checkpoint_every=2))


def test_finished_levels_are_not_repeated_and_more_may_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = climbed(tmp_path, Ladder(levels=1, share=0.5))
    more = climbed(tmp_path, Ladder(levels=2, share=0.5))
    assert more[:2] == first
    monkeypatch.setattr(torch.optim.SGD, "step", None)
    assert climbed(tmp_path, Ladder(levels=2, share=0.5)) == more


@pytest.mark.parametrize("method", ["magnitude", "snip", "synflow"])
def test_masks_at_initialization(method: str, tmp_path: Path) -> None:
    batches = synthetic_batches(network(), INPUTS, size=8)
    levels = climbed(tmp_path, Ladder(levels=2, share=0.5, method=method), batches=batches)
    assert [level.zeros / level.weights for level in levels] == pytest.approx([0, 0.5, 0.75], abs=0.01)
    first = train(network(), images(), images(32, 1), PRESET, tmp_path / "x", masks=masks(levels[2]))
    assert torch.equal(first.module.state_dict()["0.weight"], weights(levels[2])["0.weight"])


def test_weights_that_are_ignored_stay_whole(tmp_path: Path) -> None:
    levels = climbed(tmp_path, Ladder(levels=1, share=0.5, ignore=("9.weight",)))
    assert "9.weight" not in masks(levels[1]) and levels[1].weights == 3 * 8 * 9 + 8 * 8 * 9


def test_another_ladder_s_folder_is_refused(tmp_path: Path) -> None:
    climbed(tmp_path / "levels", Ladder(levels=1))
    for options in ({"ladder": Ladder(levels=1, share=0.3)}, {"ladder": Ladder(levels=1), "seed": 1}):
        with pytest.raises(InputError, match="another model, data or settings"):
            climbed(tmp_path / "levels", **options)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        climbed(tmp_path / "else")
    with pytest.raises(InputError, match="holds no levels"):
        open_levels(tmp_path / "else")


@pytest.mark.parametrize("damage", ["{", '{"format": "x"}', '{"format": "reconvene-levels/1"}'])
def test_a_damaged_description_is_one_line(damage: str, tmp_path: Path) -> None:
    climbed(tmp_path, Ladder(levels=1))
    (tmp_path / LEVELS_FILE).write_text(damage)
    with pytest.raises(InputError, match="damaged"):
        open_levels(tmp_path)


def test_a_damaged_level_is_named(tmp_path: Path) -> None:
    climbed(tmp_path, Ladder(levels=1))
    (tmp_path / "level-00" / "masks.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"masks\.safetensors"):
        climbed(tmp_path, Ladder(levels=1))
    (tmp_path / "level-00" / "level.json").write_text(json.dumps({"number": 0}))
    with pytest.raises(InputError, match=r"level\.json"):
        open_levels(tmp_path)


@pytest.mark.parametrize(("text", "step"), [("0it", 0), ("7it", 7), ("1ep", 6), ("3ep", 18)])
def test_places_to_rewind_to(text: str, step: int) -> None:
    assert rewind_step(text, 6, 20) == step


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        (Ladder(levels=0), "0 levels"),
        (Ladder(share=1.0), "share of 1.0"),
        (Ladder(share=float("nan")), "share of nan"),
        (Ladder(method="luck"), "no method 'luck'"),
        (Ladder(rewind="soon"), "no place to rewind"),
        (Ladder(rewind="12it"), "leaves nothing to train"),
    ],
)
def test_ladders_that_cannot_be_climbed(ladder: Ladder, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        climbed(tmp_path, ladder)
    assert "\n" not in str(caught.value) and not any(tmp_path.iterdir())


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data")
    call = (
        f"train-levels resnet20 --dataset cifar10 --data {tmp_path / 'data'} --width 0.25 --preset smoke --set epochs=1"
        f" --set test_images=32 --levels 1 --share 0.6 --rewind 2it --threads 1 -o {tmp_path / 'levels'} --json"
    ).split()
    assert main(call) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [level["name"] for level in shown["levels"]] == ["level-00", "level-01"]
    assert shown["levels"][1]["zeros"] == round(0.6 * shown["levels"][1]["weights"])
    assert open_levels(tmp_path / "levels")[1].zeros == shown["levels"][1]["zeros"]
    for wrong in ("--share 2", "--method luck", "--rewind soon", "--levels 0", "--preset none"):
        assert main([*call, *wrong.split()]) == 2
        assert "\n" in capsys.readouterr().err


def test_a_model_of_the_users_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the shapes of example inputs, as training does."""
    write_images(tmp_path / "data")
    layers = "nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)"
    (tmp_path / "own.py").write_text(f"from torch import nn\ndef net():\n    return nn.Sequential({layers})\n")
    call = (
        f"train-levels {tmp_path / 'own.py'}:net --dataset cifar10 --data {tmp_path / 'data'} --preset smoke"
        f" --set epochs=1 --set test_images=32 --levels 1 --threads 1 -o {tmp_path / 'levels'} --json"
    ).split()
    assert main(call) == 2 and "--input 1x3x224x224" in capsys.readouterr().err
    assert main([*call, "--input", "1x3x32x32"]) == 0
    assert len(json.loads(capsys.readouterr().out)["levels"]) == 2

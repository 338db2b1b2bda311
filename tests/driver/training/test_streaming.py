"""Trainings that nothing waits for: the same as the loop's own to the bit, and each goes on from the other's checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reconvene.driver.training.hardware import Hardware
from reconvene.driver.training.loop import CHECKPOINT, Trained, train
from reconvene.driver.training.presets import Preset
from reconvene.driver.training.streaming import StreamedTraining, Task
from reconvene.frontend.base.errors import InputError

from .test_loop import images, killed_at, network

PRESET = Preset(epochs=3, batch=8, rate=0.05, milestones=(2,), warmup=0.5, augment="crop-flip", clip=1.0)
MASK = {"0.weight": torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(1)) > 0.5}


def task(preset: Preset = PRESET, precision: str = "float32") -> Task:
    return Task(network(), images(), images(32, 1), preset, MASK, Hardware(precision=precision), seed=4)


def streamed(folder: Path, given: Task | None = None, steps: int | None = None) -> StreamedTraining:
    """To its end, or until so many steps are done in all; then it has saved itself."""
    folder.mkdir(exist_ok=True)
    training = StreamedTraining(given or task(), folder / CHECKPOINT)
    while not training.is_over and training.progress.step != steps:
        training.turn()
    if steps is not None:
        training.save()
    return training


def looped(folder: Path, given: Task | None = None) -> Trained:
    made = given or task()
    return train(
        made.module, made.training, made.test, made.preset, folder, masks=made.masks, machine=made.machine,
        seed=made.seed, checkpoint_every=2,
    )  # fmt: skip


def assert_same(training: StreamedTraining, done: Trained) -> None:
    first, second = training.result().state_dict(), done.module.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    rows = [[{**row, "seconds": 0} for row in found] for found in (training.progress.rows, done.rows)]
    assert rows[0] == rows[1] and len(rows[0]) == PRESET.epochs


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_does_what_the_loop_does(precision: str, tmp_path: Path) -> None:
    given = task(precision=precision)
    assert_same(streamed(tmp_path / "one", given), looped(tmp_path / "two", given))


@pytest.mark.parametrize("steps", [4, 6, 11])
def test_stopped_it_goes_on_to_the_same_bits(steps: int, tmp_path: Path) -> None:
    streamed(tmp_path / "one", steps=steps)
    assert_same(streamed(tmp_path / "one"), looped(tmp_path / "two"))


def test_each_goes_on_from_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = looped(tmp_path / "whole")
    streamed(tmp_path / "one", steps=8)
    again = looped(tmp_path / "one")
    assert all(torch.equal(whole.module.state_dict()[name], value) for name, value in again.module.state_dict().items())
    with killed_at(12, monkeypatch):
        looped(tmp_path / "two")
    assert_same(streamed(tmp_path / "two"), whole)


def test_what_masks_hold_keeps_no_momentum_in_a_checkpoint(tmp_path: Path) -> None:
    training = streamed(tmp_path, steps=5)
    (momentum,) = training.optimizer.state[training.model.get_parameter("0.weight")].values()
    assert not momentum[~MASK["0.weight"]].any() and momentum[MASK["0.weight"]].all()


def test_it_saves_itself_when_the_time_has_come(tmp_path: Path) -> None:
    for seconds, saved in ((3600.0, False), (0.0, True)):
        path = tmp_path / f"{seconds}.safetensors"
        training = StreamedTraining(task(), path, seconds)
        training.turn()
        assert path.exists() is saved


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": 0.9}, "averages weights"),
        ({"batch": 64}, "fewer than one batch of 64"),
        ({"rate": 1e30, "clip": 0}, "by step"),
    ],
)
def test_what_it_cannot_do_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        streamed(tmp_path, task(PRESET.changed({"warmup": 0, **changes})))
    assert "\n" not in str(caught.value)


def test_nothing_broken_is_saved(tmp_path: Path) -> None:
    training = streamed(tmp_path, steps=3)
    with torch.no_grad():
        training.model.get_parameter("0.weight")[0] = float("nan")
    before = training.path.read_bytes()
    with pytest.raises(InputError, match=r"in '0\.weight'"):
        training.save()
    assert training.path.read_bytes() == before


def test_another_training_is_refused(tmp_path: Path) -> None:
    streamed(tmp_path, steps=3)
    with pytest.raises(InputError, match="another training"):
        streamed(tmp_path, replace(task(), seed=5))

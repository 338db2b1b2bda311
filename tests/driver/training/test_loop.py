"""Training: it learns, goes on after interruptions to the same weights, keeps masks, and refuses what is not its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reconvene
from reconvene.driver.training import loop
from reconvene.driver.training.loop import CHECKPOINT, Hardware, train
from reconvene.driver.training.presets import Preset
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.data.datasets import Images
from reconvene.frontend.graph_module import CapturedModule, cloned
from reconvene.passes.pruning.weights import sparsify

PRESET = Preset(epochs=3, batch=8, rate=0.05, milestones=(2,), augment="none")
SHAPE = (2, 3, 8, 8)


def images(count: int = 48, seed: int = 0) -> Images:
    """Dark and bright noise: two classes that a small network tells apart."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    pixels = (generator.integers(0, 128, (count, 3, 8, 8)) + 110 * labels[:, None, None, None]).astype(np.uint8)
    return Images("noise", pixels, labels.astype(np.int64), (0.5,) * 3, (0.25,) * 3)


def network() -> CapturedModule:
    """The same one every time, and the caller's own."""
    return cloned(captured())


@cache
def captured() -> CapturedModule:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    x = torch.randn(SHAPE)
    return capture(model, (x,), ({0: torch.export.Dim.DYNAMIC},))


def trained(folder: Path, preset: Preset = PRESET, **options: Any) -> loop.Trained:
    return train(network(), images(), images(32, 1), preset, folder, **options)


def weights(done: loop.Trained) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in done.module.state_dict().items()}


def same(first: loop.Trained, second: loop.Trained) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_it_learns_and_writes_its_log(tmp_path: Path) -> None:
    done = trained(tmp_path / "run", PRESET.changed({"epochs": 6}))
    assert done.rows[-1]["test_accuracy"] > 0.9 > done.rows[0]["train_accuracy"]
    assert [row["epoch"] for row in done.rows] == [1, 2, 3, 4, 5, 6]
    assert [row["rate"] for row in done.rows] == pytest.approx([0.05, 0.05, *[0.005] * 4])
    log = json.loads((tmp_path / "run" / "log.json").read_text())
    assert log["rows"] == list(done.rows) and log["settings"]["epochs"] == 6
    lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert len(lines) == 7 and lines[0].startswith("epoch,rate,train_loss")
    assert "accuracy" in (tmp_path / "run" / "curves.html").read_text()


def test_the_given_model_and_the_caller_s_generator_stay_as_they_were(tmp_path: Path) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    train(model, images(), images(), PRESET, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def killed(*_: Any) -> None:
    raise Killed


@contextmanager
def killed_at(
    moment: int, monkeypatch: pytest.MonkeyPatch, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
) -> Iterator[None]:
    """Ends what the block does at the given step of the optimizer."""
    calls = 0
    real: Any = optimizer.step

    def step(self: torch.optim.Optimizer, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise Killed
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "step", step)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize("moment", [1, 7, 12, 17])
def test_a_training_goes_on_to_the_same_weights(moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESET.changed({"augment": "crop-flip", "warmup": 1.5})
    whole = trained(tmp_path / "whole", preset)
    with killed_at(moment, monkeypatch):
        trained(tmp_path / "killed", preset, checkpoint_every=2)
    again = trained(tmp_path / "killed", preset, checkpoint_every=2)
    assert same(whole, again)
    strip = [{name: value for name, value in row.items() if name != "seconds"} for row in again.rows]
    assert strip == [{name: value for name, value in row.items() if name != "seconds"} for row in whole.rows]


def test_a_finished_training_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(tmp_path)
    monkeypatch.setattr(torch.optim.SGD, "step", None)
    assert same(first, trained(tmp_path))


def test_masked_weights_stay_zero_and_compact_exactly(tmp_path: Path) -> None:
    model, x = network(), torch.randn(SHAPE)
    masks = dict(sparsify(model, (x,), "magnitude", 0.6).masks)
    dead = torch.ones_like(masks["0.weight"])
    dead[:3] = False
    masks["0.weight"] &= dead
    done = train(model, images(), images(), PRESET, tmp_path, masks=masks)
    for name, mask in masks.items():
        value = done.module.get_parameter(name)
        assert not value[~mask].any() and value[mask].all()
    double = capture(done.module, (x,))
    result = reconvene.compact(double, (x,))
    assert result.certificate.max_relative < 1e-6
    assert result.module.get_parameter("0.weight").shape[0] < 8
    torch.testing.assert_close(result.module(x), done.module(x), rtol=1e-4, atol=1e-5)


def test_bfloat16_trains_with_float32_weights(tmp_path: Path) -> None:
    done = trained(tmp_path / "low", PRESET.changed({"epochs": 5}), machine=Hardware(precision="bfloat16"))
    assert done.rows[-1]["test_accuracy"] > 0.9
    assert all(value.dtype is torch.float32 for value in done.module.parameters())
    assert not same(done, trained(tmp_path / "full", PRESET.changed({"epochs": 5})))


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    one, again, other = (trained(tmp_path / str(n), seed=seed) for n, seed in enumerate((1, 1, 2)))
    assert same(one, again) and not same(one, other)


def test_another_training_s_folder_is_refused_unless_told(tmp_path: Path) -> None:
    trained(tmp_path)
    for options in ({"seed": 5}, {"preset": PRESET.changed({"rate": 0.1})}, {"masks": {"0.weight": torch.ones(8)}}):
        with pytest.raises(InputError, match="another training"):
            trained(tmp_path, **options)
    assert same(trained(tmp_path, seed=5, restart=True), trained(tmp_path, seed=5))


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, None])
def test_a_damaged_checkpoint_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    trained(tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(InputError, match="damaged") as caught:
        trained(tmp_path)
    assert "\n" not in str(caught.value)


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However young they are: the run that goes on is the only one in its folder."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("os.replace", killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # What is killed tidies nothing up.
        trained(tmp_path)
    assert list(tmp_path.glob(".checkpoint*"))
    trained(tmp_path)
    assert not list(tmp_path.glob(".checkpoint*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": {"nothing": torch.ones(2)}}, "no parameter 'nothing'"),
        ({"masks": {"0.weight": torch.ones(3)}}, "mask of '0.weight'"),
        ({"machine": Hardware("tpu")}, "device 'tpu'"),
        ({"machine": Hardware("cuda:99")}, "no device 'cuda:99'"),
        ({"machine": Hardware(precision="int8")}, "no precision"),
        ({"machine": Hardware(threads=0)}, "0 threads"),
        ({"preset": PRESET.changed({"batch": 64})}, "fewer than one batch"),
        ({"preset": PRESET.changed({"train_images": 1000})}, "fewer than 1000"),
        ({"preset": PRESET.changed({"rate": 1e30})}, "smaller rate"),
    ],
)
def test_what_cannot_be_trained_is_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trained(tmp_path, **options)
    assert "\n" not in str(caught.value)

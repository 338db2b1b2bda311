"""Training in float16: weights in float32, a scaled loss, the same bits after a kill, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reconvene.driver.training.checkpoint import Progress
from reconvene.driver.training.hardware import Hardware
from reconvene.driver.training.loop import CHECKPOINT, train
from reconvene.driver.training.streaming import StreamedTraining
from reconvene.driver.training.tasks import Measure
from reconvene.driver.verbs.trainings import machine_asked
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.json_text import parse_json
from reconvene.frontend.base.tensor_files import parse_tensors

from .test_loop import PRESET, images, killed_at, network, same, trained
from .test_streaming import task

NARROW = Hardware(precision="float16")


def large(outputs: Tensor, targets: Tensor) -> Tensor:
    """Its gradients are infinite in float16 unless the scale falls first."""
    return 40 * F.cross_entropy(outputs, targets)


def vast(outputs: Tensor, targets: Tensor) -> Tensor:
    return 1e15 * F.cross_entropy(outputs, targets)


def progress(folder: Path) -> dict[str, Any]:
    _, metadata = parse_tensors((folder / CHECKPOINT).read_bytes())
    return dict(parse_json(metadata["progress"]))


def test_it_trains_with_float32_weights(tmp_path: Path) -> None:
    done = trained(tmp_path / "narrow", PRESET.changed({"epochs": 6}), machine=NARROW)
    assert done.rows[-1]["test_accuracy"] > 0.9
    assert all(value.dtype is torch.float32 for value in done.module.parameters())
    other = trained(tmp_path / "bfloat16", PRESET.changed({"epochs": 6}), machine=Hardware(precision="bfloat16"))
    assert not same(done, other)
    assert progress(tmp_path / "bfloat16")["scale"] == Progress().scale == 0


def test_steps_that_overflow_are_left_out_and_the_scale_falls(tmp_path: Path) -> None:
    preset = PRESET.changed({"rate": 0.05 / 40, "epochs": 6})
    done = trained(tmp_path, preset, machine=NARROW, measure=Measure(loss=large))
    assert 0 < progress(tmp_path)["scale"] < 2.0**16
    assert done.rows[-1]["test_accuracy"] > 0.9


@pytest.mark.parametrize("moment", [2, 9, 13])
def test_a_training_goes_on_to_the_same_weights(moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESET.changed({"rate": 0.05 / 40})
    how = {"machine": NARROW, "measure": Measure(loss=large), "checkpoint_every": 2}
    whole = trained(tmp_path / "whole", preset, **how)
    with killed_at(moment, monkeypatch):
        trained(tmp_path / "killed", preset, **how)
    assert same(whole, trained(tmp_path / "killed", preset, **how))
    scales = [{name: progress(tmp_path / run)[name] for name in ("scale", "steady")} for run in ("whole", "killed")]
    assert scales[0] == scales[1]


def test_gradients_that_no_scale_makes_finite_end_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="however the loss is scaled"):
        trained(tmp_path, PRESET.changed({"epochs": 20}), machine=NARROW, measure=Measure(loss=vast))


def test_float16_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights are float16.*\.float\(\)"):
        train(network().half(), images(), images(), PRESET, tmp_path, machine=NARROW)


def test_side_by_side_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose bfloat16 or float32"):
        StreamedTraining(task(precision="float16"), tmp_path / CHECKPOINT)


def test_one_narrow_type_can_be_asked_for() -> None:
    assert [
        machine_asked("cpu", *asked, None).precision for asked in ((False, False), (True, False), (False, True))
    ] == [
        "float32",
        "bfloat16",
        "float16",
    ]
    with pytest.raises(InputError, match="choose one"):
        machine_asked("cpu", True, True, None)

"""Steps that are recorded and replayed: when, when anew, and with what. The recorder of these tests needs no GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from reconvene.driver.training.hardware import Hardware
from reconvene.driver.training.presets import Preset
from reconvene.driver.training.replay import Replay, is_repeatable
from reconvene.driver.training.streaming import StreamedTraining, Task
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule

from .test_loop import SHAPE, images

PRESET = Preset(epochs=4, batch=8, rate=0.05, milestones=(2,), augment="crop-flip", train_images=0)


class Recorder:
    """Plays a step again by doing it again, with the inputs that lie where they lay; counts."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            step()

        return replay


def network(dropout: float = 0.0) -> CapturedModule:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    extra = [nn.Dropout(dropout)] if dropout else []
    return capture(
        nn.Sequential(*layers, *extra, nn.Linear(8, 2)), (torch.randn(SHAPE),), ({0: torch.export.Dim.DYNAMIC},)
    )


def trained(folder: Path, record: Recorder | None, preset: Preset = PRESET, dropout: float = 0.0) -> StreamedTraining:
    mask = torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    task = Task(network(dropout), images(), images(32, 1), preset, {"0.weight": mask}, Hardware())
    training = StreamedTraining(task, folder / "checkpoint.safetensors", record=record)
    while not training.is_over:
        training.turn()
    return training


def test_a_rate_has_a_recording_once_three_steps_were_done_at_it(tmp_path: Path) -> None:
    """Six steps an epoch, four epochs, two rates: twice nine of twelve steps are replayed."""
    record, (one, two) = Recorder(), (tmp_path / "one", tmp_path / "two")
    one.mkdir(), two.mkdir()
    replayed, launched = trained(one, record), trained(two, None)
    assert (record.recorded, record.replayed) == (2, 18)
    first, second = replayed.model.state_dict(), launched.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [[{**row, "seconds": 0} for row in training.progress.rows] for training in (replayed, launched)]
    assert rows[0] == rows[1]


def test_a_rate_that_grows_is_not_recorded(tmp_path: Path) -> None:
    record = Recorder()
    trained(tmp_path, record, PRESET.changed({"warmup": 4, "milestones": ""}))
    assert record.recorded == 0


def test_what_draws_random_numbers_is_not_recorded(tmp_path: Path) -> None:
    assert is_repeatable(network()) and not is_repeatable(network(0.2))
    record = Recorder()
    trained(tmp_path, record, dropout=0.2)
    assert record.recorded == 0


def test_inputs_are_copied_to_where_the_recording_reads_them() -> None:
    seen: list[tuple[int, list[int]]] = []
    replay = Replay(lambda chosen, drawn: seen.append((chosen.data_ptr(), chosen.tolist())), Recorder())
    given = [torch.tensor([number]) for number in range(6)]
    for chosen in given:
        replay(chosen, torch.empty(0, 1), 0.1)
    assert [values for _, values in seen] == [[0], [1], [2], [3], [4], [5]]
    assert len({place for place, _ in seen[3:]}) == 1 and seen[3][0] != given[3].data_ptr()

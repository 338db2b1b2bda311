"""Data sets and loaders of a person's own, with losses of their own: the same bits after a kill, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from reconvene.driver.training.levels import Ladder, train_levels
from reconvene.driver.training.loop import CHECKPOINT, Trained, train
from reconvene.driver.training.presets import Preset
from reconvene.driver.training.tasks import Measure, Task, task_of
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.data.datasets import Images
from reconvene.frontend.graph_module import CapturedModule
from tests.driver.training.test_loop import images, killed_at, network, same

PRESET = Preset(epochs=3, batch=8, rate=0.02)


class Noisy(Dataset[Any]):
    """Rows whose values are drawn anew each time, by three generators; the class is whether their sum is above 0."""

    def __init__(self, count: int = 44) -> None:
        self.rows = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        noise = torch.randn(6) + random.gauss(0, 1) + float(np.random.normal())
        return self.rows[place] + 0.1 * noise, int(self.rows[place].sum() > 0)


class Named(Noisy):
    """Two inputs by name, and a target that is no class."""

    def __getitem__(self, place: int) -> Any:
        row, _ = super().__getitem__(place)
        return {"left": row[:3], "right": row[3:]}, row.sum(0, keepdim=True)


class Adding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 4), nn.Linear(3, 4)
        self.last = nn.Linear(4, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.last(self.one(left) + self.other(right))


@cache
def rows_network(classes: int = 2) -> CapturedModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, classes))
    return capture(model, (torch.zeros(2, 6),), ({0: torch.export.Dim.DYNAMIC},))


@cache
def adding() -> CapturedModule:
    torch.manual_seed(0)
    x = torch.zeros(2, 3)
    batch = torch.export.Dim.DYNAMIC
    return capture(Adding(), {"left": x, "right": x}, {"left": {0: batch}, "right": {0: batch}})


def loader(workers: int = 0) -> DataLoader[Any]:
    return DataLoader(Noisy(), 8, shuffle=True, num_workers=workers)


def trained(folder: Path, data: Any, **options: Any) -> Trained:
    return train(rows_network(), data, Noisy(16), PRESET, folder, **options)


def test_items_are_learnt_from(tmp_path: Path) -> None:
    done = train(rows_network(), Noisy(), Noisy(16), PRESET.changed({"epochs": 25}), tmp_path)
    assert done.rows[-1]["test_accuracy"] > 0.9
    settings = json.loads((tmp_path / "log.json").read_text())["settings"]
    assert settings["data"] == ["Noisy", 44, "Noisy", 16]


@pytest.mark.parametrize("make", [Noisy, loader, lambda: loader(1)], ids=["items", "loader", "workers"])
@pytest.mark.parametrize("moment", [9])
def test_a_killed_training_goes_on_to_the_same_bits(
    make: Any, moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", make())
    with killed_at(moment, monkeypatch):
        trained(tmp_path / "killed", make(), checkpoint_every=2)
    again = trained(tmp_path / "killed", make(), checkpoint_every=2)
    assert same(whole, again)
    assert [{**row, "seconds": 0} for row in whole.rows] == [{**row, "seconds": 0} for row in again.rows]


def test_seeds_differ_and_the_caller_s_random_numbers_stay(tmp_path: Path) -> None:
    module = rows_network()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    one, other = (train(module, Noisy(), Noisy(16), PRESET, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert not same(one, other)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_processes_beside_the_training_change_no_bit(tmp_path: Path) -> None:
    assert same(trained(tmp_path / "none", Noisy()), trained(tmp_path / "two", Noisy(), workers=2))


def test_a_loader_s_last_batch_counts_as_many_items_as_it_has(tmp_path: Path) -> None:
    seen: list[int] = []

    def share(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(targets))
        return (outputs.argmax(1) == targets).float().mean()

    measure = Measure(metric=share)
    done = trained(tmp_path, DataLoader(Noisy(), 8), measure=measure)
    assert seen[:6] == [8, 8, 8, 8, 8, 4] and len(done.rows) == 3
    right = done.rows[0]["train_share"] * 44
    assert done.metric == "share" and 0 <= done.score <= 1 and right == pytest.approx(round(right), abs=1e-4)


def mean_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().mean()


def test_another_task_has_its_loss_its_metric_and_inputs_by_name(tmp_path: Path) -> None:
    measure = Measure(F.mse_loss, mean_error)
    done = train(adding(), Named(), Named(16), PRESET.changed({"epochs": 30, "rate": 0.05}), tmp_path, measure=measure)
    assert done.rows[-1]["test_mean_error"] < 0.5 < done.rows[0]["test_mean_error"]
    log = json.loads((tmp_path / "log.json").read_text())
    assert (log["settings"]["loss"], log["settings"]["metric"]) == ("mse_loss", "mean_error")
    assert "mean_error" in (tmp_path / "curves.html").read_text()
    assert (tmp_path / "log.csv").read_text().splitlines()[0].split(",")[3] == "train_mean_error"


def test_levels_of_another_task_are_told_by_its_metric(tmp_path: Path) -> None:
    module, measure = rows_network(), Measure(F.cross_entropy, lambda outputs, targets: -1.0)
    ladder, inputs = Ladder(levels=1, share=0.5), (torch.zeros(2, 6),)
    preset = PRESET.changed({"epochs": 1})
    levels = list(train_levels(module, inputs, Noisy(), Noisy(16), preset, ladder, tmp_path, measure=measure))
    assert [level.accuracy for level in levels] == [-1.0, -1.0] and levels[1].zeros == 64


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield torch.zeros(6), 0


class Failing(Noisy):
    def __getitem__(self, place: int) -> Any:
        return torch.zeros(6), {}["no such key"]


class Triple(Noisy):
    def __getitem__(self, place: int) -> Any:
        return torch.zeros(6), 0, 1


class Words(Noisy):
    def __getitem__(self, place: int) -> Any:
        return "a", "b"


class Third(Noisy):
    """With labels of three classes."""

    def __getitem__(self, place: int) -> Any:
        return torch.zeros(6), place % 3


class Negative(Noisy):
    def __getitem__(self, place: int) -> Any:
        return torch.zeros(6), -1


class Wide(Noisy):
    def __getitem__(self, place: int) -> Any:
        return torch.zeros(7), 0


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (Stream(), {}, "Stream is no data for training; give a torch Dataset with __len__"),
        (DataLoader(Stream()), {}, "a loader over a stream has no end"),
        (DataLoader(Noisy(0)), {}, "the loader gives no batches"),
        (Noisy(3), {}, "3 training images are fewer than one batch of 8"),
        (Noisy(), {"preset": PRESET.changed({"train_images": 50})}, "Noisy has 44 items, fewer than 50"),
        (DataLoader(Noisy()), {"preset": PRESET.changed({"train_images": 50})}, "leave out the limit of 50"),
        (Failing(), {}, r"an item of Failing cannot be made: KeyError: 'no such key' at .*test_own_data.py:\d+$"),
        (Failing(), {"workers": 1}, "an item of Failing cannot be made: KeyError: 'no such key'"),
        (DataLoader(Failing()), {}, "a batch of Failing cannot be made: KeyError"),
        (Triple(), {}, "an item of Triple is a list of 3; it has to be a pair"),
        (Words(), {}, "an item of Words holds no tensors"),
        (Third(), {}, "a label is 2, and the model gives 2 classes, whose labels are 0 to 1"),
        (Negative(), {}, "a label is -1, and the model gives 2 classes"),
        (Wide(), {}, r"the model does not take .*7|size 7 along axis 1"),
        (Noisy(), {"measure": Measure(lambda a, b: a.sum(1))}, r"<lambda> gives a tensor of 8 \(float32\), not one number"),
        (Noisy(), {"measure": Measure(lambda a, b: 1.0)}, "gives a float, not one number"),
        (Noisy(), {"measure": Measure(lambda a, b: b.float().sum())}, "does not depend on the model's weights"),
        (Noisy(), {"measure": Measure(lambda a, b: a.nothing)}, r"the loss <lambda> fails: AttributeError.*\.py:\d+$"),
        (Noisy(), {"measure": Measure(metric=lambda a, b: a)}, "the metric <lambda> gives a tensor of 8x2"),
        (
            Noisy(),
            {"measure": Measure(F.cross_entropy), "preset": PRESET.changed({"label_smoothing": 0.1})},
            "label_smoothing has no meaning for a loss of your own",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_from_is_one_line(
    data: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    preset = options.pop("preset", PRESET)
    with pytest.raises(InputError, match=message) as caught:
        train(rows_network(), data, Noisy(16), preset, tmp_path / "run", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / CHECKPOINT).exists()


def test_labels_of_images_are_looked_at_before_anything_is_learnt(tmp_path: Path) -> None:
    one = images()
    wrong = Images(one.name, one.pixels, one.labels + 1, one.mean, one.std)
    with pytest.raises(InputError, match="a label is 2, and the model gives 2 classes"):
        train(network(), wrong, wrong, PRESET, tmp_path)


def test_a_task_that_gives_no_scores_needs_a_metric(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a metric beside the loss"):
        train(adding(), Named(), Named(16), PRESET, tmp_path, measure=Measure(F.mse_loss))
    with pytest.raises(InputError, match="leave out --teacher"):
        train(adding(), Named(), Named(16), PRESET, tmp_path, measure=Measure(F.mse_loss, mean_error), teacher=adding())


def test_what_a_function_may_give() -> None:
    pair = (Noisy(), Noisy(3))
    assert task_of(pair, "f").training is pair[0]
    made = task_of({"training": pair[0], "test": pair[1], "classes": ["no", "yes"], "loss": F.mse_loss}, "f")
    assert made.classes == ("no", "yes") and made.measure.recorded() == {"loss": "mse_loss"}
    task = Task(*pair, metric=mean_error)
    assert task_of(task, "f") is task
    for given, message in (
        (TensorDataset(torch.zeros(3)), "'f' gives a TensorDataset; it has to give"),
        ({"training": pair[0]}, "the dict that 'f' gives has no 'test'"),
        (
            {"training": pair[0], "test": pair[1], "los": 1},
            "has 'los'; its keys are training, test, loss, metric, classes",
        ),
    ):
        with pytest.raises(InputError, match=message):
            task_of(given, "f")

"""A network made smaller step by step: what goes, who teaches, what decides, and that a kill changes nothing."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.driver.shrinking import shrink as loop
from reconvene.driver.shrinking.course import Course, Settings
from reconvene.driver.shrinking.judge import Judge
from reconvene.driver.shrinking.log import rows, write_log
from reconvene.driver.shrinking.shrink import Task, accuracy_on_tests, model_of, shrink
from reconvene.driver.shrinking.steps import SHRINKING_FILE, Step, open_steps, place_of
from reconvene.driver.training.hardware import Hardware
from reconvene.driver.training.loop import train
from reconvene.driver.training.presets import Preset
from reconvene.driver.training.tasks import CLASSIFICATION
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import dependency_view
from reconvene.passes.pruning.search.rewards import REWARDS
from reconvene.passes.pruning.search.settings import SearchSettings
from tests.driver.training.test_loop import images, killed_at

X = (torch.zeros(2, 3, 8, 8),)
PRESET = Preset(epochs=2, batch=16, rate=0.02, schedule="cosine", augment="none", temperature=2.0, teacher_share=0.75)
SETTINGS = Settings(
    Course(sparsity=0.4, step=0.2, images=16, held_out=0.25),
    SearchSettings(rounds=2, samples=3, noise=0.3),
    preset=PRESET,
)
BASELINES = ("uniform", "magnitude", "taylor", "latency", "knapsack")


@cache
def dense() -> CapturedModule:
    """A trained one, with a stream that two layers add into."""
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.first = nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10)
            self.inner, self.second = nn.Conv2d(10, 10, 3, padding=1), nn.BatchNorm2d(10)
            self.outer, self.head = nn.Conv2d(10, 10, 1), nn.Linear(10, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(self.stem(x)))
            x = torch.relu(x + self.outer(torch.relu(self.second(self.inner(x)))))
            return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    return capture(Network(), X, ({0: torch.export.Dim.DYNAMIC},))


def task(folder: Path, settings: Settings = SETTINGS, **more: Any) -> Task:
    return Task(dense(), X, images(96), images(32, 1), settings, folder, **more)


def with_rule(rule: str, **course: Any) -> Settings:
    return SETTINGS.changed({"rule": rule, **course})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, tuple[Step, ...]]:
    """In one go. Tests that change the folder take another."""
    made = task(tmp_path_factory.mktemp("shrinking") / "run")
    return made, tuple(shrink(made))


def weights(made: Task, step: Step) -> dict[str, torch.Tensor]:
    return dict(load_program(model_of(made.folder, step))[0].state_dict())


def same(first: tuple[Task, tuple[Step, ...]], second: tuple[Task, tuple[Step, ...]]) -> bool:
    for one, two in zip(first[1], second[1], strict=True):
        if one.distribution != two.distribution or one.after != two.after or one.widths != two.widths:
            return False
        pair = weights(first[0], one), weights(second[0], two)
        if pair[0].keys() != pair[1].keys() or any(not torch.equal(pair[0][name], pair[1][name]) for name in pair[0]):
            return False
    return True


def test_every_step_is_smaller_by_its_share_of_the_filters(done: tuple[Task, tuple[Step, ...]]) -> None:
    """30 filters: the stream's 10 channels are made by two layers. 6 go at each step."""
    made, steps = done
    assert [step.filters for step in steps] == [30, 24, 18]
    for step in steps:
        found = weights(made, step)
        stem, inner = step.widths["stem.weight"], step.widths["inner.weight"]
        assert 2 * stem + inner == step.filters
        assert found["stem.weight"].shape == (stem, 3, 3, 3) and found["inner.weight"].shape == (inner, stem, 3, 3)
        assert found["outer.weight"].shape == (stem, inner, 1, 1)
        view = dependency_view(canonicalize(load_program(model_of(made.folder, step))[0]))
        assert step.parameters == sum(value.numel() for value in view.module.parameters())
    assert steps[0].macs > steps[1].macs > steps[2].macs
    assert open_steps(made.folder) == steps


def test_the_distribution_is_one_and_goes_on_to_the_next_step(done: tuple[Task, tuple[Step, ...]]) -> None:
    _, steps = done
    for step in steps[1:]:
        assert sum(step.distribution.values()) == pytest.approx(1)
        assert step.distribution.keys() == {"stem.weight", "inner.weight"} and 1 <= step.asked <= 12
    assert steps[1].distribution["stem.weight"] != pytest.approx(2 / 3)


def test_what_was_scored_is_what_the_smaller_network_computes(done: tuple[Task, tuple[Step, ...]]) -> None:
    """The accuracy with masks before a removal is the removed network's."""
    view = dependency_view(canonicalize(dense()))
    masks = {"inner.weight": torch.arange(10) > 3, "inner.bias": torch.arange(10) > 3}
    masks |= {"second.weight": torch.arange(10) > 3, "second.bias": torch.arange(10) > 3}
    masks["inner.weight"] = masks["inner.weight"].reshape(10, 1, 1, 1).expand(10, 10, 3, 3)
    source = loop.source_of(images(200, 5), loop.Way(64), torch.device("cpu"))
    judge = Judge(view.module, Hardware(), CLASSIFICATION)
    whole = judge(source)
    with_masks = judge(source, masks)
    small = Judge(compact(dense(), X, masks).module, Hardware(), CLASSIFICATION)
    assert with_masks == small(source) and judge(source) == whole


@pytest.mark.parametrize("moment", [3, 9, 14])
def test_a_killed_shrinking_goes_on_to_the_same_bits(
    moment: int, done: tuple[Task, tuple[Step, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine optimizer's steps to each step: in the middle of both trainings, and between two epochs."""
    made = task(tmp_path / "run", checkpoint_every=2)
    with killed_at(moment, monkeypatch):
        tuple(shrink(made))
    assert same(done, (made, tuple(shrink(made))))


class Stopped(BaseException):
    """Stands for a kill."""


ONE_STEP = SETTINGS.changed({"sparsity": 0.2, "epochs": 1})


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, tuple[Step, ...]]:
    """One step."""
    made = task(tmp_path_factory.mktemp("shrinking") / "once", ONE_STEP)
    return made, tuple(shrink(made))


@pytest.mark.parametrize("call", range(1, 8))
def test_killed_before_any_file_it_goes_on_to_the_same_bits(
    call: int, once: tuple[Task, tuple[Step, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a shrinking are written one after the other; before each of them it may end."""
    made, calls = task(tmp_path / "run", ONE_STEP), [0]
    with monkeypatch.context() as patch:
        for name in ("save_program", "write_text", "write_step"):
            real = getattr(loop, name)

            def counted(*args: Any, real: Any = real, **more: Any) -> Any:
                calls[0] += 1
                if calls[0] == call:
                    raise Stopped
                return real(*args, **more)

            patch.setattr(loop, name, counted)
        try:
            tuple(shrink(made))
        except Stopped:
            pass
        else:
            assert calls[0] < call == 7, "more files are written than this test stops before"
    assert same(once, (made, tuple(shrink(made))))


def test_what_is_decided_is_not_searched_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: tuple[Task, tuple[Step, ...]]
) -> None:
    made = task(tmp_path / "run", ONE_STEP, checkpoint_every=2)
    with killed_at(3, monkeypatch):
        tuple(shrink(made))
    calls: list[int] = []
    real = loop.allotted
    monkeypatch.setattr(loop, "allotted", lambda *args: (calls.append(1), real(*args))[1])
    assert same(once, (made, tuple(shrink(made)))) and calls == []
    files = {path.relative_to(place_of(made.folder, 1)).as_posix() for path in place_of(made.folder, 1).rglob("*.*")}
    assert files == {"model.pt2", "step.json", "training/log.csv", "training/log.json"}
    tuple(shrink(made))
    assert calls == []


def test_nothing_is_decided_on_the_test_images(tmp_path: Path, once: tuple[Task, tuple[Step, ...]]) -> None:
    made, steps = once
    other = Task(dense(), X, images(96), images(40, 9), ONE_STEP, tmp_path / "run")
    assert same(once, (other, tuple(shrink(other))))
    module, _ = load_program(model_of(made.folder, steps[-1]))
    with torch.no_grad():
        right = (module.eval()(images(32, 1).batch()).argmax(1).numpy() == images(32, 1).labels).mean()
    assert accuracy_on_tests(made, steps[-1]) == pytest.approx(right)


def test_the_search_trains_on_none_of_what_it_is_judged_by() -> None:
    from reconvene.driver.shrinking.held_out import calibration, split

    everything = images(40)
    rest, held = split(everything, 0.25)
    assert (len(rest), len(held)) == (30, 10)  # type: ignore[arg-type]
    whole = {picture.tobytes() for picture in everything.pixels}
    parts = [{picture.tobytes() for picture in part.pixels} for part in (rest, held)]  # type: ignore[union-attr]
    assert parts[0] | parts[1] == whole and not parts[0] & parts[1]
    ((inputs, labels),) = calibration(rest, 10, 0)
    assert len(inputs[0]) == 10 and np.bincount(labels.numpy()).tolist() == [5, 5]
    pairs = torch.utils.data.TensorDataset(torch.zeros(40, 3), torch.zeros(40, dtype=torch.long))
    rest, held = split(pairs, 0.25)
    assert set(rest.indices) | set(held.indices) == set(range(40)) and len(held) == 10  # type: ignore[union-attr, arg-type]
    with pytest.raises(InputError, match="a loader cannot be split"):
        split(torch.utils.data.DataLoader(pairs), 0.5)
    with pytest.raises(InputError, match="leaves none"):
        split(images(4), 0.01)


@pytest.mark.parametrize("rule", BASELINES)
def test_what_it_is_compared_with_trains_for_as_many_epochs(rule: str, tmp_path: Path) -> None:
    made = task(tmp_path / "run", with_rule(rule), target="rpi4")
    steps = tuple(shrink(made))
    logs = [json.loads(path.read_text())["rows"] for path in sorted(made.folder.glob("step-*/training/log.json"))]
    assert sum(map(len, logs)) == 2 * PRESET.epochs
    assert len(steps) == (2 if rule in ("taylor", "latency", "knapsack") else 3)
    assert steps[-1].latency < steps[0].latency and all(step.asked == 0 for step in steps)  # type: ignore[operator]
    if rule in ("uniform", "taylor"):
        assert 18 <= steps[-1].filters <= 19
    if rule == "uniform":
        assert steps[-1].widths == {"stem.weight": 6, "inner.weight": 6}


def test_a_network_by_times_takes_no_longer_than_that_of_equal_shares(tmp_path: Path) -> None:
    both = {}
    for rule in ("uniform", "knapsack", "latency"):
        made = task(tmp_path / rule, with_rule(rule), target="rpi4")
        both[rule] = tuple(shrink(made))[-1]
    for rule in ("knapsack", "latency"):
        assert both[rule].latency <= both["uniform"].latency * (1 + 1e-9)  # type: ignore[operator]


def test_a_reward_of_latency_counts_the_target_s_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy being the same for all, what saves most time is taken: the wider stream goes, which costs more."""
    import dataclasses

    monkeypatch.setattr(Judge, "__call__", lambda *_: 0.5)
    monkeypatch.setattr(
        loop._Run, "_layer_times", lambda self: lambda name, i, o: float(o) if name == "inner.weight" else 0.0
    )
    settings = dataclasses.replace(SETTINGS, reward=REWARDS["latency"]).changed(
        {"explore": 0, "rounds": 6, "samples": 8}
    )
    steps = tuple(shrink(task(tmp_path / "run", settings, target="rpi4")))
    assert steps[-1].widths == {"stem.weight": 9, "inner.weight": 1} or steps[1].widths["inner.weight"] <= 6
    assert steps[-1].latency == steps[-1].widths["inner.weight"]


def test_a_teacher_is_replaced_when_it_is_beaten(done: tuple[Task, tuple[Step, ...]]) -> None:
    _, steps = done
    accuracy: dict[int | None, float] = {None: steps[0].after}
    teacher = None
    for step in steps[1:]:
        accuracy[step.number] = step.after
        teacher = step.number if step.after > accuracy[teacher] else teacher
        assert step.teacher == teacher
    assert steps[-1].teacher is not None, "the dense network is untrained here, so it is beaten"


def test_a_fall_of_accuracy_makes_the_search_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Judge.__call__
    monkeypatch.setattr(Judge, "__call__", lambda self, source, masks=None: 0.1 if masks else real(self, source))
    assert [step.reset for step in shrink(task(tmp_path / "run", ONE_STEP))] == [False, True]
    monkeypatch.setattr(Judge, "__call__", lambda self, source, masks=None: 0.5)
    assert [step.reset for step in shrink(task(tmp_path / "even", ONE_STEP))] == [False] * 2


def test_layers_that_stay_whole_and_floors(tmp_path: Path) -> None:
    """The inner layer is left alone, and the stream may lose one channel: two filters."""
    settings = SETTINGS.changed({"ignore": "inner", "minimum": 9})
    steps = shrink(task(tmp_path / "run", settings))
    assert next(steps).filters == 20
    step = next(steps)
    assert step.widths == {"stem.weight": 9, "inner.weight": 10} and step.filters == 18


def test_the_log_tells_every_step(tmp_path: Path, done: tuple[Task, tuple[Step, ...]]) -> None:
    _, steps = done
    write_log(tmp_path, steps, {"seed": 0})
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[0].startswith("step,filters,macs,parameters,before,pruned,after")
    log = json.loads((tmp_path / "log.json").read_text())
    assert [step["widths"] for step in log["steps"]] == [dict(step.widths) for step in steps]
    assert "inner.weight" in (tmp_path / "steps.html").read_text()
    assert [row["filters"] for row in rows(steps)] == [30, 24, 18] and "latency" not in rows(steps)[0]


def test_another_shrinking_s_folder_is_refused(tmp_path: Path, done: tuple[Task, tuple[Step, ...]]) -> None:
    made, _ = done
    for more in ({"seed": 1}, {"settings": SETTINGS.changed({"noise": 0.1})}, {"target": "rpi4"}):
        with pytest.raises(InputError, match="another model, data or settings"):
            shrink(Task(dense(), X, images(96), images(32, 1), **{"settings": SETTINGS, "folder": made.folder, **more}))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not empty and holds no shrinking"):
        shrink(task(tmp_path))
    with pytest.raises(InputError, match="holds no shrinking"):
        open_steps(tmp_path)


@pytest.mark.parametrize("damage", ["{", "{}", '{"number": 0, "filters": -1}'])
def test_damaged_files_are_named(damage: str, tmp_path: Path) -> None:
    made = task(tmp_path / "run")
    next(shrink(made))
    (place_of(made.folder, 0) / "step.json").write_text(damage)
    with pytest.raises(InputError, match=r"step\.json' is damaged"):
        next(shrink(made))
    (made.folder / SHRINKING_FILE).write_text(damage)
    with pytest.raises(InputError, match="damaged"):
        shrink(made)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rule": "best"}, "choose one of rl-pruner, uniform"), ({"sparsity": 1.0}, "sparsity 1.0"), ({"step": 0}, "step 0"),
        ({"stp": 1}, "there is no setting 'stp'"), ({"fall": 2}, "fall 2"), ({"images": 0}, "0 images"),
        ({"rounds": 0}, "rounds 0"), ({"latency": -1}, "weight of latency"), ({"epochs": 0}, "train nothing"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        SETTINGS.changed(changes)
    assert "\n" not in str(caught.value)


def test_times_need_a_target(tmp_path: Path) -> None:
    for settings in (with_rule("knapsack"), SETTINGS.changed({"latency": 0.25})):
        with pytest.raises(InputError, match="name one, such as rpi4"):
            shrink(task(tmp_path / "run", settings))


def test_more_than_there_is_ends_with_a_line_and_keeps_what_is_done(tmp_path: Path) -> None:
    settings = SETTINGS.changed({"sparsity": 0.9, "step": 0.4, "minimum": 9})
    with pytest.raises(InputError, match="no layer has channels left that could go"):
        tuple(shrink(task(tmp_path / "run", settings)))
    assert len(open_steps(tmp_path / "run")) == 2


def test_steps_add_up_to_the_share() -> None:
    course = Course(sparsity=0.6, step=0.01)
    assert course.steps == 60 and [course.gone(step, 784) for step in (0, 1, 30, 60)] == [0, 7, 235, 470]
    assert Course(sparsity=0.5, step=0.2).steps == 3 and Course(sparsity=0.5, step=0.2).gone(3, 10) == 5
    once = Settings(Course(rule="taylor", sparsity=0.5, step=0.1), preset=PRESET)
    assert once.course.steps == 1 and once.training.epochs == 5 * PRESET.epochs


def test_a_trained_network_keeps_its_accuracy(tmp_path: Path) -> None:
    """The whole of it on images that a network can learn: 40 % of the filters go, and it is right as before."""
    trained = train(
        dense(), images(96), images(32, 1), Preset(epochs=8, batch=16, rate=0.05, augment="none"), tmp_path / "d"
    )
    assert isinstance(trained.module, CapturedModule) and trained.score > 0.9
    made = Task(trained.module, X, images(96), images(32, 1), SETTINGS, tmp_path / "run")
    steps = tuple(shrink(made))
    assert accuracy_on_tests(made, steps[-1]) > 0.9

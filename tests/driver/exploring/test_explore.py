"""From a network to its front: budgets are met, refusals have reasons, and a kill changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.machines.targets import find_target
from reconvene.backends.network_times import network_times
from reconvene.driver.exploring import run
from reconvene.driver.exploring.figures import figures_of
from reconvene.driver.exploring.ground import Choice, Ground
from reconvene.driver.exploring.record import LOG, Refusal
from reconvene.driver.exploring.result import Exploration
from reconvene.driver.exploring.run import Task, explored
from reconvene.driver.exploring.settings import Settings
from reconvene.driver.exploring.telling import Teller, Told
from reconvene.driver.training.hardware import Hardware
from reconvene.driver.training.loop import train
from reconvene.driver.training.presets import Preset
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program, read_program
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.pruning.methods.gradual import Gradual
from reconvene.passes.pruning.search.settings import SearchSettings
from reconvene.passes.pruning.search.structure_search import StructureSearch
from reconvene.passes.pruning.structure_plan import StructurePlan
from tests.driver.training.test_loop import images, killed_at

X = (torch.zeros(2, 3, 8, 8),)
ONE = (torch.zeros(1, 3, 8, 8),)
PRESET = Preset(epochs=2, batch=16, rate=0.02, schedule="cosine", augment="none")
SETTINGS = Settings((0.7, 0.1), ("channels", "row-block:4", "mapped"), PRESET, told_by="model")
ONCE = Settings((0.7,), ("channels", "row-block:4"), PRESET, told_by="model")
NAMES = ["dense", "channels-0.7", "row-block-4-0.7", "mapped-0.7"]


@cache
def dense() -> CapturedModule:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip
    return capture(model, X, ({0: torch.export.Dim.DYNAMIC},))


def task(folder: Path, settings: Settings = SETTINGS, **more: Any) -> Task:
    machine = Hardware(threads=1)
    return Task(dense(), X, images(64), images(32, 1), settings, folder, find_target("rpi4"), machine=machine, **more)


def uncompiled(self: Teller, module: CapturedModule, one: Any, place: Path) -> Told:
    """In place of a compilation of seconds: multiply-accumulates are the time."""
    figures = figures_of(module)
    return Told(4 * figures.parameters, float(figures.needed_macs))


@cache
def found_at_once(kind: str) -> Choice:
    """In place of a search of seconds."""
    if kind != "channels":
        return Choice(0.6, "half of it", structures={"3.weight": f"{kind}@0.5"})
    masks = {name: torch.arange(16) % 2 > 0 for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    small = compact(dense(), X, masks).module
    assert isinstance(small, CapturedModule)
    return Choice(0.6, "half of it", small)


@contextmanager
def at_once() -> Iterator[None]:
    """Nothing is searched for or compiled: what is tested is what is done with it, in which order, and what is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Teller, "compiled", uncompiled)
        patch.setattr(Ground, "share_of", lambda self, module: 0.6)
        patch.setattr(run, "finder", lambda _: lambda ground, kind, budget: found_at_once(kind))
        yield


@pytest.fixture
def quick() -> Iterator[None]:
    with at_once():
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Exploration:
    """In one go, with the real times of the search. Tests that change the folder take another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Teller, "compiled", uncompiled)
        return explored(task(tmp_path_factory.mktemp("exploring") / "run"))


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Exploration:
    """One budget."""
    with at_once():
        return explored(task(tmp_path_factory.mktemp("exploring") / "once", ONCE))


def weights(found: Exploration, name: str) -> dict[str, torch.Tensor]:
    return dict(load_program(found.model(name))[0].state_dict())


def same(first: Exploration, second: Exploration) -> bool:
    if first.variants != second.variants or first.refusals != second.refusals:
        return False
    for variant in first.variants:
        one, two = weights(first, variant.name), weights(second, variant.name)
        if one.keys() != two.keys() or any(not torch.equal(one[name], two[name]) for name in one):
            return False
    return True


def test_every_variant_meets_its_budget(done: Exploration) -> None:
    """By the times of the whole network, of the file that is left."""
    whole = network_times(canonicalize(dense()), ONE, "rpi4")({}).total
    assert [variant.name for variant in done.variants] == NAMES and done.dense.reached == 1
    for variant in done.variants[1:]:
        module, _ = load_program(done.model(variant.name))
        share = network_times(canonicalize(module), ONE, "rpi4")({}).total / whole
        assert share <= 0.7 and share == pytest.approx(variant.reached, abs=1e-6), variant.name


def test_what_is_lost_is_what_the_kind_says(done: Exploration) -> None:
    by_kind = {variant.kind: variant for variant in done.variants}
    whole = by_kind["dense"]
    assert by_kind["channels"].parameters < whole.parameters == by_kind["mapped"].parameters == 2866
    assert by_kind["channels"].zeros == 0 and by_kind["channels"].macs == by_kind["channels"].needed_macs
    for kind in ("row-block:4", "mapped"):
        variant = by_kind[kind]
        weight = weights(done, variant.name)["3.weight"]
        missing = int((weight == 0).sum())
        assert variant.zeros == pytest.approx(missing / (27 * 16 + 9 * 256 + 32)) and missing > 1000
        assert whole.needed_macs - variant.needed_macs == 64 * missing and variant.macs == whole.macs == 175_136
    blocks = (weights(done, "row-block-4-0.7")["3.weight"].reshape(4, 4, 16 * 9) == 0).sum(1)
    assert set(blocks.unique().tolist()) == {0, 4}


def test_what_cannot_be_reached_is_told_with_how_near_one_comes(done: Exploration) -> None:
    assert [(refusal.kind, refusal.budget) for refusal in done.refusals] == [
        ("channels", 0.1), ("row-block:4", 0.1), ("mapped", 0.1)
    ]  # fmt: skip
    assert "nothing that was tried takes 0.1 of the dense network's time" in done.refusals[0].reason
    assert "latency 0.1 cannot be reached by zeros" in done.refusals[1].reason
    assert not done.model("channels-0.1").exists()


def test_files_say_how_they_came_about(done: Exploration) -> None:
    stored = read_program(done.model("mapped-0.7"))
    assert stored.origin is not None and (stored.origin["variant"], stored.origin["budget"]) == ("mapped", 0.7)
    assert stored.certificate is not None and stored.compute is not None
    assert stored.compute.macs == stored.compute.dense_macs
    small = read_program(done.model("channels-0.7")).compute
    assert small is not None and small.dense_macs == stored.compute.dense_macs > small.macs
    plan = StructurePlan.load(done.folder / "mapped-0.7" / "plan.json")
    assert set(plan) == {"3.weight"} and plan.target == "rpi4"
    assert not (done.folder / "mapped-0.7" / "training" / "checkpoint.safetensors").exists()


def test_the_page_and_the_file_have_all_of_it(done: Exploration) -> None:
    page, said = (done.folder / "front.html").read_text(), json.loads((done.folder / "front.json").read_text())
    assert said == done.to_dict() and [one["name"] for one in said["variants"]] == NAMES
    assert [one["front"] for one in said["variants"]] == [one.name in done.front for one in done.variants]
    for variant in done.variants:
        assert variant.told in page and f">{variant.kind}<" in page
    assert "Budgets that were not reached" in page and "nothing that was tried takes 0.1" in page and "rpi4" in page
    assert "<script src" not in page and "http-equiv" not in page
    lines = (done.folder / LOG).read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == NAMES


@pytest.mark.parametrize("moment", [3, 5, 11])
@pytest.mark.usefixtures("quick")
def test_a_killed_exploration_goes_on_to_the_same_bits(
    moment: int, once: Exploration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight optimizer's steps to each variant: in the middle of both trainings, and at the begin of an epoch."""
    made = task(tmp_path / "run", ONCE, checkpoint_every=2)
    with killed_at(moment, monkeypatch):
        explored(made)
    assert same(once, explored(made))


class Stopped(BaseException):
    """Stands for a kill."""


WRITES = ("save_program", "write_decision", "append", "write_text")


@pytest.mark.parametrize("call", range(1, 13))
@pytest.mark.usefixtures("quick")
def test_killed_before_any_file_it_goes_on_to_the_same_bits(
    call: int, once: Exploration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of an exploration are written one after the other; before each of them it may end."""
    made, calls = task(tmp_path / "run", ONCE), [0]
    with monkeypatch.context() as patch:
        for name in WRITES:
            real = getattr(run, name)

            def counted(*args: Any, real: Any = real, **more: Any) -> Any:
                calls[0] += 1
                if calls[0] == call:
                    raise Stopped
                return real(*args, **more)

            patch.setattr(run, name, counted)
        try:
            explored(made)
        except Stopped:
            pass
        else:
            assert calls[0] < call == 12, "more files are written than this test stops before"
    assert same(once, explored(made))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("slower", [False, True])
def test_channels_stay_where_a_network_is_slower_without_them(
    slower: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every other channel of the first layer were zero after the training."""
    whole = figures_of(dense()).parameters

    def share_of(self: Ground, module: CapturedModule) -> float:
        fewer = figures_of(canonicalize(module)).parameters < whole
        return 0.65 if fewer and slower else 0.6 if fewer else 0.62

    masks = {name: torch.arange(16) % 2 > 0 for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    monkeypatch.setattr(Ground, "share_of", share_of)
    monkeypatch.setattr(run, "compact", lambda trained, inputs, origin: compact(trained, inputs, masks))
    found = explored(task(tmp_path / "run", replace(ONCE, variants=("row-block:4",))))
    (variant,) = found.variants[1:]
    module, _ = load_program(found.model(variant.name))
    assert variant.reached == (0.62 if slower else 0.6)
    assert (figures_of(module).parameters < whole) != slower


@pytest.mark.usefixtures("quick")
def test_a_log_that_was_cut_short_loses_one_variant(once: Exploration, tmp_path: Path) -> None:
    made = task(tmp_path / "run", ONCE)
    explored(made)
    log = made.folder / LOG
    log.write_bytes(log.read_bytes()[:-9])
    (made.folder / "row-block-4-0.7" / "model.pt2").unlink()
    assert same(once, explored(made))
    assert len(log.read_text().splitlines()) == 3


@pytest.mark.usefixtures("quick")
def test_what_is_done_is_neither_searched_for_nor_trained_again(
    once: Exploration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "train", None)
    monkeypatch.setattr(run, "finder", None)
    assert same(once, explored(task(once.folder, ONCE)))


@pytest.mark.usefixtures("quick")
def test_the_method_and_the_teacher_that_were_named_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings((0.7,), ("row-block:4",), PRESET, Gradual(until=0.5, every=2), told_by="model")
    teachers: list[Any] = []

    def watched(*args: Any, **more: Any) -> Any:
        teachers.append(more["teacher"])
        return train(*args, **more)

    monkeypatch.setattr(run, "train", watched)
    found = explored(task(tmp_path / "run", settings, teacher=dense()))
    assert len(teachers) == 1 and teachers[0] is dense()
    log = json.loads((found.folder / "row-block-4-0.7" / "training" / "log.json").read_text())
    assert log["settings"]["method"]["name"] == "gradual" and log["rows"][-1]["sparsity"] == 0.5
    with pytest.raises(InputError, match="another model, data, target or settings"):
        explored(task(tmp_path / "run", settings))


def test_on_the_host_all_are_measured_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled, run, and timed once: what was measured stays."""
    options: dict[str, Any] = {"variants": ["row-block:4"], "preset": PRESET}
    model, folder = dense(), tmp_path / "run"
    found = reconvene.explore(model, X, images(96), images(32, 1), folder, "host", [0.8], **options)
    assert (found.told_by, found.unit, found.target) == ("time", "ms", "host")
    assert [variant.name for variant in found.variants] == ["dense", "row-block-4-0.8"]
    assert all(variant.time is not None and variant.time > 0 and variant.bytes > 0 for variant in found.variants)
    assert (folder / "row-block-4-0.8" / "bundle" / "manifest.json").is_file()
    assert reconvene.explore(model, X, images(96), images(32, 1), folder, "host", [0.8], **options) == found


@pytest.mark.usefixtures("quick")
def test_another_s_folder_is_refused(once: Exploration, tmp_path: Path) -> None:
    for more in ({"seed": 1}, {"settings": SETTINGS}, {"target": find_target("rpi5")}):
        given: dict[str, Any] = {"settings": ONCE, "target": find_target("rpi4"), **more}
        with pytest.raises(InputError, match="another model, data, target or settings"):
            explored(replace(task(once.folder), **given))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not empty and holds no exploration"):
        explored(task(tmp_path, ONCE))


@pytest.mark.parametrize("name", ["exploration.json", LOG, "channels-0.7/decision.json"])
@pytest.mark.parametrize("damage", ["{\n", "[]\n", '{"name": "dense", "reached": 1}\n'])
@pytest.mark.usefixtures("quick")
def test_damaged_files_are_named(name: str, damage: str, once: Exploration, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(once.folder, folder)
    (folder / name).write_text(damage)
    with pytest.raises(InputError, match="is damaged") as caught:
        explored(task(folder, ONCE))
    assert "\n" not in str(caught.value) and Path(name).name in str(caught.value)


def test_a_refusal_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconvene.driver.exploring.record import decided, write_decision

    write_decision(tmp_path, Refusal("channels", 0.1, "no widths"))
    assert decided(tmp_path, "channels", 0.1) == Refusal("channels", 0.1, "no widths")
    assert decided(tmp_path / "none", "channels", 0.1) is None


def test_a_search_looks_at_images_that_are_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Teller, "compiled", uncompiled)
    few = StructureSearch(choices=3, settings=SearchSettings(rounds=1, samples=2))
    settings = Settings((0.7,), ("searched",), PRESET, structure_search=few, told_by="model")
    found = explored(task(tmp_path / "run", settings))
    assert [variant.name for variant in found.variants] == ["dense", "searched-0.7"] and found.variants[
        1
    ].reached <= 0.7
    plan = StructurePlan.load(found.folder / "searched-0.7" / "plan.json")
    assert plan.made["on"] == "6 images held out of training" and found.variants[1].zeros > 0.3
    assert found.settings["structure_search"]["choices"] == 3

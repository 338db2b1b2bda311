"""Trainings by turns in one process: what they give, that they stop in time, and that they go on to the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from training_kills import write_images

from reconvene.driver import runs as one_by_one
from reconvene.driver import side_by_side as module
from reconvene.driver.runs import Environment, Run, run_one
from reconvene.driver.side_by_side import side_by_side
from reconvene.driver.sweep import grid, sweep
from reconvene.driver.training.hardware import Hardware
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning import baselines
from reconvene.passes.pruning.methods.base import TrainingMethod

METHODS = [("dense", "magnitude"), ("upai", "magnitude"), ("uniform", "magnitude")]
SETTINGS = (("batch", 16), ("epochs", 2), ("test_images", 0), ("train_images", 0))


@pytest.fixture
def place(tmp_path: Path) -> Environment:
    write_images(tmp_path / "data", count=16)
    return Environment(tmp_path / "work", tmp_path / "data", Hardware(threads=1))


class Here(Executor):
    """Prunes at once, in this process, and every network once: neither makes a difference."""

    pruned: ClassVar[dict[Run, Any]] = {}

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        if given[0] not in self.pruned:
            self.pruned[given[0]] = work(*given, **named)
        done.set_result(self.pruned[given[0]])
        return done


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def pruners() -> Iterator[Executor]:
        yield Here()

    monkeypatch.setattr(module, "_pruners", pruners)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights of every training that ended, in that order."""
    found: list[dict[str, torch.Tensor]] = []
    real = module._ended

    def ended(training: Any) -> Any:
        done = real(training)
        found.append({name: value.clone() for name, value in done.module.state_dict().items()})
        return done

    monkeypatch.setattr(module, "_ended", ended)
    return found


def runs(*methods: tuple[str, str]) -> tuple[Run, ...]:
    return grid(
        methods, [0.8], [0], model="resnet20", width=0.25, dataset="cifar10", preset="smoke", settings=SETTINGS
    )  # fmt: skip


def told(line: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the clock."""
    return {name: value for name, value in line.items() if "seconds" not in name and name != "latency_ms"}


def test_the_lines_are_those_of_one_after_the_other(
    place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, others = runs(*METHODS[1:]), set(module.active_children())
    place.work.mkdir()
    found = sweep(wanted, tmp_path / "r.jsonl", place, engine="side-by-side", workers=2)
    # What has given its line needs no checkpoint any more, and processes that prune end.
    assert not list(place.work.iterdir()) and not set(module.active_children()) - others
    monkeypatch.setattr(one_by_one, "_latency", lambda *_: {"eager": 1.0})
    assert list(map(told, found)) == [told(run_one(run, place)) for run in wanted]


@pytest.mark.usefixtures("here")
def test_stopped_again_and_again_they_end_in_the_same_bits(
    place: Environment, networks: list[dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = runs(METHODS[1], METHODS[2])
    whole = [told(line) for line in side_by_side(wanted, replace(place, work=place.work / "whole"), 2)]
    expected = list(networks)
    networks.clear()
    clock = iter(range(10**6))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    lines: list[dict[str, Any]] = []
    calls = 0
    while len(lines) < len(wanted):
        left = [run for run in wanted if run.key not in {line["key"] for line in lines}]
        lines += side_by_side(left, replace(place, seconds=9.0), 2)
        calls += 1
        assert len(list(place.work.glob("*/checkpoint.safetensors"))) == len(wanted) - len(lines)
    assert calls == 3
    assert sorted(map(told, lines), key=str) == sorted(whole, key=str)
    by_size = [
        sorted(found, key=lambda network: sum(map(torch.numel, network.values()))) for found in (expected, networks)
    ]
    for first, second in zip(*by_size, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("here")
def test_what_was_begun_goes_first(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, masked = runs(*METHODS[:2])
    with monkeypatch.context() as patch:
        clock = iter(range(10**6))
        patch.setattr(module.time, "monotonic", lambda: float(next(clock)))
        assert not list(side_by_side([masked], replace(place, seconds=3.0), 1))
    assert next(side_by_side([dense, masked], place, 1))["method"] == "upai"


@pytest.mark.usefixtures("here")
def test_methods_that_train_are_not_for_it(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "BASELINES", {"trained": baselines.made_by(TrainingMethod())})
    with pytest.raises(InputError, match="trained finds its zeros in training"):
        list(side_by_side(runs(("trained", "magnitude")), place, 1))


@pytest.mark.usefixtures("here")
def test_the_others_are_saved_when_one_fails(place: Environment) -> None:
    good, bad = runs(("dense", "magnitude"), ("uniform", "magnitude"))
    bad = replace(bad, settings=(*SETTINGS, ("rate", "1e30")))
    with pytest.raises(InputError, match="smaller rate"):
        list(side_by_side([good, bad], place, 2))
    assert (place.work / good.key / "checkpoint.safetensors").exists()
    assert not (place.work / bad.key / "checkpoint.safetensors").exists()


def test_only_this_engine_stops(place: Environment, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the engine processes stops when all is done"):
        sweep(runs(*METHODS), tmp_path / "r.jsonl", replace(place, seconds=1.0))

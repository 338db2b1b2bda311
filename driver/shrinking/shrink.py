"""The loop: a little goes, the rest is trained with a teacher, and so on. Killed at any moment, it ends in the same bits."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import parse_json
from ...frontend.base.progress import stage
from ...frontend.data.facts import DataFacts
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import load_program, save_program
from ...passes.canonicalize import canonicalize
from ...passes.compaction import compact
from ...passes.dependency import DependencyView, dependency_view
from ...passes.pruning.latency import LayerTime
from ...passes.pruning.scores import Evidence
from ...passes.pruning.search.channel_parts import ChannelParts
from ...passes.pruning.search.parts import total
from ...passes.pruning.trial import Trial, tried
from ...passes.sizes import total_size
from ..training.checkpoint import fingerprint
from ..training.hardware import Hardware, computing
from ..training.loop import CHECKPOINT, train
from ..training.sources import Data, Source, Way, recorded_data, source_of
from ..training.tasks import CLASSIFICATION, Measure
from .allotting import Allotted, Ground, allotted, costs_of, parts_of
from .course import Settings
from .held_out import calibration, split
from .judge import Judge
from .steps import MODEL, Step, claim, finished, place_of, write_step

__all__ = ["Task", "accuracy_on_tests", "model_of", "shrink"]

_DECISION, _PRUNED, _TRAINING = "decision.json", "pruned.pt2", "training"
_HERE = Hardware()
_TEST_BATCH = 256


@dataclass(frozen=True)
class Task:
    """What is made smaller, how, on what, and where.

    Attributes:
        module: a captured and trained classifier; it is left as it was.
        inputs: that fit it.
        training: images to train on, of which some are held out; or a ``Dataset`` of pairs of inputs and target.
        test: what `accuracy_on_tests` measures accuracy on; nothing is decided by it.
        settings: rule, steps, search, reward and training.
        folder: gets ``shrinking.json`` and a folder a step.
        target: whose layers' times count, where the rule or the reward asks for times; else they are only told.
        teacher: that the first steps learn from; None: the network as it came.
        machine: where and how to compute.
        seed: of everything that is random.
        measure: loss and metric; the metric is to be large.
        workers: processes that make the items of a ``Dataset``.
        facts: what the models' files are to say of the data.
        checkpoint_every: steps of a training between checkpoints.
    """

    module: CapturedModule = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    training: Data = field(repr=False)
    test: Data = field(repr=False)
    settings: Settings
    folder: Path
    target: str | None = None
    teacher: CapturedModule | None = field(default=None, repr=False)
    machine: Hardware = _HERE
    seed: int = 0
    measure: Measure = CLASSIFICATION
    workers: int = 0
    facts: DataFacts | None = None
    checkpoint_every: int = 100


def shrink(task: Task) -> Iterator[Step]:
    """Makes step after step and gives each as it is done, the first being the network as it came.

    Raises:
        InputError: an option is not usable, the folder holds another shrinking, or no layer has anything left that could go;
            steps that are done stay.
        CheckError: a smaller network differs from the masked one.
    """
    settings = task.settings
    settings.check()
    if settings.needs_target and task.target is None:
        raise InputError("times count, and there is no target; name one, such as rpi4 or host")
    if settings.preset.label_smoothing and task.measure.loss is not None:
        raise InputError("label_smoothing has no meaning for a loss of your own; leave it out")
    device = task.machine.checked()
    rest, held = split(task.training, settings.course.held_out)
    way = Way(_TEST_BATCH, workers=task.workers)
    candidates = source_of(held, dataclasses.replace(way, count=settings.course.candidate_images), device)
    data = _Split(rest, held, source_of(held, way, device), candidates)
    recorded = {
        **settings.recorded(),
        **asdict(task.machine),
        "seed": task.seed,
        "data": recorded_data(task.training),
        "target": task.target,
        **task.measure.recorded(),
    }
    if task.teacher is not None:
        recorded["teacher"] = fingerprint({}, task.teacher, {})
    claim(task.folder, fingerprint(recorded, task.module, {}), recorded)
    return _Run(task, data).steps()


def model_of(folder: Path, step: Step) -> Path:
    """The file of a step's network."""
    return place_of(folder, step.number) / MODEL


def accuracy_on_tests(task: Task, step: Step) -> float:
    """Accuracy of a step's network on the test images, 0..1, or another metric."""
    module, _ = load_program(model_of(task.folder, step))
    device = task.machine.checked()
    way = Way(_TEST_BATCH, task.settings.preset.test_images, workers=task.workers)
    with stage("testing"), computing(task.machine, device):
        return Judge(module, task.machine, task.measure)(source_of(task.test, way, device))


@dataclass(frozen=True, eq=False)
class _Split:
    """Data, of which some are held out."""

    rest: Data
    held: Data
    all_held: Source
    candidates: Source
    """Some of those that are held out."""


@dataclass(frozen=True, eq=False)
class _Chosen:
    """What goes at a step, tried: all of it can."""

    parts: ChannelParts
    allotted: Allotted
    trial: Trial
    held: Mapping[str, str]


class _Run:
    """A shrinking under way."""

    def __init__(self, task: Task, data: _Split) -> None:
        self.task, self.data, self.settings = task, data, task.settings
        self._of_teacher: float | None = None
        self.time = self._layer_times()

    def steps(self) -> Iterator[Step]:
        with computing(self.task.machine, self.task.machine.checked()):
            first = step = finished(self.task.folder, 0) or self._first()
        yield step
        for number in range(1, self.settings.course.steps + 1):
            step = finished(self.task.folder, number) or self._made(first, step)
            yield step

    def _first(self) -> Step:
        """The network as it came."""
        task, place = self.task, place_of(self.task.folder, 0)
        place.mkdir(exist_ok=True)
        save_program(task.module, task.inputs, place / MODEL, data=task.facts)
        _, view = self._loaded(0)
        parts = self._parts(view, {})
        size, costs = total_size(view, view.module), costs_of(view, (), self.time)
        accuracy = self._judge(view)(self.data.all_held)
        step = Step(
            0, total(parts.parts()), size.macs, size.parameters, accuracy, accuracy, accuracy,
            latency=costs.latency if self.time else None, widths=_widths(view),
        )  # fmt: skip
        write_step(task.folder, step)
        return step

    def _made(self, first: Step, before: Step) -> Step:
        place = place_of(self.task.folder, before.number + 1)
        place.mkdir(exist_ok=True)
        decided = _decided(place) or self._decide(first, before, place)
        pruned, _ = load_program(place / _PRUNED)
        if decided.filters == before.filters:
            shutil.copyfile(place / _PRUNED, place / MODEL)
            step = decided
        else:
            step = self._trained(first, before, decided, pruned, place)
        write_step(self.task.folder, step)
        self._tidy(place)
        return step

    def _tidy(self, place: Path) -> None:
        """Removes what a step that is whole needs no more; the log of its training stays, its page of some megabytes not."""
        for name in (_PRUNED, _DECISION, f"{_TRAINING}/{CHECKPOINT}", f"{_TRAINING}/curves.html"):
            (place / name).unlink(missing_ok=True)

    def _decide(self, first: Step, before: Step, place: Path) -> Step:
        """What goes, and the network without it: written, so that a kill in the training after it costs no second search."""
        clock = _Clock()
        with computing(self.task.machine, self.task.machine.checked()):
            module, view = self._loaded(before.number)
            judge = self._judge(view)
            chosen = self._chosen(first, before, module, view, judge)
            seconds = {"search": clock.lap()}
            pruned = judge(self.data.all_held, chosen.trial.masks)
            after = costs_of(view, chosen.trial.decisions, self.time)
        found = compact(
            module, self.task.inputs, chosen.trial.masks, analysis=chosen.trial.analysis,
            origin={"method": self.settings.course.rule, "step": before.number + 1, "seed": self.task.seed},
        )  # fmt: skip
        save_program(found.module, self.task.inputs, place / _PRUNED)
        small = dependency_view(canonicalize(found.module))
        price = {part.name: part.price for part in chosen.parts.parts()}
        gone = sum(
            int(decision.drop.sum()) // decision.group.blocks * price.get(decision.group.name, 0)
            for decision in chosen.trial.decisions
        )
        searched = chosen.allotted.found
        named = [part.name for part in chosen.parts.parts()]
        size = total_size(small, found.module)
        step = Step(
            before.number + 1, before.filters - gone, size.macs, size.parameters, before.after, pruned, pruned,
            latency=after.latency if self.time else None,
            widths=_widths(small),
            distribution=dict(zip(named, chosen.allotted.distribution.tolist(), strict=True)),
            seconds={**seconds, "removal": clock.lap()},
            teacher=before.teacher,
            asked=0 if searched is None else searched.asked,
            explored=searched is not None and searched.explored,
            reset=chosen.allotted.reset,
            held=dict(chosen.held),
        )  # fmt: skip
        write_text(place / _DECISION, json.dumps(asdict(step)) + "\n")
        return step

    def _chosen(self, first: Step, before: Step, module: CapturedModule, view: DependencyView, judge: Judge) -> _Chosen:
        """By the rule; groups of which something would stay are left out, and it is decided anew."""
        number, held = before.number, dict(before.held)
        dense = costs_of(self._loaded(0)[1], (), self.time)
        while True:
            parts = self._parts(view, held)
            described = parts.parts()
            budget = self.settings.course.gone(number + 1, first.filters) - (first.filters - before.filters)
            ground = Ground(
                parts, max(0, budget), dense, lambda masks: judge(self.data.candidates, masks), self.time,
                np.random.default_rng((self.task.seed, number, len(held))),
                self.settings.search.exploring(number, self.settings.course.steps),
            )  # fmt: skip
            begin = np.array([before.distribution.get(part.name, 0.0) for part in described])
            found = allotted(self.settings, ground, begin if begin.any() else None)
            trial = tried(module, view, found.decisions)
            if not trial.withheld:
                return _Chosen(parts, found, trial, held)
            reasons = {decision.group: "; ".join(decision.reasons) for decision in trial.decisions}
            held |= {group.name: reasons[group] for group in trial.withheld}

    def _trained(self, first: Step, before: Step, decided: Step, pruned: CapturedModule, place: Path) -> Step:
        """The network after its training, and who teaches the next."""
        task = self.task
        done = train(
            pruned, self.data.rest, self.data.held, dataclasses.replace(self.settings.training, test_images=0),
            place / _TRAINING, teacher=self._teacher(before.teacher), measure=task.measure, workers=task.workers,
            machine=task.machine, seed=task.seed + 7919 * decided.number, checkpoint_every=task.checkpoint_every,
        )  # fmt: skip
        save_program(done.module, task.inputs, place / MODEL, data=task.facts)
        with computing(task.machine, task.machine.checked()):
            _, view = self._loaded(decided.number)
            after = self._judge(view)(self.data.all_held)
            beaten = after > self._accuracy_of_teacher(first, before.teacher)
        return dataclasses.replace(
            decided,
            after=after,
            teacher=decided.number if beaten else before.teacher,
            seconds={**decided.seconds, "training": done.seconds},
        )

    def _teacher(self, number: int | None) -> CapturedModule | None:
        preset = self.settings.preset
        if not preset.teacher_share and not preset.matched:
            return None
        if number is None and self.task.teacher is not None:
            return self.task.teacher
        return self._loaded(number or 0)[0]

    def _accuracy_of_teacher(self, first: Step, number: int | None) -> float:
        if number is not None:
            step = finished(self.task.folder, number)
            assert step is not None
            return step.after
        if self.task.teacher is None:
            return first.after
        if self._of_teacher is None:
            judge = Judge(self.task.teacher, self.task.machine, self.task.measure)
            self._of_teacher = judge(self.data.all_held)
        return self._of_teacher

    def _loaded(self, number: int) -> tuple[CapturedModule, DependencyView]:
        """A step's network from its file, whether it was just made or not: so that both compute the same bits."""
        module, _ = load_program(place_of(self.task.folder, number) / MODEL)
        return module, dependency_view(canonicalize(module))

    def _judge(self, view: DependencyView) -> Judge:
        return Judge(view.module, self.task.machine, self.task.measure)

    def _parts(self, view: DependencyView, held: Mapping[str, str]) -> ChannelParts:
        course = self.settings.course
        batches = calibration(self.data.rest, course.images, self.task.seed)
        loss = self.task.measure.loss or F.cross_entropy
        return parts_of(view, course, Evidence(self.task.inputs, batches, loss, self.task.seed), held)

    def _layer_times(self) -> LayerTime | None:
        """Of the network as it came; smaller ones have layers of the same names."""
        if self.task.target is None:
            return None
        # TVM takes seconds to import, and most rewards ask for no time.
        from ...backends.choosing.layer_times import layer_times
        from ...backends.machines.targets import find_target

        return layer_times(canonicalize(self.task.module), find_target(self.task.target))


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        return round(passed, 3)


def _widths(view: DependencyView) -> dict[str, int]:
    return {group.name: group.size for group in view.groups if group.prunable}


def _decided(place: Path) -> Step | None:
    """What was decided before a kill; None if nothing was, or not all of it was written."""
    try:
        return Step.from_plain(parse_json(read_text(place / _DECISION), nonfinite=True))
    except (OSError, ValueError, KeyError, TypeError):
        return None

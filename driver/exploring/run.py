"""The road from a trained network to its front. Killed at any moment, it goes on, and ends with the same networks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F

from ...backends.boards.place import Place
from ...backends.machines.targets import Target
from ...frontend.base.errors import InputError
from ...frontend.base.files import write_text
from ...frontend.base.progress import stage
from ...frontend.data.facts import DataFacts
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import load_program, save_program
from ...frontend.stored_compute import Compute
from ...passes.compaction import compact
from ...passes.pruning.latency import OutOfReach
from ...passes.pruning.scores import Evidence
from ..models import rebatched
from ..searched_mapping import HeldOut
from ..shrinking.held_out import calibration
from ..shrinking.judge import Judge
from ..shrinking.shrink import Task as Shrinking
from ..training.checkpoint import fingerprint
from ..training.hardware import Hardware, computing
from ..training.loop import CHECKPOINT, train
from ..training.sources import Data, Way, recorded_data, source_of
from ..training.tasks import CLASSIFICATION, Measure
from .figures import figures_of
from .ground import Choice, Ground
from .kinds import finder
from .record import DENSE, Refusal, Variant, append, claim, decided, log_lines, place_of, write_decision
from .result import Exploration
from .settings import KNAPSACK, SEARCHED, SHRUNK, Settings
from .telling import Teller

__all__ = ["FRONT", "PAGE", "Task", "explored"]

FRONT, PAGE = "front.json", "front.html"
_MODEL, _PRUNED, _PLAN, _TRAINING = "model.pt2", "pruned.pt2", "plan.json", "training"
_TEST_BATCH = 256
_HERE = Hardware()


@dataclass(frozen=True)
class Task:
    """What is explored, how, on what, and where.

    Attributes:
        module: a captured and trained network, whose batch may vary; it is left as it was.
        inputs: that fit it.
        training: images to train on; or a ``Dataset`` of pairs of inputs and target.
        test: what accuracy is told on; nothing is decided by it.
        settings: budgets, variants, training, and who tells times.
        folder: gets a folder for each variant, ``variants.jsonl``, ``front.json`` and ``front.html``.
        target: whose time counts.
        title: of the model.
        board: a board that measures.
        teacher: that every variant learns from, such as `module`.
        machine: where and how to train.
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
    target: Target
    title: str = "model"
    board: Place | None = None
    teacher: CapturedModule | None = field(default=None, repr=False)
    machine: Hardware = _HERE
    seed: int = 0
    measure: Measure = CLASSIFICATION
    workers: int = 0
    facts: DataFacts | None = None
    checkpoint_every: int = 100

    def recorded(self) -> dict[str, Any]:
        """What of it says which exploration it is, in JSON's types."""
        found = {
            **self.settings.recorded(self.teacher is not None),
            **asdict(self.machine),
            "seed": self.seed,
            "data": recorded_data(self.training, self.test),
            "target": repr(self.target),
            "board": None if self.board is None else str(self.board),
            **self.measure.recorded(),
        }
        if self.teacher is not None:
            found["teacher"] = fingerprint({}, self.teacher, {})
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


def explored(task: Task) -> Exploration:
    """Makes, trains, compiles and times every variant for every budget, or goes on with what the folder holds.

    Whatever is to be found for the budgets is found before anything is trained, so that mistakes are told at once.

    Raises:
        InputError: an option is not usable, the folder holds something else, or the network cannot be compiled or trained;
            what is done stays.
        CheckError: a smaller network, or compiled code, differs from what it was made of.
    """
    task.settings.check(task.target, task.board is not None)
    if task.settings.preset.label_smoothing and task.measure.loss is not None:
        raise InputError("label_smoothing has no meaning for a loss of your own; leave it out")
    task.machine.checked()
    recorded = task.recorded()
    claim(task.folder, fingerprint(recorded, task.module, {}), recorded)
    return _Run(task).result()


class _Run:
    """An exploration under way."""

    def __init__(self, task: Task) -> None:
        self.task, self.settings = task, task.settings
        self.one = rebatched(task.inputs, 1)
        board = task.board
        self.teller = Teller(
            task.target, self.settings.teller(task.target, board is not None), board, self.settings.repeat
        )
        scored = KNAPSACK in self.settings.variants
        batches = calibration(task.training, self.settings.images, task.seed) if scored else ()
        evidence = Evidence(task.inputs, batches, task.measure.loss or F.cross_entropy, task.seed)
        shrinking = None
        if SHRUNK in self.settings.variants:
            shrinking = Shrinking(
                task.module, task.inputs, task.training, task.test, self.settings.shrinking, task.folder / "shrinking",
                task.target.name, task.teacher, task.machine, task.seed, task.measure, task.workers, task.facts,
                task.checkpoint_every,
            )  # fmt: skip
        held_out = None
        if SEARCHED in self.settings.variants:
            held_out = HeldOut(task.training, measure=task.measure, machine=task.machine)
        self.ground = Ground(task.module, self.one, task.target, evidence, self.settings, shrinking, held_out)

    def result(self) -> Exploration:
        """All of it."""
        task, done = self.task, log_lines(self.task.folder)
        variants = [done.get(DENSE) or self._dense()]
        decisions = [(kind, budget, self._decided(kind, budget)) for kind, budget in self.settings.pairs]
        for kind, budget, choice in decisions:
            if isinstance(choice, Choice):
                place = place_of(task.folder, kind, budget)
                variants.append(done.get(place.name) or self._made(place, kind, budget, choice))
                self._tidy(place)
        found = Exploration(
            task.title, task.folder, task.target.name, self.teller.told_by, self.teller.unit, task.measure.name,
            self._timed(variants), tuple(choice for *_, choice in decisions if isinstance(choice, Refusal)),
            task.recorded(),
        )  # fmt: skip
        write_text(task.folder / FRONT, found.to_json())
        write_text(task.folder / PAGE, found.to_html())
        return found

    def _dense(self) -> Variant:
        """The network as it came."""
        place = place_of(self.task.folder, DENSE, None)
        place.mkdir(exist_ok=True)
        save_program(self.task.module, self.task.inputs, place / _MODEL, data=self.task.facts)
        return self._logged(place, DENSE, None, Choice(1.0, "the network as it came"))

    def _decided(self, kind: str, budget: float) -> Choice | Refusal:
        """What meets the budget, written, so that a kill in a training costs no second search; or why nothing does."""
        place = place_of(self.task.folder, kind, budget)
        if (before := decided(place, kind, budget)) is not None:
            return before
        place.mkdir(exist_ok=True)
        found: Choice | Refusal
        try:
            with stage(f"finding what takes {budget:g} of the time: {kind}"):
                found = finder(kind)(self.ground, kind, budget)
        except OutOfReach as error:
            found = Refusal(kind, budget, str(error))
        else:
            if found.module is not None:
                save_program(found.module, self.task.inputs, place / _PRUNED)
            if found.plan is not None:
                found.plan.save(place / _PLAN)
        write_decision(place, found)
        return found

    def _made(self, place: Path, kind: str, budget: float, choice: Choice) -> Variant:
        """Trained, without what its zeros make removable where that is no slower, compiled and tested."""
        task, settings = self.task, self.settings
        # From the file, whether it was just made or not, so that both compute the same bits.
        module = task.module if choice.structures else load_program(place / _PRUNED)[0]
        zeros = {"structure": dict(choice.structures), "ignore": ()}
        method = settings.method.with_options(zeros) if choice.structures else None
        trained = train(
            module, task.training, task.test, settings.preset, place / _TRAINING, method=method, teacher=task.teacher,
            measure=task.measure, workers=task.workers, machine=task.machine, seed=task.seed,
            checkpoint_every=task.checkpoint_every,
        ).module  # fmt: skip
        origin = {"model": task.title, "variant": kind, "budget": budget, "target": task.target.name, "seed": task.seed}
        small = compact(trained, task.inputs, origin=origin)
        compute = Compute(small.before.macs if method else figures_of(task.module).all_macs, small.after.macs)
        notes: dict[str, Any] = {"data": task.facts, "origin": origin}
        if compute.macs:
            notes["compute"] = compute
        if choice.structures:
            # Without some of its filters a layer may have other groups of zeros than it was given, which take longer.
            whole, fewer = (self.ground.share_of(module) for module in (trained, small.module))
            choice = replace(choice, reached=min(whole, fewer))
            if whole < fewer:
                save_program(trained, task.inputs, place / _MODEL, data=task.facts, origin=origin)
                return self._logged(place, kind, budget, choice)
        save_program(small.module, task.inputs, place / _MODEL, certificate=asdict(small.certificate), **notes)
        return self._logged(place, kind, budget, choice)

    def _logged(self, place: Path, kind: str, budget: float | None, choice: Choice) -> Variant:
        """A network compiled, tested and written down."""
        task = self.task
        module, _ = load_program(place / _MODEL)
        told, figures = self.teller.compiled(module, self.one, place), figures_of(module)
        device = task.machine.checked()
        way = Way(_TEST_BATCH, self.settings.preset.test_images, workers=task.workers)
        with stage("testing"), computing(task.machine, device):
            accuracy = Judge(module, task.machine, task.measure)(source_of(task.test, way, device))
        variant = Variant(
            place.name, kind, budget, choice.reached, accuracy, told.time, figures.macs, figures.needed_macs,
            figures.parameters, told.bytes, figures.zeros, choice.told,
        )  # fmt: skip
        append(task.folder, variant)
        return variant

    def _tidy(self, place: Path) -> None:
        """Removes what a variant that is done needs no more; the log of its training stays, its page of some megabytes not."""
        for name in (_PRUNED, f"{_TRAINING}/{CHECKPOINT}", f"{_TRAINING}/curves.html"):
            (place / name).unlink(missing_ok=True)

    def _timed(self, variants: list[Variant]) -> tuple[Variant, ...]:
        """With the times that only all together have."""
        if all(variant.time is not None for variant in variants):
            return tuple(variants)
        times = self.teller.side_by_side(self.task.folder, [variant.name for variant in variants], self.one)
        return tuple(replace(variant, time=times[variant.name]) for variant in variants)

"""The training loop. It can be killed at any moment; run again, it goes on, and ends with the same weights."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ...frontend.base.files import remove_unfinished, write_text
from ...frontend.base.progress import track
from ...frontend.data.facts import facts_of
from ...frontend.graph_module import CapturedModule, cloned
from ...frontend.program_file import save_program
from ...frontend.quantized_operators import check_not_rounded
from ...passes.memory_order import arrange, best_order
from ...passes.pruning.methods.base import Hooks, Moment, State, TrainingMethod
from ...passes.pruning.methods.masked import Masked
from .averaging import Average
from .batches import generator_for
from .checkpoint import Progress, Trainee, fingerprint, load_checkpoint, save_checkpoint
from .finite import first_not_finite, weight_not_finite
from .hardware import Hardware, computing
from .log import curves, write_log
from .objective import Forward, Objective, distillation_of
from .optimizers import OPTIMIZERS
from .presets import Preset, rate_at, recorded
from .sources import Batch, Data, Source, Way, recorded_data, source_of
from .tasks import CLASSIFICATION, Measure

__all__ = ["CHECKPOINT", "Hardware", "Trained", "train"]

CHECKPOINT = "checkpoint.safetensors"
_HERE = Hardware()
_LEAST_SCALE = 2.0**-24
"""Of the loss in float16: below it, none would do."""


@dataclass(frozen=True)
class Trained:
    """A trained network."""

    module: fx.GraphModule = field(repr=False)
    """On the CPU, in inference mode; the moving average, where the preset has one."""
    rows: tuple[Mapping[str, Any], ...]
    """The log: epoch, rate, loss and accuracy (0..1), or another metric, in training and on the test images, what the method
    says of itself, seconds so far."""
    seconds: float
    """Of training and testing."""
    metric: str = "accuracy"
    """What it is called in the log, behind ``train_`` and ``test_``."""

    @property
    def score(self) -> float:
        """Accuracy, or another metric, on the test images after the last epoch."""
        return float(self.rows[-1][f"test_{self.metric}"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the module as a ``.pt2`` file, which `reconvene.load` and the command line read, with its example inputs.

        Raises:
            InputError: the file cannot be written. An older file of that name is then untouched.
        """
        save_program(self.module, self.module.meta["example_inputs"], path, data=facts_of(self.module))


def train(
    module: CapturedModule,
    training: Data,
    test: Data,
    preset: Preset,
    folder: Path,
    *,
    masks: Mapping[str, Tensor] | None = None,
    method: TrainingMethod | None = None,
    teacher: CapturedModule | None = None,
    measure: Measure = CLASSIFICATION,
    workers: int = 0,
    machine: Hardware = _HERE,
    seed: int = 0,
    checkpoint_every: int = 100,
    restart: bool = False,
    first_step: int = 0,
    last_step: int | None = None,
) -> Trained:
    """Trains a copy of a captured model, or goes on with the training that `folder` holds.

    Args:
        module: takes images (N, 3, H, W), gives (N, classes); or what data and loss go with.
        training: images to train on; or a ``Dataset`` of pairs of inputs and target, or a ``DataLoader`` of batches of such.
        test: the same, that accuracy is measured on after every epoch.
        preset: hyper-parameters.
        folder: for the checkpoint, ``log.csv``, ``log.json`` and ``curves.html``; it is made if need be.
        masks: parameters' entries that stay zero (boolean, True where a weight is): set to zero before the first step and
            after every one.
        method: what finds zeros in training, instead of masks; see `reconvene.passes.pruning.methods.base`.
        teacher: a captured classifier of the same classes that `module` is to be like, as far as the preset says; it is left
            as it was.
        measure: loss and metric of a task that is not classification.
        workers: processes that make the items of a ``Dataset`` beside the training; they change no bit of it.
        machine: where and how to compute.
        seed: of the images' order and changes, and of dropout.
        checkpoint_every: steps between checkpoints; there is one after every epoch, too.
        restart: throw away what the folder holds.
        first_step: where in the preset's schedule `module` stands: the steps before it are not done, and the momentum
            begins at zero.
        last_step: do the steps before this one only; None for all.

    Raises:
        InputError: the folder holds another training, a mask does not fit, data, model, loss and teacher do not, there are
            no such steps, masks and a method were given, or the loss is no number any more: the last checkpoint is kept then.
    """
    preset.check()
    check_not_rounded(module)
    device = machine.checked()
    if measure.loss is not None and preset.label_smoothing:
        raise InputError("label_smoothing has no meaning for a loss of your own; leave it out")
    way = Way(preset.batch, preset.train_images, preset.augment, seed, workers)
    sources = (source_of(training, way, device), source_of(test, replace(way, count=preset.test_images), device))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    remove_unfinished(path)
    if restart:
        path.unlink(missing_ok=True)
    model = cloned(module)
    if method is not None and masks:
        raise InputError(f"masks and the method {method.name} were given; one of the two says what is zero, give that")
    if machine.precision == "float16" and any(weight.dtype == torch.float16 for weight in model.parameters()):
        raise InputError(
            "the model's weights are float16, whose gradients cannot be scaled; convert the model with .float()"
        )
    masked = Masked.of(model, masks or {})
    settings = {
        **recorded(preset, teacher is not None),
        **asdict(machine),
        "seed": seed,
        "data": recorded_data(training, test),
        "steps": [first_step, last_step],
        **measure.recorded(),
    }
    if method is not None:
        settings["method"] = method.recorded()
    if teacher is not None:
        settings["teacher"] = fingerprint({}, teacher, {})
    identity = fingerprint(settings, model, masked.masks)
    hooks = masked.to(device) if method is None else method.bound(model)
    model.to(device)
    objective = Objective(Forward(machine, best_order(model)), measure, preset.label_smoothing)
    run = _Run(
        model, sources, preset, hooks, objective, _Place(path, identity, checkpoint_every),
        _Span(seed, first_step, last_step),
    )  # fmt: skip
    with computing(machine, device):
        if teacher is not None:
            run.learn_from(cloned(teacher).to(device))
        rows, seconds = run.finish(lambda rows: write_log(folder, rows, settings))
    write_text(folder / "curves.html", curves(rows, f"Training on {sources[0].name}", measure.name))
    result = run.result().to("cpu")
    arrange(result, torch.contiguous_format)
    return Trained(result.eval(), rows, seconds, measure.name)


@dataclass(frozen=True)
class _Place:
    """Where a training is kept."""

    path: Path
    identity: str
    every: int
    """Steps between checkpoints."""


@dataclass(frozen=True)
class _Span:
    """Which part of a training is done, and with which random numbers."""

    seed: int
    first: int
    last: int | None

    def checked(self, steps: int) -> tuple[int, int]:
        """First step, and the step behind the last, of so many. Raises InputError if there are no such steps."""
        last = steps if self.last is None else self.last
        if not 0 <= self.first < last <= steps:
            raise InputError(f"steps {self.first} to {last} are not among the {steps} of this training")
        return self.first, last


class _Run:
    """One training under way."""

    def __init__(
        self, model: CapturedModule, sources: tuple[Source, Source], preset: Preset, hooks: Hooks, objective: Objective,
        place: _Place, span: _Span,
    ) -> None:  # fmt: skip
        self.model, self.preset, self.hooks, self.objective = model, preset, hooks, objective
        self.training, self.test = sources
        self.place, self.seed = place, span.seed
        arrange(model, objective.forward.order)
        self.steps = self.training.steps
        self.first, self.last = span.checked(preset.epochs * self.steps)
        self.optimizer = OPTIMIZERS[preset.optimizer](model.parameters(), preset.optimization)
        self.scaler = objective.forward.machine.scaler()
        self.average = Average.of(model, preset.ema) if preset.ema else None
        self.weights = hooks.weights(model)
        self.progress, self.state = Progress(step=self.first), State()
        self._since = time.perf_counter()

    def learn_from(self, teacher: CapturedModule) -> None:
        """Adds a teacher, on the device that trains. Raises InputError if it does not fit the model."""
        forward = self.objective.forward
        arrange(teacher, forward.order)
        found = distillation_of(teacher, self.model.eval(), self.preset, forward, self.training.sample())
        self.objective = replace(self.objective, distillation=found)

    def finish(self, log: Any) -> tuple[tuple[dict[str, Any], ...], float]:
        """Trains what is left, and gives the log and the seconds it took in all."""
        self._begin()
        while self.progress.step < self.last:
            self._epoch(self.progress.step // self.steps)
            log(self.progress.rows)
        log(self.progress.rows)
        return self.progress.rows, self.progress.seconds

    def result(self) -> CapturedModule:
        """What is tested, and given in the end."""
        if self.average is None:
            return self.model
        module = self.average.module
        with torch.no_grad():
            self.hooks.settle(self.hooks.weights(module), self.weights, self.state)
        return module

    @property
    def _trainee(self) -> Trainee:
        return Trainee(self.model, self.optimizer, self.average.model if self.average else None)

    def _begin(self) -> None:
        """From the checkpoint, if there is one."""
        found = load_checkpoint(self.place.path, self._trainee, self.place.identity)
        if found is not None:
            self.progress, state = found
            if self.progress.scale:
                told = {"scale": self.progress.scale, "_growth_tracker": self.progress.steady}
                self.scaler.load_state_dict(self.scaler.state_dict() | told)
            device = torch.device(self.objective.forward.machine.device)
            self.state = {name: value.to(device) for name, value in state.items()}
            return
        torch.manual_seed(generator_for(self.seed, 2).initial_seed())
        with torch.no_grad():
            self.state = self._owned(self.hooks.begin(self.weights))

    def _epoch(self, epoch: int) -> None:
        self.model.train()
        begin, end = max(self.first - epoch * self.steps, 0), min(self.last - epoch * self.steps, self.steps)
        done = self.progress.step - epoch * self.steps
        batches = self.training.training(epoch, done, end)
        for step in track(range(done, end), f"epoch {epoch + 1} of {self.preset.epochs}"):
            batch = next(batches, None)
            if batch is None:
                raise InputError(f"{self.training.name} gave {step} batches in epoch {epoch + 1}, and has {self.steps}")
            self._step(batch, epoch, step)
            if self.progress.step % self.place.every == 0 and step + 1 < end:
                self._save()
        items = self.training.items(begin, end) or self.progress.items
        loss, metric = self._tested()
        with torch.no_grad():
            figures = self.hooks.figures(self.weights, self.state)
        self._clocked()
        name = self.objective.measure.name
        row = {
            "epoch": epoch + 1,
            "rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": self.progress.loss / items,
            f"train_{name}": self.progress.correct / items,
            "test_loss": loss,
            f"test_{name}": metric,
            **figures,
            "seconds": round(self.progress.seconds, 3),
        }
        self.progress = replace(self.progress, rows=(*self.progress.rows, row), loss=0.0, correct=0, items=0)
        self._save()

    def _step(self, batch: Batch, epoch: int, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.preset, self.progress.step, self.steps)
        torch.manual_seed(generator_for(self.seed, 1, epoch, step).initial_seed())  # For dropout.
        self.optimizer.zero_grad()
        loss, outputs = self.objective(self.model, batch)
        penalty = self.hooks.penalty(self.weights, self.state)
        value = self._checked(loss, penalty, batch)
        self.scaler.scale(loss if penalty is None else loss + penalty).backward()
        self.scaler.unscale_(self.optimizer)
        with torch.no_grad():
            self.hooks.gradients(self.weights, self.state)
        if self.preset.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.preset.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        moment = Moment(self.progress.step + 1, self.steps, self.preset.epochs)
        with torch.no_grad():
            self.state = self._owned(self.hooks.after_step(self.weights, self.state, moment))
        if self.average is not None:
            self.average.update(self.model)
        self.progress = replace(
            self.progress,
            step=self.progress.step + 1,
            loss=self.progress.loss + value * batch.count,
            correct=self.progress.correct + self.objective.measure.total(outputs, batch),
            items=self.progress.items + batch.count,
        )

    def _checked(self, loss: Tensor, penalty: Tensor | None, batch: Batch) -> float:
        """The loss. Raises InputError, saying where that began, if it or the penalty is no number."""
        value = loss.item()
        for what, found in (("loss", value), ("penalty", 0.0 if penalty is None else penalty.item())):
            if not math.isfinite(found):
                forward = self.objective.forward
                with forward.machine.autocast():
                    where = first_not_finite(self.model, *forward.laid_out(batch))
                raise InputError(self._stopped(f"the {what} is {found}", self.progress.step, where))
        if not loss.requires_grad:
            raise InputError(
                "the loss does not depend on the model's weights, or they are all frozen; nothing would be learnt"
            )
        return value

    def _stopped(self, what: str, done: int, where: str | None) -> str:
        """For a person, why the training does not go on. `done`: steps before the one that is to blame."""
        epoch, step = divmod(done, self.steps)
        first = f", first {where}" if where else ""
        kept = "; the checkpoint before it is kept" if self.place.path.exists() else ""
        return f"{what} in epoch {epoch + 1}, step {step + 1}{first}{kept}; choose a smaller rate, or clip=1"

    def _tested(self) -> tuple[float, float]:
        """Loss and metric on the items for tests."""
        model, measure = self.result().eval(), self.objective.measure
        loss, metric, items = 0.0, 0.0, 0
        with torch.no_grad():
            for batch in self.test.plain():
                outputs = self.objective.forward.outputs(model, batch)
                loss += measure.total_loss(outputs, batch)
                metric += measure.total(outputs, batch)
                items += batch.count
        return loss / items, metric / items

    def _owned(self, state: State) -> State:
        """The state as a checkpoint would give it back: contiguous, so that sums over it come out the same."""
        taken = {weight.untyped_storage().data_ptr() for weight in self.weights.values()}
        for name, value in state.items():
            if value.untyped_storage().data_ptr() in taken:
                raise ValueError(f"the state '{name}' is a weight itself, which training changes; keep a clone of it")
        return {name: value.detach().contiguous() for name, value in state.items()}

    def _clocked(self) -> None:
        now = time.perf_counter()
        self.progress = replace(self.progress, seconds=self.progress.seconds + now - self._since)
        self._since = now

    def _save(self) -> None:
        """Keeps how far it has come. Raises InputError if weights are no numbers any more; nothing is written then."""
        if (name := weight_not_finite(self.model)) is not None:
            raise InputError(self._stopped("weights are no numbers any more", self.progress.step - 1, f"in '{name}'"))
        self._clocked()
        if scaled := self.scaler.state_dict():
            if scaled["scale"] < _LEAST_SCALE:
                raise InputError(
                    "gradients are no numbers in float16, however the loss is scaled; train in bfloat16 or float32"
                )
            self.progress = replace(self.progress, scale=scaled["scale"], steady=scaled["_growth_tracker"])
        save_checkpoint(self.place.path, self._trainee, self.progress, self.place.identity, self.state)

"""The training loop. It can be killed at any moment; run again, it goes on, and ends with the same weights."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ...frontend.base.files import write_text
from ...frontend.base.progress import track
from ...frontend.data.datasets import Images
from ...frontend.graph_module import CapturedModule, cloned
from ...passes.pruning.methods.base import Hooks, State, TrainingMethod
from ...passes.pruning.methods.masked import Masked
from .batches import Batches, generator_for
from .checkpoint import Progress, fingerprint, load_checkpoint, remove_leftovers, save_checkpoint
from .log import curves, write_log
from .memory_order import arrange, best_order
from .presets import Preset, rate_at

__all__ = ["CHECKPOINT", "Hardware", "Trained", "steps_per_epoch", "train"]

CHECKPOINT = "checkpoint.safetensors"
_TEST_BATCH = 256


@dataclass(frozen=True)
class Hardware:
    """Where and how it is computed. The same numbers come out only of the same machine settings."""

    device: str = "cpu"
    precision: str = "float32"
    """``float32``, or ``bfloat16``: autocast, with weights in float32."""
    threads: int | None = None
    """Of PyTorch's pool; None leaves it as it is."""

    def checked(self) -> torch.device:
        """The device. Raises InputError if it is not there, or a choice is unknown."""
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"there is no precision '{self.precision}'; choose float32 or bfloat16")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"{self.threads} threads compute nothing; give 1 or more")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise InputError(f"there is no device '{self.device}'; choose cpu or cuda") from None
        if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
            raise InputError(f"this machine has no device '{self.device}' that could train; choose cpu")
        return device


@dataclass(frozen=True)
class Trained:
    """A trained network."""

    module: fx.GraphModule = field(repr=False)
    """On the CPU, in inference mode."""
    rows: tuple[Mapping[str, Any], ...]
    """The log: epoch, rate, loss and accuracy (0..1) in training and on the test images, seconds so far."""
    seconds: float
    """Of training and testing."""


def train(
    module: CapturedModule,
    training: Images,
    test: Images,
    preset: Preset,
    folder: Path,
    *,
    masks: Mapping[str, Tensor] | None = None,
    method: TrainingMethod | None = None,
    machine: Hardware = Hardware(),
    seed: int = 0,
    checkpoint_every: int = 100,
    restart: bool = False,
    first_step: int = 0,
    last_step: int | None = None,
) -> Trained:
    """Trains a copy of a captured classifier, or goes on with the training that `folder` holds.

    Args:
        module: takes images (N, 3, H, W), gives (N, classes).
        training: images to train on.
        test: images that accuracy is measured on after every epoch.
        preset: hyper-parameters.
        folder: for the checkpoint, ``log.csv``, ``log.json`` and ``curves.html``; it is made if need be.
        masks: parameters' entries that stay zero (boolean, True where a weight is): set to zero before the first step and
            after every one.
        method: what finds zeros in training, instead of masks; see `reconvene.passes.pruning.methods.base`.
        machine: where and how to compute.
        seed: of the images' order and changes, and of dropout.
        checkpoint_every: steps between checkpoints; there is one after every epoch, too.
        restart: throw away what the folder holds.
        first_step: where in the preset's schedule `module` stands: the steps before it are not done, and the momentum
            begins at zero.
        last_step: do the steps before this one only; None for all.

    Raises:
        InputError: the folder holds another training, a mask does not fit, data and model do not, there are no such
            steps, or masks and a method were given.
    """
    preset.check()
    device = machine.checked()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    remove_leftovers(path)
    if restart:
        path.unlink(missing_ok=True)
    model = cloned(module)
    if method is not None and masks:
        raise InputError(f"masks and the method {method.name} were given; one of the two says what is zero, give that")
    masked = Masked.of(model, masks or {})
    settings = {
        **asdict(preset),
        **asdict(machine),
        "seed": seed,
        "data": [training.name, len(training), test.name, len(test)],
        "steps": [first_step, last_step],
    }
    if method is not None:
        settings["method"] = {"name": method.name, **asdict(method)}
    identity = fingerprint(settings, model, masked.masks)
    model.to(device)
    run = _Run(
        model, Batches.of(training, preset.train_images, device), Batches.of(test, preset.test_images, device), preset,
        method or masked.to(device), machine, seed, path, identity, checkpoint_every, first_step, last_step,
    )  # fmt: skip
    with _computing(machine, device):
        rows, seconds = run.finish(lambda rows: write_log(folder, rows, settings))
    write_text(folder / "curves.html", curves(rows, f"Training on {training.name}"))
    model.to("cpu")
    arrange(model, torch.contiguous_format)
    return Trained(model.eval(), rows, seconds)


class _Run:
    """One training under way."""

    def __init__(
        self, model: CapturedModule, training: Batches, test: Batches, preset: Preset, hooks: Hooks,
        machine: Hardware, seed: int, path: Path, identity: str, every: int, first: int, last: int | None,
    ) -> None:  # fmt: skip
        self.model, self.training, self.test, self.preset, self.hooks = model, training, test, preset, hooks
        self.machine, self.seed, self.path, self.identity, self.every = machine, seed, path, identity, every
        self.memory_order = best_order(model)
        arrange(model, self.memory_order)
        self.steps = steps_per_epoch(len(training), preset.batch)
        self.first, self.last = first, preset.epochs * self.steps if last is None else last
        if not 0 <= first < self.last <= preset.epochs * self.steps:
            raise InputError(
                f"steps {first} to {self.last} are not among the {preset.epochs * self.steps} of this training"
            )
        self.optimizer = torch.optim.SGD(
            model.parameters(), preset.rate, momentum=preset.momentum, weight_decay=preset.weight_decay
        )
        self.weights = hooks.weights(model)
        self.progress, self.state = Progress(step=first), State()
        self._since = time.perf_counter()

    def finish(self, log: Any) -> tuple[tuple[dict[str, Any], ...], float]:
        """Trains what is left, and gives the log and the seconds it took in all."""
        self._begin()
        while self.progress.step < self.last:
            self._epoch(self.progress.step // self.steps)
            log(self.progress.rows)
        log(self.progress.rows)
        return self.progress.rows, self.progress.seconds

    def _begin(self) -> None:
        """From the checkpoint, if there is one."""
        found = load_checkpoint(self.path, self.model, self.optimizer, self.identity)
        if found is not None:
            self.progress, state = found
            self.state = {name: value.to(self.training.labels.device) for name, value in state.items()}
            return
        torch.manual_seed(generator_for(self.seed, 2).initial_seed())
        with torch.no_grad():
            self.state = self._owned(self.hooks.begin(self.weights))

    def _epoch(self, epoch: int) -> None:
        order = self.training.order(self.seed, epoch)
        self.model.train()
        begin, end = max(self.first - epoch * self.steps, 0), min(self.last - epoch * self.steps, self.steps)
        done = self.progress.step - epoch * self.steps
        for step in track(range(done, end), f"epoch {epoch + 1} of {self.preset.epochs}"):
            self._step(order, epoch, step)
            if self.progress.step % self.every == 0 and step + 1 < end:
                self._save()
        images = (end - begin) * self.preset.batch
        loss, accuracy = self._tested()
        self._clocked()
        row = {
            "epoch": epoch + 1,
            "rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": self.progress.loss / images,
            "train_accuracy": self.progress.correct / images,
            "test_loss": loss,
            "test_accuracy": accuracy,
            "seconds": round(self.progress.seconds, 3),
        }
        self.progress = dataclasses.replace(self.progress, rows=(*self.progress.rows, row), loss=0.0, correct=0)
        self._save()

    def _step(self, order: Tensor, epoch: int, step: int) -> None:
        generator = generator_for(self.seed, 1, epoch, step)
        images, labels = self.training.training(order, step, self.preset.batch, self.preset.augment, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.preset, self.progress.step, self.steps)
        torch.manual_seed(generator.initial_seed())  # For dropout.
        self.optimizer.zero_grad()
        outputs = self._outputs(images)
        loss = F.cross_entropy(outputs, labels)
        penalty = self.hooks.penalty(self.weights, self.state)
        (loss if penalty is None else loss + penalty).backward()
        with torch.no_grad():
            self.hooks.gradients(self.weights, self.state)
        self.optimizer.step()
        done = (self.progress.step + 1) / (self.preset.epochs * self.steps)
        with torch.no_grad():
            self.state = self._owned(self.hooks.after_step(self.weights, self.state, done))
        value = loss.item()
        for what, found in (("loss", value), ("penalty", 0.0 if penalty is None else penalty.item())):
            if not math.isfinite(found):
                raise InputError(f"the {what} is {found} in epoch {epoch + 1}, step {step + 1}; choose a smaller rate")
        self.progress = dataclasses.replace(
            self.progress,
            step=self.progress.step + 1,
            loss=self.progress.loss + value * len(labels),
            correct=self.progress.correct + int((outputs.argmax(1) == labels).sum()),
        )

    def _tested(self) -> tuple[float, float]:
        self.model.eval()
        loss, correct = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(self.test), _TEST_BATCH):
                images, labels = self.test.plain(start, _TEST_BATCH)
                outputs = self._outputs(images)
                loss += F.cross_entropy(outputs, labels, reduction="sum").item()
                correct += int((outputs.argmax(1) == labels).sum())
        return loss / len(self.test), correct / len(self.test)

    def _outputs(self, images: Tensor) -> Tensor:
        low = self.machine.precision == "bfloat16"
        try:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
                outputs = self.model(images.contiguous(memory_format=self.memory_order))
            return outputs.float()
        except RuntimeError as error:
            if "shape" not in str(error) and "size" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise InputError(f"the model does not take images {tuple(images.shape)}: {reason}") from error

    def _owned(self, state: State) -> State:
        """The state as a checkpoint would give it back: contiguous, so that sums over it come out the same."""
        taken = {weight.untyped_storage().data_ptr() for weight in self.weights.values()}
        for name, value in state.items():
            if value.untyped_storage().data_ptr() in taken:
                raise ValueError(f"the state '{name}' is a weight itself, which training changes; keep a clone of it")
        return {name: value.detach().contiguous() for name, value in state.items()}

    def _clocked(self) -> None:
        now = time.perf_counter()
        self.progress = dataclasses.replace(self.progress, seconds=self.progress.seconds + now - self._since)
        self._since = now

    def _save(self) -> None:
        self._clocked()
        save_checkpoint(self.path, self.model, self.optimizer, self.progress, self.identity, self.state)


def steps_per_epoch(images: int, batch: int) -> int:
    """Steps in one pass over that many images. Raises InputError if there are too few for a single one."""
    if images < batch:
        raise InputError(f"{images} training images are fewer than one batch of {batch}")
    return images // batch


@contextmanager
def _computing(machine: Hardware, device: torch.device) -> Iterator[None]:
    """PyTorch set for the machine, and as it was afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    try:
        if machine.threads is not None:
            torch.set_num_threads(machine.threads)
        torch.backends.cudnn.deterministic = True
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = deterministic

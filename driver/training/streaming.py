"""A training that nothing on the CPU waits for, so that several of them share one GPU.

`loop.train` looks at every step before it does the next. Here steps are launched on a stream of their own, recorded and
replayed (`replay`), and looked at now and then. It is for networks, dense, masked or made smaller, that are trained on labels
alone; its steps, log and checkpoints are those of `loop.train`, and each goes on where the other was stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.base.files import remove_unfinished
from ...frontend.data.datasets import Images
from ...frontend.graph_module import CapturedModule, cloned
from ...passes.memory_order import arrange, best_order
from ...passes.pruning.methods.masked import Masked
from .batches import Batches, generator_for
from .checkpoint import Progress, Trainee, fingerprint, load_checkpoint, save_checkpoint
from .finite import weight_not_finite
from .hardware import Hardware
from .optimizers import OPTIMIZERS
from .presets import Preset, rate_at, recorded
from .replay import Recorder, Replay, is_repeatable
from .sources import recorded_data
from .tally import Tally

__all__ = ["StreamedTraining", "Task"]

_TEST_BATCH = {"cpu": 256, "cuda": 2000}
_UNSEEN_STEPS = 25
"""After which is looked at what came of them. That waits until they are done, and so keeps the CPU from launching too many."""


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how; `loop.train` says more of each."""

    module: CapturedModule = field(repr=False)
    training: Images
    test: Images
    preset: Preset
    masks: Mapping[str, Tensor] = field(repr=False)
    machine: Hardware
    seed: int = 0

    def check(self) -> None:
        """Raises InputError for what only `loop.train` does."""
        self.preset.check()
        if self.preset.ema:
            raise InputError(
                f"ema={self.preset.ema} averages weights, which trainings side by side do not; leave it out"
            )
        if self.machine.precision == "float16":
            raise InputError("trainings side by side do not scale losses for float16; choose bfloat16 or float32")

    def settings(self) -> dict[str, Any]:
        """All but the network and its masks, for the fingerprint: as `loop.train` has it."""
        return {
            **recorded(self.preset),
            **asdict(self.machine),
            "seed": self.seed,
            "data": recorded_data(self.training, self.test),
            "steps": [0, None],
        }


class StreamedTraining:
    """A training that is taken up from its checkpoint, or begun where there is none; a step at a time."""

    def __init__(self, task: Task, path: Path, seconds: float = 60.0, record: Recorder | None = None) -> None:
        """It saves itself at `path` when so many seconds have passed, and when it is told to.

        Without `record` every step is launched operation by operation.

        Raises:
            InputError: the checkpoint is of another training, a mask does not fit, or data and model do not.
        """
        task.check()
        device = task.machine.checked()
        self.task, self.preset, self.path, self._seconds = task, task.preset, path, seconds
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with self._on_stream():
            self._set_up(device)
            plain = record is None or self.preset.optimizer != "sgd" or not is_repeatable(self.model)
            self._replay = None if plain or record is None else Replay(self._update, self._recorder(record))
            self._begin()

    def _set_up(self, device: torch.device) -> None:
        task, preset = self.task, self.preset
        remove_unfinished(self.path)
        self.model = cloned(task.module)
        masked = Masked.of(self.model, task.masks)
        self.identity = fingerprint(task.settings(), self.model, masked.masks)
        self.masked = masked.to(device)
        self.model.to(device)
        self.training = Batches.of(task.training, preset.train_images, device)
        self.test = Batches.of(task.test, preset.test_images, device)
        self.steps = len(self.training) // preset.batch
        if not self.steps:
            raise InputError(f"{len(self.training)} training images are fewer than one batch of {preset.batch}")
        self.order = best_order(self.model)
        arrange(self.model, self.order)
        self.optimizer = OPTIMIZERS[preset.optimizer](self.model.parameters(), preset.optimization)
        self.weights = self.masked.weights(self.model)
        self.progress, self.tally = Progress(), Tally(device)
        self._images: Tensor | None = None
        self._since = self._saved = time.perf_counter()

    def _begin(self) -> None:
        """From the checkpoint, if there is one."""
        found = load_checkpoint(self.path, self._trainee, self.identity)
        if found is not None:
            self.progress, _ = found
            self.tally.restore(self.progress.loss, int(self.progress.correct))
            return
        with torch.no_grad():
            self.masked.begin(self.weights)

    @property
    def _trainee(self) -> Trainee:
        return Trainee(self.model, self.optimizer)

    @property
    def is_over(self) -> bool:
        return self.progress.step == self.preset.epochs * self.steps

    def turn(self) -> None:
        """The next step; and a test and a checkpoint, where these are due after it. There is one if it is not over.

        Raises:
            InputError: the loss is no number any more.
        """
        with self._on_stream():
            epoch, step = divmod(self.progress.step, self.steps)
            self._step(epoch, step)
            self.progress = replace(self.progress, step=self.progress.step + 1)
            if step + 1 == self.steps:
                self._end_epoch(epoch)
            elif (step + 1) % _UNSEEN_STEPS == 0:
                self._look()
            if time.perf_counter() - self._saved >= self._seconds:
                self._save()

    def save(self) -> None:
        """Writes the checkpoint now. Raises InputError if it cannot be written, or weights are no numbers any more."""
        with self._on_stream():
            self._save()

    def result(self) -> CapturedModule:
        """The network, on the CPU, in inference mode. The training is over then."""
        self.model.to("cpu")
        arrange(self.model, torch.contiguous_format)
        return self.model.eval()

    def _step(self, epoch: int, step: int) -> None:
        if self._images is None:
            self._images = self.training.order(self.task.seed, epoch)
            self.model.train()
        generator = generator_for(self.task.seed, 1, epoch, step)
        images, labels = self.training.training(self._images, step, self.preset.batch, self.preset.augment, generator)
        rate = rate_at(self.preset, self.progress.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._replay is not None:
            self._replay(images, labels, rate)
        else:
            torch.manual_seed(generator.initial_seed())  # For dropout.
            self._update(images, labels)

    def _update(self, images: Tensor, labels: Tensor) -> None:
        """Operations on the device alone."""
        self.optimizer.zero_grad()
        outputs = self._outputs(images)
        loss = F.cross_entropy(outputs, labels, label_smoothing=self.preset.label_smoothing)
        loss.backward()
        if self.preset.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.preset.clip)
        self.optimizer.step()
        with torch.no_grad():
            self.masked.begin(self.weights)
        self.tally.add(loss, outputs, labels, len(labels))

    def _recorder(self, record: Recorder) -> Recorder:
        """Old gradients go first, so that the recorded step makes its own."""

        def recorded_step(step: Callable[[], None]) -> Callable[[], None]:
            self.optimizer.zero_grad()
            return record(step)

        return recorded_step

    def _outputs(self, images: Tensor) -> Tensor:
        with self.task.machine.autocast():
            outputs: Tensor = self.model(images.contiguous(memory_format=self.order))
        return outputs.float()

    def _look(self) -> tuple[float, int]:
        """What the epoch has come to so far. Raises InputError if the loss of one of its steps was no number."""
        loss, correct = self.tally.read()
        if not math.isfinite(loss):
            epoch, step = divmod(self.progress.step - 1, self.steps)
            raise InputError(
                f"the loss is {loss} in epoch {epoch + 1}, by step {step + 1}; choose a smaller rate, or clip=1"
            )
        return loss, correct

    def _end_epoch(self, epoch: int) -> None:
        self._images = None
        images = self.steps * self.preset.batch
        (loss, correct), (test_loss, test_correct) = self._look(), self._tested()
        self._clocked()
        row = {
            "epoch": epoch + 1,
            "rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss / images,
            "train_accuracy": correct / images,
            "test_loss": test_loss / len(self.test),
            "test_accuracy": test_correct / len(self.test),
            "seconds": round(self.progress.seconds, 3),
        }
        self.tally.restore(0.0, 0)
        self.progress = replace(self.progress, rows=(*self.progress.rows, row))

    def _tested(self) -> tuple[float, int]:
        """The sum of the losses, and how many answers are right."""
        self.model.eval()
        device = self.test.labels.device
        size, tally = _TEST_BATCH[device.type], Tally(device)
        with torch.no_grad():
            for start in range(0, len(self.test), size):
                images, labels = self.test.plain(start, size)
                outputs = self._outputs(images)
                tally.add(F.cross_entropy(outputs, labels, reduction="sum"), outputs, labels)
        return tally.read()

    def _clocked(self) -> None:
        now = time.perf_counter()
        self.progress = replace(self.progress, seconds=self.progress.seconds + now - self._since)
        self._since = now

    def _save(self) -> None:
        """What masks hold keeps no momentum, which would move nothing: a file of many zeros is packed small."""
        if (name := weight_not_finite(self.model)) is not None:
            raise InputError(f"weights are no numbers any more, in '{name}'; choose a smaller rate, or clip=1")
        loss, correct = self._look()
        self._clocked()
        self.progress = replace(self.progress, loss=loss, correct=correct)
        with torch.no_grad():
            for name, mask in self.masked.masks.items():
                for kept in self.optimizer.state.get(self.weights[name], {}).values():
                    if isinstance(kept, Tensor) and kept.shape == mask.shape:
                        kept.mul_(mask)
        save_checkpoint(self.path, self._trainee, self.progress, self.identity)
        self._saved = time.perf_counter()

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        with torch.cuda.stream(self.stream):  # Of None, it does nothing.
            yield

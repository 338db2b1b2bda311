"""What a training minimises on a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from .distillation import Distillation, Matching, matched_layers
from .hardware import Hardware
from .presets import Preset
from .sources import Batch
from .tasks import CLASSIFICATION, Measure

__all__ = ["Forward", "Objective", "distillation_of"]

_LOW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Forward:
    """How a network is run in training."""

    machine: Hardware
    order: torch.memory_format
    """Of images in memory."""

    def outputs(self, module: CapturedModule, batch: Batch) -> Any:
        """What the network answers, in float32 at least. Raises InputError if it does not take such inputs."""
        args, kwargs = self.laid_out(batch)
        with self._explaining(batch), self.machine.autocast():
            outputs = module(*args, **kwargs)
        return pytree.tree_map_only(Tensor, lambda value: value.float() if value.dtype in _LOW else value, outputs)

    def laid_out(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs of a batch by position and by name, images in the network's order."""

        def ordered(value: Tensor) -> Tensor:
            return value.contiguous(memory_format=self.order) if value.dim() == 4 else value

        laid: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map_only(
            Tensor, ordered, (batch.inputs, dict(batch.named))
        )
        return laid

    @contextmanager
    def _explaining(self, batch: Batch) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if "shape" not in str(error) and "size" not in str(error):
                raise
            leaves = pytree.tree_leaves((batch.inputs, dict(batch.named)))
            shapes = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
            what = f"images {shapes[0]}" if len(shapes) == 1 else f"inputs {', '.join(map(str, shapes))}"
            raise InputError(f"the model does not take {what}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of a task, and what a teacher adds."""

    forward: Forward
    measure: Measure = CLASSIFICATION
    smoothing: float = 0.0
    distillation: Distillation | None = None

    def __call__(self, module: CapturedModule, batch: Batch) -> tuple[Tensor, Any]:
        """The loss, a scalar, and what the network answered."""
        with self.distillation.watching(module) if self.distillation else nullcontext():
            outputs = self.forward.outputs(module, batch)
            loss = self.measure.losses(outputs, batch, self.smoothing)
            if self.distillation is None:
                return loss, outputs
            with torch.no_grad():
                answers = self.forward.outputs(self.distillation.teacher, batch)
            return self.distillation.loss(loss, outputs, answers), outputs


def distillation_of(
    teacher: CapturedModule, student: CapturedModule, preset: Preset, forward: Forward, batch: Batch
) -> Distillation:
    """A teacher that fits a student, with what the preset says of it; neither is changed.

    Args:
        teacher: on the device that trains.
        student: beside it, in inference mode.
        preset: has temperature, share, and layers to match.
        forward: how both are run.
        batch: one that the student takes.

    Raises:
        InputError: it does not take the images, has other classes, or has no such layers or other widths there.
    """
    teacher.eval()
    layers = matched_layers(student, teacher, preset.matched)
    found = Distillation(
        teacher, preset.temperature, preset.teacher_share, Matching(layers, preset.matching, preset.matching_weight)
    )
    with torch.no_grad(), found.watching(student):
        ours, theirs = forward.outputs(student, batch), _answers(teacher, forward, batch)
        if not all(isinstance(given, Tensor) and given.dim() == 2 and given.shape[1] > 1 for given in (ours, theirs)):
            raise InputError("a teacher teaches classifiers, which give (N, classes); leave out --teacher")
        if ours.shape[1:] != theirs.shape[1:]:
            raise InputError(
                f"the teacher gives {theirs.shape[1]} classes and the model {ours.shape[1]} classes; a teacher has the classes"
                " of what it teaches"
            )
        found.check()
    return found


def _answers(teacher: CapturedModule, forward: Forward, batch: Batch) -> Any:
    try:
        return forward.outputs(teacher, batch)
    except InputError as error:
        raise InputError(f"the teacher cannot be asked: {error}") from None

"""What a training minimises on a batch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from .distillation import Distillation, Matching, matched_layers
from .hardware import Hardware
from .presets import Preset

__all__ = ["Forward", "Objective", "distillation_of"]


@dataclass(frozen=True)
class Forward:
    """How a network is run in training."""

    machine: Hardware
    order: torch.memory_format
    """Of the images in memory."""

    def outputs(self, module: CapturedModule, images: Tensor) -> Tensor:
        """What the network answers, in float32. Raises InputError if it does not take such images."""
        try:
            with self.machine.autocast():
                outputs = module(images.contiguous(memory_format=self.order))
            return outputs.float()
        except RuntimeError as error:
            if "shape" not in str(error) and "size" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise InputError(f"the model does not take images {tuple(images.shape)}: {reason}") from error


@dataclass(frozen=True, eq=False)
class Objective:
    """Cross-entropy of the labels, and what a teacher adds."""

    forward: Forward
    smoothing: float = 0.0
    distillation: Distillation | None = None

    def __call__(self, module: CapturedModule, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and what the network answered."""
        with self.distillation.watching(module) if self.distillation else nullcontext():
            outputs = self.forward.outputs(module, images)
            loss = F.cross_entropy(outputs, labels, label_smoothing=self.smoothing)
            if self.distillation is None:
                return loss, outputs
            with torch.no_grad():
                answers = self.forward.outputs(self.distillation.teacher, images)
            return self.distillation.loss(loss, outputs, answers), outputs


def distillation_of(
    teacher: CapturedModule, student: CapturedModule, preset: Preset, forward: Forward, images: Tensor
) -> Distillation:
    """A teacher that fits a student, with what the preset says of it; neither is changed.

    Args:
        teacher: on the device that trains.
        student: beside it, in inference mode.
        preset: has temperature, share, and layers to match.
        forward: how both are run.
        images: two or more, normalised, that the student takes.

    Raises:
        InputError: it does not take the images, has other classes, or has no such layers or other widths there.
    """
    teacher.eval()
    layers = matched_layers(student, teacher, preset.matched)
    found = Distillation(
        teacher, preset.temperature, preset.teacher_share, Matching(layers, preset.matching, preset.matching_weight)
    )
    with torch.no_grad(), found.watching(student):
        ours, theirs = forward.outputs(student, images), _answers(teacher, forward, images)
        if ours.shape[1:] != theirs.shape[1:]:
            raise InputError(
                f"the teacher gives {_classes(theirs)} and the model {_classes(ours)}; a teacher has the classes of what it"
                " teaches"
            )
        found.check()
    return found


def _answers(teacher: CapturedModule, forward: Forward, images: Tensor) -> Tensor:
    try:
        return forward.outputs(teacher, images)
    except InputError as error:
        raise InputError(f"the teacher cannot be asked: {error}") from None


def _classes(outputs: Any) -> str:
    return f"{outputs.shape[1]} classes" if outputs.dim() == 2 else f"{tuple(outputs.shape)}"

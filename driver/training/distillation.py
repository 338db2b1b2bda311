"""Distillation: a trained network, the teacher, says what another one, the student, is to answer on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ...frontend.layers import Part

__all__ = ["MATCHINGS", "Distillation", "Matching", "distilled", "matched_layers"]


def distilled(loss: Tensor, outputs: Tensor, answers: Tensor, temperature: float, share: float) -> Tensor:
    """``share * T^2 * KL(softmax(answers / T) || softmax(outputs / T)) + (1 - share) * loss``.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531; the divergence is the
    mean over images.

    Args:
        loss: of the labels, a scalar.
        outputs: of the student, logits (N, classes).
        answers: of the teacher, the same.
        temperature: T.
        share: a, from 0 to 1.
    """
    soft = F.kl_div(
        F.log_softmax(outputs / temperature, 1),
        F.log_softmax(answers / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return share * temperature**2 * soft + (1 - share) * loss


def _features(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference: the hints of FitNets (Romero et al., 2015, arXiv:1412.6550), without a regressor."""
    return F.mse_loss(student, teacher)


def _similarities(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference between the images' likenesses, whatever the layers' widths.

    The likenesses are the products of all pairs of a batch's activations, each row of norm 1: Tung and Mori,
    "Similarity-Preserving Knowledge Distillation", 2019, arXiv:1907.09682.
    """
    ours, theirs = (F.normalize(value.flatten(1) @ value.flatten(1).T, dim=1) for value in (student, teacher))
    return (ours - theirs).square().mean()


MATCHINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"features": _features, "similarities": _similarities}
)
"""By name: how far a student's activations of a layer are from its teacher's, a scalar; axis 0 is the batch."""


@dataclass(frozen=True)
class Matching:
    """Layers whose outputs are to be like the teacher's."""

    layers: tuple[str, ...]
    """Paths of layers, in the student and in the teacher."""
    way: str
    """Of `MATCHINGS`."""
    weight: float
    """Of the mean over layers in the loss."""


@dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher, and what it is asked."""

    teacher: CapturedModule = field(repr=False)
    """In inference mode, on the device that trains. It is not changed."""
    temperature: float
    share: float
    matching: Matching
    _ours: dict[str, list[Tensor]] = field(default_factory=dict, init=False, repr=False)
    _theirs: dict[str, list[Tensor]] = field(default_factory=dict, init=False, repr=False)
    """By layer, its output at each call of the block under way."""

    @contextmanager
    def watching(self, student: CapturedModule) -> Iterator[None]:
        """Within the block the outputs of matched layers are seen, for `loss` and `check`."""
        handles = []
        for module, seen in ((student, self._ours), (self.teacher, self._theirs)):
            for path in self.matching.layers:
                seen[path] = []
                handles.append(module.get_submodule(path).register_forward_hook(_noting(seen[path])))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._ours.clear()
            self._theirs.clear()

    def loss(self, loss: Tensor, outputs: Tensor, answers: Tensor) -> Tensor:
        """What is minimised, from the loss of the labels and what student and teacher answer on the same images."""
        total = distilled(loss, outputs, answers, self.temperature, self.share)
        if not self.matching.layers:
            return total
        compare = MATCHINGS[self.matching.way]
        far = [compare(*pair) for path in self.matching.layers for pair in self._pairs(path)]
        return total + self.matching.weight * torch.stack(far).mean()

    def check(self) -> None:
        """Raises InputError if a matched layer has other sizes than the teacher's, or was not called as often as it."""
        for path in self.matching.layers:
            ours, theirs = self._ours[path], self._theirs[path]
            if len(ours) != len(theirs) or not ours:
                raise InputError(
                    f"'{path}' runs {len(ours)} times in the model and {len(theirs)} times in the teacher; match others"
                )
            for one, other in self._pairs(path):
                if self.matching.way == "features" and one.shape != other.shape:
                    sizes = " and ".join("x".join(map(str, value.shape[1:])) for value in (one, other))
                    raise InputError(
                        f"'{path}' gives {sizes} in the model and the teacher; say matching=similarities, which takes any"
                        " widths"
                    )

    def _pairs(self, path: str) -> list[tuple[Tensor, Tensor]]:
        """What a layer gave in student and teacher at each of its calls, in float32."""
        return [(one.float(), other.float()) for one, other in zip(self._ours[path], self._theirs[path], strict=True)]


def _noting(outputs: list[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])  # Recurrent layers give their state, too.

    return note


def matched_layers(student: CapturedModule, teacher: CapturedModule, patterns: Sequence[str]) -> tuple[str, ...]:
    """Layers of both that have the same path, of those that the patterns name.

    Raises:
        InputError: a pattern names none.
    """
    there = set(_layers(teacher))
    both = [path for path in _layers(student) if path in there]
    for pattern in patterns:
        if not any(fnmatch(path, pattern) for path in both):
            listed = ", ".join(both[:6]) + (", ..." if len(both) > 6 else "")
            raise InputError(
                f"no layer that model and teacher both have is called '{pattern}'; there are {listed or 'none'}"
            )
    return tuple(path for path in both if any(fnmatch(path, pattern) for pattern in patterns))


def _layers(module: CapturedModule) -> list[str]:
    parts = module.named_modules()
    return [path for path, part in parts if path and not isinstance(part, Part | fx.GraphModule)]

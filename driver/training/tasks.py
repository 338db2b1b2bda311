"""What a training is to learn: from which data, by which loss, told by which number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.base.own_code import failure
from .sources import Batch, Data

__all__ = ["CLASSIFICATION", "Measure", "Task", "task_of"]


@dataclass(frozen=True, eq=False)
class Measure:
    """By which loss is learnt, and by which number is told how well.

    Attributes:
        loss: from outputs and targets of a batch one number to be made small; None: cross-entropy of classes.
        metric: from the same one number, the mean over the batch's items; its name heads the log. None: share of right classes.
    """

    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None

    @property
    def is_own(self) -> bool:
        """Whether a person has written one of them."""
        return self.loss is not None or self.metric is not None

    @property
    def name(self) -> str:
        """Of the metric."""
        return "accuracy" if self.metric is None else _name(self.metric)

    def recorded(self) -> dict[str, str]:
        """What of it says which training it is; nothing for classification."""
        own = {"loss": self.loss, "metric": self.metric}
        return {what: _name(function) for what, function in own.items() if function is not None}

    def losses(self, outputs: Any, batch: Batch, smoothing: float = 0.0) -> Tensor:
        """The loss of a batch, a scalar.

        Raises:
            InputError: a label is none of the outputs' classes, or a person's loss fails or gives no scalar.
        """
        if self.loss is None:
            check_labels(outputs, batch)
            return F.cross_entropy(outputs, batch.targets, label_smoothing=smoothing)
        found = _asked(self.loss, "loss", outputs, batch)
        if not isinstance(found, Tensor) or found.dim() or not found.is_floating_point():
            raise InputError(f"the loss {_name(self.loss)} gives {_shown(found)}, not one number; take its .mean()")
        return found

    def total_loss(self, outputs: Any, batch: Batch) -> float:
        """The loss of a batch times its items, for tests."""
        if self.loss is None:
            check_labels(outputs, batch)
            return F.cross_entropy(outputs, batch.targets, reduction="sum").item()
        return self.losses(outputs, batch).item() * batch.count

    def total(self, outputs: Any, batch: Batch) -> float:
        """The metric times the batch's items; right answers are whole numbers.

        Raises:
            InputError: a person's metric fails, or gives no number.
        """
        if self.metric is None:
            if self.loss is not None and not _is_classified(outputs, batch):
                raise InputError(
                    "the share of right classes makes no sense of these outputs and targets; give a metric beside the loss"
                )
            return int((outputs.argmax(1) == batch.targets).sum())
        found = _asked(self.metric, "metric", outputs, batch)
        if isinstance(found, Tensor) and not found.dim():
            found = found.item()
        if isinstance(found, Tensor) or not isinstance(found, int | float):
            raise InputError(f"the metric {self.name} gives {_shown(found)}, not one number")
        return float(found) * batch.count


CLASSIFICATION = Measure()


@dataclass(frozen=True, eq=False)
class Task:
    """What a person's function gives: data for training and tests, and if need be how to measure.

    Attributes:
        training: a torch ``Dataset`` of pairs of inputs and target, or a ``DataLoader`` of batches of such pairs; inputs may be
            several by position (a tuple) or by name (a dict).
        test: the same.
        loss: see `Measure`.
        metric: see `Measure`.
        classes: names of the model's outputs; none if they are no classes.
    """

    training: Data = field(repr=False)
    test: Data = field(repr=False)
    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Callable[[Any, Any], Any] | None = None
    classes: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        return Measure(self.loss, self.metric)


def task_of(given: Any, name: str) -> Task:
    """A task from what a person's function gave: one, a pair of training and test data, or a dict with a `Task`'s names.

    Raises:
        InputError: it is neither.
    """
    if isinstance(given, Task):
        return given
    if isinstance(given, tuple | list) and len(given) == 2:
        return Task(*given)
    known = [entry.name for entry in fields(Task)]
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in known]
        missing = [key for key in ("training", "test") if key not in given]
        if not unknown and not missing:
            return Task(**{**given, "classes": tuple(given.get("classes", ()))})
        wrong = f"has no '{missing[0]}'" if missing else f"has '{unknown[0]}'"
        raise InputError(
            f"the dict that '{name}' gives {wrong}; its keys are {', '.join(known)}, of which two must be there"
        )
    raise InputError(
        f"'{name}' gives {_shown(given)}; it has to give (training, test), or a dict with these and loss, metric, classes"
    )


def check_labels(outputs: Any, batch: Batch) -> None:
    """Raises InputError unless outputs are scores of classes (N, classes, ...), and the labels are places of such."""
    if not isinstance(outputs, Tensor) or outputs.dim() < 2:
        raise InputError(f"the model gives {_shown(outputs)}, not (N, classes); give a loss for that")
    if batch.labels is not None and outputs.dim() == 2:
        wrong = next((label for label in batch.labels if not 0 <= label < outputs.shape[1]), None)
        if wrong is not None:
            raise InputError(
                f"a label is {wrong}, and the model gives {outputs.shape[1]} classes, whose labels are 0 to"
                f" {outputs.shape[1] - 1}"
            )


def _is_classified(outputs: Any, batch: Batch) -> bool:
    return isinstance(outputs, Tensor) and outputs.dim() >= 2 and batch.labels is not None


def _asked(function: Callable[[Any, Any], Any], what: str, outputs: Any, batch: Batch) -> Any:
    try:
        return function(outputs, batch.targets)
    except InputError:
        raise
    except Exception as error:
        raise failure(f"the {what} {_name(function)} fails", error, function) from error


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {'x'.join(map(str, value.shape)) or 'no axes'} ({str(value.dtype).removeprefix('torch.')})"
    return f"a {type(value).__name__}"

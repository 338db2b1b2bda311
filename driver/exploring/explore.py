"""`reconvene.explore`: from a trained model to a front."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import fx

from ...backends.machines.targets import Target, find_target
from ...frontend.arguments import Inputs
from ...frontend.base.arrays import as_tensors
from ...frontend.base.turns import tracing_in_turn
from ...frontend.capture import Model
from ...frontend.graph_module import CapturedModule
from ...passes.pruning.methods import find_method
from ...passes.pruning.methods.constrained import ConstrainedMethod
from ..api import captured, title_of
from ..models import dynamic_shapes
from ..shrinking.course import Settings as Shrinking
from ..training.hardware import Hardware
from ..training.presets import Preset, find_preset
from ..training.sources import Data
from ..training.tasks import CLASSIFICATION, Measure
from .result import Exploration
from .run import Task, explored
from .settings import Settings, shrinking_by

if TYPE_CHECKING:
    from ...backends.boards.place import Place

__all__ = ["explore"]

_USUAL = Settings()
_HERE = Hardware()


def explore(
    model: Model,
    example_inputs: Inputs | None,
    training: Data,
    test: Data,
    folder: str | os.PathLike[str],
    target: str | Target = "host",
    budgets: Sequence[float] = _USUAL.budgets,
    *,
    variants: Sequence[str] = _USUAL.variants,
    preset: str | Preset = "laptop",
    method: str | ConstrainedMethod = "one-shot",
    teacher: Model | None = None,
    difficulty: Literal["hard", "easy"] = "easy",
    beta: float = 0.2,
    ignore: Sequence[str] = (),
    shrinking: str | Shrinking = "rl-pruner-laptop",
    timed_by: Literal["model", "cycles", "time"] = "model",
    told_by: Literal["time", "estimate", "model"] | None = None,
    on: Place | None = None,
    measure: Measure = CLASSIFICATION,
    machine: Hardware = _HERE,
    seed: int = 0,
) -> Exploration:
    """Finds, for each budget of time, several smaller networks, trains, compiles and times them, and says which are best.

    Called again with the same arguments after a kill, it goes on, and ends with the same networks; what was measured stays.

    Args:
        model: as for `capture`, trained; the batch of a module may vary, that of a program must.
        example_inputs: as for `capture`.
        training: images to train on, ``Images``; or a torch ``Dataset`` of pairs of inputs and target.
        test: the same, that accuracy is told on. Nothing is decided by it.
        folder: for all that is made; empty, or of this very exploration.
        target: where it is to run: a preset's name or a Target.
        budgets: shares of the dense network's time, above 0 and below 1.
        variants: what is made for each budget: ``channels`` (the smallest go, one share of every layer),
            ``channels:knapsack`` (the widths that keep most importance), ``channels:rl-pruner`` (step by step, as
            ``reconvene shrink`` does, with the time as reward), ``mapped`` (a structure of zeros for each layer, by
            `MappingRules`), ``searched`` (the same by a search of minutes, with accuracy on a tenth of the training images), or
            a structure by its name, such as ``row-block:4``.
        preset: of the training that each variant gets.
        method: what trains with zeros inside of layers, of ``reconvene.passes.pruning.methods``: ``one-shot``, ``gradual``,
            ``admm``, ``reweighted``.
        teacher: a model of the same classes that all of them are to be like, such as `model` itself.
        difficulty: of the data: ``hard``, such as ImageNet, or ``easy``, such as CIFAR-10; for ``mapped``.
        beta: of these rules.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave as they are.
        shrinking: steps, search and training of ``channels:rl-pruner``: a preset, or all of it.
        timed_by: who tells times while what meets a budget is searched for, as for `prune`.
        told_by: who tells the times of the front: ``time`` has a clock, this machine's, where all are measured by turns in one
            run, or the board's; ``estimate`` models the compiled code, ``model`` is the formula. None: ``time`` for the host
            and where there is a board, else ``estimate``.
        on: the board that measures.
        measure: loss and metric of a task that is no classification; the metric is to be large.
        machine: where and how to train.
        seed: of everything that is random.

    Raises:
        InputError: the model, the data or an option cannot be used, or the folder holds something else.
        CheckError: a smaller network, or compiled code, differs from what it was made of.
    """
    where = find_target(target)
    settings = Settings(
        tuple(budgets),
        (variants,) if isinstance(variants, str) else tuple(variants),
        find_preset(preset) if isinstance(preset, str) else preset,
        find_method(method, ConstrainedMethod) if isinstance(method, str) else method,  # type: ignore[type-abstract]
        difficulty,
        beta,
        (ignore,) if isinstance(ignore, str) else tuple(ignore),
        shrinking_by(shrinking) if isinstance(shrinking, str) else shrinking,
        timed_by=timed_by,
        told_by=told_by,
    )
    settings.check(where, on is not None)
    module, inputs = _with_a_batch(model, example_inputs)
    taught_by = None if teacher is None else _with_a_batch(teacher, inputs)[0]
    task = Task(
        module, inputs, training, test, settings, Path(folder), where, title_of(model), on, taught_by, machine, seed,
        measure,
    )  # fmt: skip
    return explored(task)


@tracing_in_turn
def _with_a_batch(model: Model, example_inputs: Inputs | None) -> tuple[CapturedModule, tuple[object, ...]]:
    """A model whose batch may vary, as it does in training, and inputs that fit it."""
    given = as_tensors(example_inputs)
    fresh = isinstance(model, torch.nn.Module) and not isinstance(model, fx.GraphModule) and given is not None
    return captured(model, given, dynamic_shapes(tuple(given), ("batch",)) if fresh and given is not None else None)

"""Sparse training: levels of rising sparsity, each trained to its end.

Three ways to the zeros. *Iterative* magnitude pruning with rewinding (Frankle et al., "Stabilizing the Lottery Ticket
Hypothesis", 2019, arXiv:1903.01611; DNNShifter's way) follows: every level removes the smallest weights of the level before,
puts what stays back to its values of an early step, and trains again. *At initialization*: each level's mask is found by a
score on the untrained network, so that levels do not wait for each other. *In training*: each level begins with the initial
weights, and the method's hooks find its zeros.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_regular, read_text, replacing, write_text
from ...frontend.base.json_text import parse_json
from ...frontend.base.tensor_files import parse_tensors
from ...frontend.data.facts import DataFacts
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import load_program, save_program
from ...passes.pruning.methods import find_method
from ...passes.pruning.methods.base import SparseMethod, TrainingMethod, WeightMethod
from ...passes.pruning.methods.iterative import Iterative
from ...passes.pruning.scores import Batch, Evidence
from .checkpoint import fingerprint
from .loop import CHECKPOINT, Hardware, train
from .presets import Preset, recorded
from .sources import Data, recorded_data, steps_per_epoch
from .tasks import CLASSIFICATION, Measure

__all__ = ["LEVELS_FILE", "Ladder", "Level", "open_levels", "rewind_step", "train_levels"]

_HERE = Hardware()
LEVELS_FILE = "levels.json"
_FORMAT = "reconvene-levels/1"
_LEVEL_FILE, _MASKS, _MODEL, _START = "level.json", "masks.safetensors", "model.pt2", "start"


@dataclass(frozen=True)
class Ladder:
    """Which levels there are.

    Attributes:
        levels: how many beside the dense one, which is level 0.
        share: of the weights that remain, removed at every level; level n keeps ``(1 - share) ** n``.
        method: of `pruning.methods.METHODS`, one that zeroes weights.
        rewind: for a method that follows, such as ``iterative``: where the weights go back to, in steps (``500it``) or
            epochs (``1ep``).
        ignore: patterns (``fnmatch``) of weights that stay whole and do not count.
    """

    levels: int = 8
    share: float = 0.2
    method: str = Iterative.name
    rewind: str = "0it"
    ignore: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises InputError for a ladder that cannot be climbed."""
        if self.levels < 1:
            raise InputError(f"{self.levels} levels prune nothing; give 1 or more")
        if not (math.isfinite(self.share) and 0 < self.share < 1):
            raise InputError(f"a share of {self.share} is not between 0 and 1; 0.2 is what DNNShifter takes")
        _ = self.chosen
        rewind_step(self.rewind, 1, 1 << 62)

    @property
    def chosen(self) -> SparseMethod:
        """The method. Raises InputError if there is none of that name that zeroes weights."""
        return find_method(self.method, SparseMethod)

    @property
    def follows(self) -> bool:
        """Whether a level begins with what the level before it left."""
        return isinstance(self.chosen, WeightMethod) and self.chosen.follows

    def sparsity(self, level: int) -> float:
        """Share of all weights that are zero at a level."""
        return 1 - (1 - self.share) ** level


@dataclass(frozen=True)
class Level:
    """One trained level.

    Attributes:
        number: 0 for dense.
        model: its ``.pt2``; masked weights are zeros in it.
        weights: of convolutions and linear layers, those that `Ladder.ignore` names left out.
        zeros: how many of them are masked.
        accuracy: on the test images after the last epoch, 0..1; or another metric.
        seconds: of training.
    """

    number: int
    model: Path
    weights: int
    zeros: int
    accuracy: float
    seconds: float

    @property
    def name(self) -> str:
        return f"level-{self.number:02d}"


@dataclass(frozen=True)
class _Task:
    """What all levels share."""

    module: CapturedModule = field(repr=False)
    inputs: tuple[Any, ...] = field(repr=False)
    training: Data = field(repr=False)
    test: Data = field(repr=False)
    preset: Preset
    ladder: Ladder
    folder: Path
    machine: Hardware
    seed: int
    checkpoint_every: int
    batches: tuple[Batch, ...] = field(default=(), repr=False)
    teacher: CapturedModule | None = field(default=None, repr=False)
    measure: Measure = CLASSIFICATION
    workers: int = 0
    facts: DataFacts | None = None


def train_levels(
    module: CapturedModule,
    example_inputs: tuple[Any, ...],
    training: Data,
    test: Data,
    preset: Preset,
    ladder: Ladder,
    folder: Path,
    *,
    machine: Hardware = _HERE,
    seed: int = 0,
    batches: tuple[Batch, ...] = (),
    teacher: CapturedModule | None = None,
    measure: Measure = CLASSIFICATION,
    workers: int = 0,
    facts: DataFacts | None = None,
    checkpoint_every: int = 100,
) -> Iterator[Level]:
    """Trains level after level and gives each as it is done. Killed at any moment and called again, it goes on.

    Args:
        module: a captured classifier with its initial weights; it is left as it was.
        example_inputs: that fit it.
        training: what to train on, as for `train`.
        test: what accuracy is measured on.
        preset: the training of every level.
        ladder: the levels.
        folder: gets ``levels.json`` and one folder a level: ``model.pt2``, ``masks.safetensors``, log and curves.
        machine: where and how to compute.
        seed: of the images' order and changes; the same at every level.
        batches: for scores at initialization that need data.
        teacher: of every level, as for `train`.
        measure: as for `train`.
        workers: as for `train`.
        facts: what the models' files are to say of the data.
        checkpoint_every: steps between checkpoints.

    Raises:
        InputError: an option is not usable, or the folder holds other levels.
    """
    ladder.check()
    preset.check()
    steps = steps_per_epoch(training, preset.batch, preset.train_images)
    rewind_step(ladder.rewind, steps, preset.epochs * steps)
    task = _Task(
        module, example_inputs, training, test, preset, ladder, folder, machine, seed, checkpoint_every, batches,
        teacher, measure, workers, facts,
    )  # fmt: skip
    _claim(task)
    return _climb(task, steps)


def open_levels(folder: Path) -> tuple[Level, ...]:
    """The levels in `folder` that are done.

    Raises:
        InputError: there are none, or the folder's description is damaged.
    """
    _described(folder)
    found = [level for place in sorted(folder.glob("level-*")) if (level := _finished(place)) is not None]
    if not found:
        raise InputError(f"'{folder}' has no finished level yet; run reconvene train-levels again, it goes on")
    return tuple(sorted(found, key=lambda level: level.number))


def rewind_step(text: str, steps: int, last: int) -> int:
    """``500it`` or ``2ep`` as a step, with that many `steps` an epoch.

    Raises:
        InputError: it is neither, or not before the `last` step.
    """
    matched = re.fullmatch(r"(\d+)(it|ep)", text)
    if not matched:
        raise InputError(f"'{text}' is no place to rewind to; write steps as 500it or epochs as 1ep")
    step = int(matched[1]) * (steps if matched[2] == "ep" else 1)
    if step >= last:
        raise InputError(f"rewinding to step {step} leaves nothing to train; the training has {last} steps")
    return step


def _claim(task: _Task) -> None:
    """Makes the folder this ladder's own. Raises InputError if it is another's."""
    settings = {
        **recorded(task.preset, task.teacher is not None),
        **asdict(task.machine),
        **asdict(task.ladder),
        "seed": task.seed,
        "data": recorded_data(task.training, task.test),
        **task.measure.recorded(),
    }
    del settings["levels"]  # More may be asked for later.
    if task.teacher is not None:
        settings["teacher"] = fingerprint({}, task.teacher, {})
    identity = fingerprint(settings, task.module, {})
    path = task.folder / LEVELS_FILE
    if path.exists():
        if _described(task.folder)["identity"] != identity:
            raise InputError(f"'{task.folder}' holds levels of another model, data or settings; choose another folder")
        return
    if task.folder.exists() and any(task.folder.iterdir()):
        raise InputError(f"'{task.folder}' is not empty and holds no levels; choose an empty or a new folder")
    task.folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format": _FORMAT, "identity": identity, "settings": settings}, indent=1) + "\n")


def _described(folder: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text(folder / LEVELS_FILE))
        if found["format"] != _FORMAT:
            raise ValueError
        return {"identity": found["identity"], "settings": dict(found["settings"])}
    except OSError:
        raise InputError(f"'{folder}' holds no levels; make some with reconvene train-levels") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"'{folder / LEVELS_FILE}' is damaged; train the levels into another folder") from None


def _climb(task: _Task, steps: int) -> Iterator[Level]:
    masks: dict[str, Tensor] = {}
    for number in range(task.ladder.levels + 1):
        place = task.folder / f"level-{number:02d}"
        done = _finished(place)
        if done is None:
            done = _trained(task, place, number, _masks(task, number, masks), steps)
        yield done
        masks = _load_masks(place)


def _masks(task: _Task, number: int, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a level, from the level before it or from the initial weights; none where the training finds them."""
    method, model = task.ladder.chosen, task.module
    if not isinstance(method, WeightMethod):
        return {}
    if task.ladder.follows and number:
        model, _ = load_program(task.folder / f"level-{number - 1:02d}" / _MODEL)
    evidence = Evidence(task.inputs, task.batches, seed=task.seed)
    return method.masks(model, evidence, task.ladder.sparsity(number), before=before, ignore=task.ladder.ignore)


def _trainer(task: _Task, number: int) -> TrainingMethod | None:
    """What finds a level's zeros in training."""
    method, ladder = task.ladder.chosen, task.ladder
    if not isinstance(method, TrainingMethod):
        return None
    return method.with_options({"sparsity": ladder.sparsity(number), "ignore": ladder.ignore})


def _trained(task: _Task, place: Path, number: int, masks: Mapping[str, Tensor], steps: int) -> Level:
    """Trains a level from where the ladder rewinds to, and writes it; its last file says that it is whole."""
    begin = rewind_step(task.ladder.rewind, steps, task.preset.epochs * steps)
    begin = begin if task.ladder.follows else 0
    method = _trainer(task, number)
    common: dict[str, Any] = {
        "machine": task.machine,
        "seed": task.seed,
        "checkpoint_every": task.checkpoint_every,
        "teacher": task.teacher,
        "measure": task.measure,
        "workers": task.workers,
    }
    start = task.module
    if begin:
        preset = dataclasses.replace(task.preset, ema=0.0)  # What is rewound to are weights, not their average.
        early = train(task.module, task.training, task.test, preset, task.folder / _START, last_step=begin, **common)
        assert isinstance(early.module, CapturedModule)
        start = early.module
    done = train(
        start, task.training, task.test, task.preset, place, masks=masks, method=method, first_step=begin, **common
    )
    assert isinstance(done.module, CapturedModule)
    if method is not None:
        masks = {name: weight.detach() != 0 for name, weight in method.weights(done.module).items()}
    save_program(done.module, task.inputs, place / _MODEL, data=task.facts)
    with replacing(place / _MASKS) as temporary:
        temporary.write_bytes(save({name: mask.to(torch.uint8).contiguous() for name, mask in masks.items()}))
    level = Level(
        number,
        place / _MODEL,
        sum(mask.numel() for mask in masks.values()),
        sum(int((~mask).sum()) for mask in masks.values()),
        done.score,
        done.seconds,
    )
    facts = {name: value for name, value in asdict(level).items() if name != "model"}
    write_text(place / _LEVEL_FILE, json.dumps({**facts, "sparsity": task.ladder.sparsity(number)}, indent=1) + "\n")
    (place / CHECKPOINT).unlink(missing_ok=True)
    return level


def _finished(place: Path) -> Level | None:
    try:
        facts = parse_json(read_text(place / _LEVEL_FILE), nonfinite=True)
        return Level(
            int(facts["number"]), place / _MODEL, int(facts["weights"]), int(facts["zeros"]),
            float(facts["accuracy"]), float(facts["seconds"]),
        )  # fmt: skip
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"'{place / _LEVEL_FILE}' is damaged; remove the folder '{place}', it is trained again"
        ) from None


def _load_masks(place: Path) -> dict[str, Tensor]:
    try:
        return {name: mask.bool() for name, mask in parse_tensors(read_regular(place / _MASKS))[0].items()}
    except (OSError, ValueError):
        raise InputError(f"cannot read '{place / _MASKS}'; remove the folder '{place}', it is trained again") from None

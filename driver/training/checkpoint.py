"""The state of a training as one safetensors file, replaced as a whole, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_regular, replacing
from ...frontend.base.json_text import parse_json
from ...frontend.base.tensor_files import parse_tensors
from .optimizers import state_like

__all__ = ["Progress", "Trainee", "fingerprint", "load_checkpoint", "save_checkpoint"]

_FORMAT = "reconvene-training/1"
_MODEL, _AVERAGE, _STATE = "model/", "average/", "method/"
_OPTIMIZER = {"momentum_buffer": "momentum/", "step": "steps/", "exp_avg": "mean/", "exp_avg_sq": "square/"}
"""By the name that the optimizer has for what it keeps of a parameter."""


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        step: steps done, over all epochs.
        seconds: of training so far, those of killed runs up to their last checkpoint included.
        loss: sum of the losses of the epoch under way, times images.
        correct: right answers in the epoch under way, or the sum of another metric, times items.
        rows: the log, one row for each epoch that is over.
        items: of the epoch under way, so far.
        scale: of the loss in float16; 0 where nothing is scaled.
        steady: steps since it changed.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    correct: float = 0
    rows: tuple[dict[str, Any], ...] = field(default=())
    items: int = 0
    scale: float = 0.0
    steady: int = 0


def fingerprint(settings: Mapping[str, Any], module: nn.Module, masks: Mapping[str, Tensor]) -> str:
    """What two runs have in common if, and only if, they are the same training."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in [*sorted(_tensors(module).items()), *sorted(masks.items())]:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Trainee:
    """What is trained, and changes from step to step."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None = None
    """The moving average of the module, if there is one."""


def save_checkpoint(
    path: Path,
    trainee: Trainee,
    progress: Progress,
    identity: str,
    state: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Writes everything a training needs to go on, the method's state included. Raises InputError if that cannot be done."""
    tensors = _places(trainee) | {_STATE + name: tensor for name, tensor in state.items()}
    metadata = {
        "format": _FORMAT,
        "identity": identity,
        "progress": json.dumps(asdict(progress)),
        "state": json.dumps(_kinds(state)),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(
            save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
        )


def load_checkpoint(path: Path, trainee: Trainee, identity: str) -> tuple[Progress, dict[str, Tensor]] | None:
    """Puts a training into the state of a checkpoint; gives the progress, and the method's state on the CPU.

    None, and nothing is done, where there is no checkpoint.

    Raises:
        InputError: the file is damaged, or of another training.
    """
    if not path.exists():
        return None
    try:
        saved, metadata = parse_tensors(read_regular(path))
        if metadata.get("format") != _FORMAT:
            raise InputError(f"'{path}' is no checkpoint of a training; choose another folder, or say --restart")
        if metadata["identity"] != identity:
            raise InputError(
                f"'{path}' is of another training: model, masks, data or settings differ; choose another folder, or"
                " say --restart"
            )
        progress = _progress(metadata["progress"])
        fresh = _fresh_state(saved, trainee)
        _check_fits(saved, {**_stored(trainee), **fresh})
        state = {name.removeprefix(_STATE): tensor for name, tensor in saved.items() if name.startswith(_STATE)}
        if _kinds(state) != parse_json(metadata.get("state", "{}")):
            raise ValueError("another state")
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read '{path}': it is damaged; say --restart to begin anew") from None
    with torch.no_grad():
        for name, parameter in trainee.module.named_parameters():
            kept = {key: fresh[prefix + name] for key, prefix in _OPTIMIZER.items() if prefix + name in fresh}
            if kept:
                trainee.optimizer.state[parameter] = kept
        for place, tensor in _places(trainee).items():
            tensor.copy_(saved[place])
    return progress, state


def _stored(trainee: Trainee) -> dict[str, Tensor]:
    """The tensors of the module and of its average, each by its name in the file."""
    average = {} if trainee.average is None else _tensors(trainee.average)
    return {
        **{_MODEL + name: tensor for name, tensor in _tensors(trainee.module).items()},
        **{_AVERAGE + name: tensor for name, tensor in average.items()},
    }


def _places(trainee: Trainee) -> dict[str, Tensor]:
    """The same with what the optimizer keeps."""
    places = _stored(trainee)
    for name, parameter in trainee.module.named_parameters():
        for key, tensor in trainee.optimizer.state.get(parameter, {}).items():
            if tensor is not None:
                places[_OPTIMIZER[key] + name] = tensor
    return places


def _fresh_state(saved: Mapping[str, Tensor], trainee: Trainee) -> dict[str, Tensor]:
    """New tensors for what the optimizer kept of each parameter: all of it, or nothing where it had no gradient yet.

    Raises:
        KeyError: a part of it is missing.
    """
    fresh: dict[str, Tensor] = {}
    for name, parameter in trainee.module.named_parameters():
        wanted = {_OPTIMIZER[key] + name: like for key, like in state_like(trainee.optimizer, parameter).items()}
        found = wanted.keys() & saved.keys()
        if found and found != wanted.keys():
            raise KeyError(name)
        fresh |= wanted if found else {}
    return fresh


def _kinds(state: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Shapes and types by name: what a method's hooks rely on, whatever it keeps."""
    return {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in state.items()}


def _progress(text: str) -> Progress:
    """Raises ValueError, KeyError or TypeError if that is none."""
    values = parse_json(text, nonfinite=True)
    progress = Progress(**values | {"rows": tuple(values["rows"])})
    counts = (progress.step, progress.items, progress.steady)
    figures = (progress.seconds, progress.loss, progress.correct, progress.scale)
    if not all(type(value) is int and value >= 0 for value in counts) or not all(
        isinstance(value, int | float) for value in figures
    ):
        raise ValueError("no progress")
    if not all(isinstance(row, dict) for row in progress.rows):
        raise ValueError("no log")
    return progress


def _check_fits(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError or KeyError unless these are such tensors."""
    for name, tensor in wanted.items():
        if (saved[name].shape, saved[name].dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"'{name}' is another tensor")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}

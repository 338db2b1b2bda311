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

__all__ = ["Progress", "fingerprint", "load_checkpoint", "remove_leftovers", "save_checkpoint"]

_FORMAT = "reconvene-training/1"
_MODEL, _MOMENTUM, _STATE = "model/", "momentum/", "method/"


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        step: steps done, over all epochs.
        seconds: of training so far, those of killed runs up to their last checkpoint included.
        loss: sum of the losses of the epoch under way, times images.
        correct: right answers in the epoch under way.
        rows: the log, one row for each epoch that is over.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    correct: int = 0
    rows: tuple[dict[str, Any], ...] = field(default=())


def fingerprint(settings: Mapping[str, Any], module: nn.Module, masks: Mapping[str, Tensor]) -> str:
    """What two runs have in common if, and only if, they are the same training."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in [*sorted(_tensors(module).items()), *sorted(masks.items())]:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: str,
    state: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Writes everything a training needs to go on, the method's state included. Raises InputError if that cannot be done."""
    tensors = {_MODEL + name: tensor.detach().cpu() for name, tensor in _tensors(module).items()}
    for name, parameter in module.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = momentum.detach().cpu()
    tensors |= {_STATE + name: tensor.detach().cpu() for name, tensor in state.items()}
    metadata = {
        "format": _FORMAT,
        "identity": identity,
        "progress": json.dumps(asdict(progress)),
        "state": json.dumps(_kinds(state)),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, identity: str
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Puts `module` and `optimizer` into the state of a checkpoint; gives the progress, and the method's state on the CPU.

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
        _check_fits(saved, module)
        state = {name.removeprefix(_STATE): tensor for name, tensor in saved.items() if name.startswith(_STATE)}
        if _kinds(state) != parse_json(metadata.get("state", "{}")):
            raise ValueError("another state")
    except (OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read '{path}': it is damaged; say --restart to begin anew") from None
    with torch.no_grad():
        for name, tensor in _tensors(module).items():
            tensor.copy_(saved[_MODEL + name])
        for name, parameter in module.named_parameters():
            if _MOMENTUM + name in saved:
                optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(
                    saved[_MOMENTUM + name]
                )
    return progress, state


def _kinds(state: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Shapes and types by name: what a method's hooks rely on, whatever it keeps."""
    return {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in state.items()}


def _progress(text: str) -> Progress:
    """Raises ValueError, KeyError or TypeError if that is none."""
    values = parse_json(text, nonfinite=True)
    progress = Progress(**values | {"rows": tuple(values["rows"])})
    counts, figures = (progress.step, progress.correct), (progress.seconds, progress.loss)
    if not all(type(value) is int and value >= 0 for value in counts) or not all(
        isinstance(value, int | float) for value in figures
    ):
        raise ValueError("no progress")
    if not all(isinstance(row, dict) for row in progress.rows):
        raise ValueError("no log")
    return progress


def _check_fits(saved: Mapping[str, Tensor], module: nn.Module) -> None:
    """Raises ValueError or KeyError unless these are the tensors of such a module."""
    momenta = {
        _MOMENTUM + name: parameter for name, parameter in module.named_parameters() if _MOMENTUM + name in saved
    }
    for name, tensor in [*((_MODEL + name, tensor) for name, tensor in _tensors(module).items()), *momenta.items()]:
        if (saved[name].shape, saved[name].dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"'{name}' is another tensor")


def remove_leftovers(path: Path) -> None:
    """Removes the unfinished files that killed runs left beside `path`; no other run may be writing there."""
    for leftover in path.parent.glob(f".{path.stem}-*{path.suffix}"):
        leftover.unlink(missing_ok=True)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}

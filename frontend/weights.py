"""Weights from a file, put into a model: under its names, or it is said which do not fit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from .base.errors import InputError
from .base.shown_text import shown
from .unwrapping import unwrapped
from .weights_file import read_weights

__all__ = ["load_weights", "place_and_key"]

M = TypeVar("M", bound=nn.Module)

_INSIDE = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What wrappers put into names, wherever they wrap."""
_IN_FRONT = ("module.", "model.")
"""What ``DataParallel`` and averages, and the modules of training frameworks, put before all names."""
_SHOWN = 3


def load_weights(model: M, path: str | os.PathLike[str], *, key: str | None = None) -> M:
    """Puts trained weights into `model`, which is given back.

    The file is a state dict as ``torch.save(model.state_dict(), path)`` or safetensors writes it, or a checkpoint that has one
    as ``state_dict``, ``model_state_dict``, ``model`` or ``ema``. What wrappers put into names (``module.``, ``_orig_mod.``) is
    taken off, and weights that ``torch.nn.utils.prune`` left with a mask are multiplied by it. Nothing in the file is unpickled
    but tensors and plain containers.

    Args:
        model: changed in place, all of it or nothing; wrappers such as ``torch.compile``'s may be around it.
        path: of the file.
        key: which entry of a checkpoint, where it has several state dicts.

    Raises:
        InputError: no such file, damaged, one that would have to be unpickled, or names and shapes are not the model's.
    """
    plain = unwrapped(model)
    named = [*plain.named_parameters(remove_duplicate=False), *plain.named_buffers(remove_duplicate=False)]
    stored = plain.state_dict()
    own: dict[str, Tensor] = {name: value for name, value in named if name in stored}
    found = _without_masks(_renamed(read_weights(path, key), own, path), own)
    _check(found, own, type(plain).__name__, path)
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)
    return model


def place_and_key(given: str) -> tuple[str, str | None]:
    """``net.pth`` or ``net.pth:ema`` as the file and the entry of a checkpoint."""
    place, colon, key = given.rpartition(":")
    if not colon or Path(given).exists() or not place or "/" in key:
        return given, None
    return place, key


def _renamed(found: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights without what wrappers put into their names; names of the model's own stay."""
    named = {_plain(name, own): name for name in found}
    if len(named) < len(found):
        raise InputError(
            f"the weights in '{os.fspath(path)}' have a name twice, once with '_orig_mod.'; save them anew"
        )
    while True:
        front = next((front for front in _IN_FRONT if all(n.startswith(front) for n in named if n != _COUNT)), None)
        if front is None or any(name in own for name in named):
            break
        named = {name.removeprefix(front): was for name, was in named.items() if name != _COUNT}
    return {name: found[was] for name, was in named.items()}


_COUNT = "n_averaged"
"""How many models ``AveragedModel`` has seen; it stands beside ``module.``."""


def _plain(name: str, own: Mapping[str, Tensor]) -> str:
    if name not in own:
        for part in _INSIDE:
            name = name.replace(part, "")
    return name


def _without_masks(found: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weight_orig`` and ``weight_mask`` of ``torch.nn.utils.prune`` as the ``weight`` that they make."""
    result = dict(found)
    for name, mask in found.items():
        stem = name.removesuffix("_mask")
        whole = found.get(f"{stem}_orig")
        if stem != name and whole is not None and stem in own and name not in own and whole.shape == mask.shape:
            result[stem] = whole * mask.to(whole.dtype)
            del result[name], result[f"{stem}_orig"]
    return result


def _check(found: Mapping[str, Tensor], own: Mapping[str, Tensor], model: str, path: str | os.PathLike[str]) -> None:
    """Raises InputError, with the first names of each kind, unless every tensor has its place and every place its tensor."""
    given = {id(own[name]) for name in found if name in own}
    # A tensor with two names is written under one of them; old files do not count batches.
    missing = [
        name
        for name, value in own.items()
        if name not in found and id(value) not in given and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in found if name not in own]
    other = [
        f"{name} ({_told(value)} in the file, {_told(own[name])} in the model)"
        for name, value in found.items()
        if name in own and not _fits(value, own[name])
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape or type", other))
    wrong = [f"{len(names)} {what}: {_first(names)}" for what, names in kinds if names]
    if wrong:
        raise InputError(
            f"the weights in '{os.fspath(path)}' are not those of {model}: {'; '.join(wrong)}; build the model with the sizes"
            " that it was trained with"
        )


def _fits(value: Tensor, place: Tensor) -> bool:
    kinds = {(tensor.is_floating_point(), tensor.is_complex(), tensor.dtype is torch.bool) for tensor in (value, place)}
    return value.shape == place.shape and len(kinds) == 1


def _told(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'number'}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_SHOWN])) + (" ..." if len(names) > _SHOWN else "")

"""Weights from a file, put into a model: under its names, or it is said which do not fit."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .base.errors import InputError
from .unwrapping import unwrapped
from .weights_file import StateDict, key_advice, read_weights
from .weights_loading import put_into

__all__ = ["load_weights", "place_and_key"]

M = TypeVar("M", bound=nn.Module)

_INSIDE = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What wrappers put into names, wherever they wrap."""
_IN_FRONT = ("module.", "model.")
"""What ``DataParallel`` and averages, and the modules of training frameworks, put before all names."""


def load_weights(model: M, path: str | os.PathLike[str], *, key: str | None = None) -> M:
    """Puts trained weights into `model`, which is given back.

    The file is a state dict as ``torch.save(model.state_dict(), path)`` or safetensors writes it, or a checkpoint that has one
    as ``state_dict``, ``model_state_dict``, ``model`` or ``ema``. What wrappers put into names (``module.``, ``_orig_mod.``) is
    taken off, and weights that ``torch.nn.utils.prune`` left with a mask are multiplied by it. Nothing in the file is unpickled
    but tensors and plain containers. They go in by the model's own ``load_state_dict``, so that what it does about the state
    of older versions, and about extra state of modules, is done.

    Args:
        model: changed in place, all of it or nothing; wrappers such as ``torch.compile``'s may be around it.
        path: of the file.
        key: which entry of a checkpoint, where it has several state dicts.

    Raises:
        InputError: no such file, damaged, one that would have to be unpickled, or it does not fit: names and shapes
            are not the model's, a number lies outside of what the model's type can hold, tied weights differ in the file, or
            the model has no memory for numbers yet (lazy, or on the meta device).
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"cannot load weights into a {type(model).__name__}; give a torch.nn.Module")
    plain = unwrapped(model)
    own = _own(plain)
    state = read_weights(path, key)
    names = _renamed(state.entries, {*own, *plain.state_dict()}, path)
    found = _without_masks({name: state.entries[was] for name, was in names.items()}, own)
    try:
        put_into(plain, found, own, _versions(state, names))
    except InputError as error:
        inside = f"; or did you mean {key_advice(os.fspath(path), state.others)}?" if state.others else ""
        raise InputError(f"the weights in '{os.fspath(path)}' {error}{inside}") from None
    return model


def _own(model: nn.Module) -> dict[str, Tensor]:
    """The places for tensors in a model, under all of their names. Raises InputError where there is none yet."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, place in named:
        if is_lazy(place):
            raise InputError(f"'{name}' of {type(model).__name__} has no shape yet; call the model on an example first")
        if place.is_meta:
            raise InputError(
                f"'{name}' of {type(model).__name__} is on the meta device, where no numbers are; make room for them first:"
                " model.to_empty(device='cpu')"
            )
    return dict(named)


def place_and_key(given: str) -> tuple[str, str | None]:
    """``net.pth`` or ``net.pth:ema`` as the file and the entry of a checkpoint."""
    place, colon, key = given.rpartition(":")
    if not colon or os.path.exists(given) or not place or "/" in key:
        return given, None
    return place, key


def _renamed(found: Mapping[str, Any], own: Collection[str], path: str | os.PathLike[str]) -> dict[str, str]:
    """By the names without what wrappers put into them, those of the file; names of the model's own stay."""
    named = {_plain(name, own): name for name in found}
    if len(named) < len(found):
        raise InputError(
            f"the weights in '{os.fspath(path)}' have a name twice, once with '_orig_mod.'; save them anew"
        )
    while not any(name in own for name in named):
        tensors = [name for name, was in named.items() if name != _COUNT and isinstance(found[was], Tensor)]
        front = next((front for front in _IN_FRONT if tensors and all(n.startswith(front) for n in tensors)), None)
        if front is None:
            break
        named = {name.removeprefix(front): was for name, was in named.items() if name != _COUNT}
    return named


def _versions(state: StateDict, names: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Those of modules in torch's form, by the modules' names in the model."""
    found: dict[str, dict[str, int]] = {}
    for name, was in names.items():
        inner, outer = name, was
        while inner:
            # "conv.weight" was "module.conv.weight": going up from the end, both lose one part at a time.
            inner, outer = inner.rpartition(".")[0], outer.rpartition(".")[0]
            if outer in state.versions:
                found.setdefault(inner, {"version": state.versions[outer]})
    return found


_COUNT = "n_averaged"
"""How many models ``AveragedModel`` has seen; it stands beside ``module.``."""


def _plain(name: str, own: Collection[str]) -> str:
    if name not in own:
        for part in _INSIDE:
            name = name.replace(part, "")
    return name


def _without_masks(found: dict[str, Any], own: Collection[str]) -> dict[str, Any]:
    """``weight_orig`` and ``weight_mask`` of ``torch.nn.utils.prune`` as the ``weight`` that they make."""
    result = dict(found)
    for name, mask in found.items():
        stem = name.removesuffix("_mask")
        whole = found.get(f"{stem}_orig")
        if stem == name or stem not in own or name in own:
            continue
        if isinstance(whole, Tensor) and isinstance(mask, Tensor) and whole.shape == mask.shape:
            result[stem] = whole * mask.to(whole.dtype)
            del result[name], result[f"{stem}_orig"]
    return result

"""A state dict into a model, by the model's own ``load_state_dict``: all of it as it is in the file, or nothing.

Torch copies whatever has the right shape: 300 becomes 44 in a buffer of bytes, 1e6 infinite in half precision, and of tied
weights that differ in the file the last one stays. Every copy is looked at here, and if one is wrong all are taken back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .base.errors import InputError
from .base.shown_text import shown
from .snapshot import unchanged_on_error

__all__ = ["put_into"]

_SHOWN = 3
_COPIES = (Tensor.copy_, Tensor.module_load)
_OTHER = "of another shape or type"


def put_into(
    model: nn.Module, state: Mapping[str, Any], own: Mapping[str, Tensor], versions: Mapping[str, Mapping[str, int]]
) -> None:
    """Loads `state` into `model`, whose parameters and buffers are `own`.

    Args:
        model: changed in place, or not at all.
        state: by name, tensors and extra state of modules.
        own: by every name that they have.
        versions: by the name of a module, as in ``state_dict()._metadata``.

    Raises:
        InputError: it does not fit; the message begins with a verb.
    """
    given: OrderedDict[str, Any] = OrderedDict(state)
    given._metadata = {name: dict(version) for name, version in versions.items()}  # type: ignore[attr-defined]
    copies = _Copies(own)
    with unchanged_on_error(model):
        try:
            with copies:
                result = model.load_state_dict(given, strict=False)
        except MemoryError:
            raise
        except Exception as error:  # Torch's own, and whatever hooks of the model raise.
            _refuse(model, _by_names(state, own, copies))
            raise InputError(f"cannot be loaded into {type(model).__name__}: {_reason(error)}") from None
        known = model.state_dict().keys()  # For a model whose own load_state_dict gives nothing back.
        # A tensor with two names is written under one of them; old files do not count batches.
        missing = [
            name
            for name in getattr(result, "missing_keys", known)
            if not name.endswith("num_batches_tracked") and (name not in own or id(own[name]) not in copies.places)
        ]
        unexpected = list(getattr(result, "unexpected_keys", [name for name in state if name not in known]))
        _refuse(model, {"missing": missing, "unexpected": unexpected, **copies.wrong})


def _refuse(model: nn.Module, kinds: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError with the first names of each kind, if there are any."""
    wrong = [f"{len(names)} {what}: {_first(names)}" for what, names in kinds.items() if names]
    if wrong:
        sizes = any(kinds.get(what) for what in ("missing", "unexpected", _OTHER))
        advice = (
            "build the model with the sizes that it was trained with" if sizes else "convert the model, or the file"
        )
        raise InputError(f"are not those of {type(model).__name__}: {'; '.join(wrong)}; {advice}")


def _by_names(state: Mapping[str, Any], own: Mapping[str, Tensor], copies: _Copies) -> dict[str, list[str]]:
    """What names and shapes alone say, where torch stops before it has said all; nothing if all shapes are right."""
    shapes = [
        _unlike(name, value, own[name])
        for name, value in state.items()
        if name in own and isinstance(value, Tensor) and value.shape != own[name].shape
    ]
    if not shapes:
        return {}
    given = {id(own[name]) for name in state if name in own}
    missing = [n for n, at in own.items() if id(at) not in given and not n.endswith("num_batches_tracked")]
    return {
        "missing": missing,
        "unexpected": [name for name in state if name not in own],
        _OTHER: [*shapes, *copies.wrong[_OTHER]],
    }


class _Copies(TorchFunctionMode):
    """Looks at everything that is copied into a model's tensors.

    Attributes:
        places: ids of the tensors that got something.
        wrong: by what is wrong, names.
    """

    def __init__(self, own: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names: dict[int, list[str]] = {}
        for name, place in own.items():
            self._names.setdefault(id(place), []).append(name)
        self.places: set[int] = set()
        self.wrong: dict[str, list[str]] = {_OTHER: [], "out of range": [], "tied to another that differs": []}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _COPIES and len(args) > 1 and isinstance(args[1], Tensor) and id(args[0]) in self._names:
            with torch._C.DisableTorchFunction():
                self._look(args[0], args[1])
        return func(*args, **(kwargs or {}))

    def _look(self, place: Tensor, value: Tensor) -> None:
        names = self._names[id(place)]
        if _kind(place) != _kind(value):
            self.wrong[_OTHER].append(_unlike(names[0], value, place))
        elif not _holds(place, value):
            self.wrong["out of range"].append(f"{names[0]} ({_told(value)} into {_told(place)})")
        elif id(place) in self.places and len(names) > 1 and not _same(place, value):
            self.wrong["tied to another that differs"].append(f"{names[-1]} (is {names[0]} in the model)")
        self.places.add(id(place))


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype is torch.bool


def _holds(place: Tensor, value: Tensor) -> bool:
    """Whether every value is there in the type of `place`: rounded at most, not wrapped around or infinite."""
    if place.dtype == value.dtype or value.numel() == 0 or value.dtype is torch.bool:
        return True
    if value.is_complex():
        value, place = torch.view_as_real(value), torch.view_as_real(place.detach())
    if value.is_floating_point():
        wide = value.detach().to(torch.float64)
        there, most = wide.to(place.dtype).to(torch.float64), torch.finfo(place.dtype)
        # Some 8-bit types have no infinity, and keep their largest number instead.
        return bool(((there.isfinite() & (wide.abs() <= most.max * (1 + most.eps))) | ~wide.isfinite()).all())
    numbers, limits = value.detach().cpu().numpy(), torch.iinfo(place.dtype)
    return limits.min <= int(numbers.min()) and int(numbers.max()) <= limits.max


def _same(place: Tensor, value: Tensor) -> bool:
    there, other = place.detach(), value.detach().to(place)
    return there.shape == other.shape and bool(((there == other) | ((there != there) & (other != other))).all())


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if not line.startswith("Error(s) in loading")), type(error).__name__)
    return (
        shown(found.rstrip("."))[:300] if isinstance(error, RuntimeError) else shown(f"{type(error).__name__}: {found}")
    )


def _unlike(name: str, value: Tensor, place: Tensor) -> str:
    return f"{name} ({_told(value)} in the file, {_told(place)} in the model)"


def _told(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'number'}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:_SHOWN])) + (" ..." if len(names) > _SHOWN else "")

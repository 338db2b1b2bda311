"""Weights that were trained elsewhere: a state dict in a ``.pth`` or ``.safetensors`` file, of which nothing is run.

A ``.pth`` file is a pickle, which may run code. It is read by torch's own reader of weights alone (``weights_only``), which
makes tensors and plain containers and nothing else; what holds more is refused.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .base.errors import InputError
from .base.files import read_regular
from .base.limits import check_limit
from .base.pickle_cost import check_pickle_cost
from .base.shown_text import shown
from .base.tensor_files import has_odd_booleans, parse_tensors

__all__ = ["WRAPPERS", "StateDict", "key_advice", "read_weights"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "ema")
"""Under which of its entries a checkpoint may hold the weights."""

_MOST_DEEP = 4
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_ZIP = b"PK\x03\x04"
_SAVED_ANEW = "where it was made, save its weights alone: torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class StateDict:
    """What a file has of a module.

    Attributes:
        entries: by name; all that are tensors are plain ones, and others may be the extra state of a module.
        versions: by the name of a module, of what its class writes; empty where the file does not say.
        others: under which names a state dict lies within this one.
    """

    entries: dict[str, Any]
    versions: dict[str, int]
    others: tuple[str, ...]


def read_weights(path: str | os.PathLike[str], key: str | None = None) -> StateDict:
    """The state dict in a file that ``torch.save`` wrote of one, or of a checkpoint with one, or in a safetensors file.

    Args:
        path: of the file; what is in it decides how it is read, not its name.
        key: which entry of a checkpoint, where it has several state dicts.

    Raises:
        InputError: no such file, damaged, or it holds no state dict, several, or objects that would have to be unpickled.
    """
    try:
        file = Path(os.fsdecode(path))
    except TypeError:
        raise InputError(
            f"weights are read from a file, and a {type(path).__name__} is no path of one; a state dict goes into a model by"
            " model.load_state_dict(...)"
        ) from None
    content = _content(file)
    if len(content) > 9 and content[8:9] == b"{" and not content.startswith(_ZIP):
        try:
            found: Any = parse_tensors(content)[0]
        except ValueError as error:
            raise InputError(f"cannot read the weights in '{file}': {error}; the file is damaged") from None
    else:
        found = _unpickled(file, content)
    state = _state_dict(file, found, key)
    tensors = {name: value for name, value in state.entries.items() if isinstance(value, torch.Tensor)}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(f"'{name}' in '{file}' is no plain tensor; {_SAVED_ANEW}")
    check_limit("array", sum(tensor.nbytes for tensor in tensors.values()), f"'{file}'")
    for name, tensor in tensors.items():
        if has_odd_booleans(tensor):
            raise InputError(
                f"'{name}' in '{file}' holds booleans that are neither true nor false; the file is damaged"
            )
    return state


def _content(file: Path) -> bytes:
    if not os.path.exists(file):  # That of Path raises for names that are too long.
        raise InputError(f"no such file: '{shown(str(file))}'; give weights as torch.save or safetensors wrote them")
    try:
        return read_regular(file)
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror or error}") from None


def _unpickled(file: Path, content: bytes) -> Any:
    pickled = _checked_archive(file, content) if content.startswith(_ZIP) else content
    try:
        check_pickle_cost(pickled)
    except ValueError as error:
        raise InputError(f"cannot read the weights in '{file}': {error}, which torch never writes") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of old forms of pickles.
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = _GLOBAL.search(str(error))
        if asked is None:
            raise InputError(f"cannot read the weights in '{file}': they are damaged, or no weights") from None
        raise InputError(
            f"'{file}' holds objects of Python beside weights, such as '{asked[1]}', and to unpickle them may run code;"
            f" {_SAVED_ANEW}"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # Whatever a damaged pickle makes torch stumble over.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0][:160]
        raise InputError(f"cannot read the weights in '{file}': {reason}; the file is damaged, or holds none") from None


def _checked_archive(file: Path, content: bytes) -> bytes:
    """The pickle in an archive. Raises InputError for one of something else, or that claims more than the file holds."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
        names = {entry.filename.partition("/")[2] for entry in entries}
        if any(name.startswith("models/") for name in names):
            raise InputError(f"'{file}' is a whole program, no weights; name it as the model instead")
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise InputError(f"'{file}' is a TorchScript program, no weights; {_SAVED_ANEW}")
        check_limit("records", len(entries), f"'{file}'")
        claimed = sum(entry.file_size for entry in entries)
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        claimed = max(claimed, sum(reader.get_record_size(name) for name in reader.get_all_records()))
        if claimed <= len(content):
            pickled: bytes = reader.get_record("data.pkl")
    except InputError:
        raise
    except Exception:
        raise InputError(f"cannot read the weights in '{file}': the file is damaged or cut off") from None
    if claimed > len(content):
        raise InputError(f"'{file}' claims more bytes than it holds, which torch never writes; save it anew")
    return pickled


def _state_dict(file: Path, found: Any, key: str | None) -> StateDict:
    """The state dict in what a file holds, in a checkpoint's entry or itself."""
    for _ in range(_MOST_DEEP):
        if isinstance(found, torch.nn.Module) or not isinstance(found, Mapping):
            raise InputError(f"'{file}' holds a {type(found).__name__}, no state dict; {_SAVED_ANEW}")
        if key is not None:
            if not isinstance(found.get(key), Mapping):
                raise InputError(
                    f"'{file}' has no state dict called '{key}'; its entries are {_listed([str(name) for name in found])}"
                )
            found, key = found[key], None
            continue
        if _is_state_dict(found):
            entries = {n: value.detach() if isinstance(value, torch.Tensor) else value for n, value in found.items()}
            return StateDict(entries, _versions(found), tuple(_inner(found)))
        inner = [name for name in WRAPPERS if isinstance(found.get(name), Mapping) and found[name]]
        if len(inner) > 1:
            raise InputError(
                f"'{file}' holds several state dicts, {_listed(inner)}; say which: {key_advice(file, inner)}"
            )
        if not inner:
            names, others = _listed([str(name) for name in found]), _inner(found)
            advice = f"say which is the state dict: {key_advice(file, others)}" if others else _SAVED_ANEW
            raise InputError(f"'{file}' holds no state dict; its entries are {names}; {advice}")
        found = found[inner[0]]
    raise InputError(f"'{file}' hides its state dict in too many dicts; {_SAVED_ANEW}")


def _is_state_dict(found: Mapping[Any, Any]) -> bool:
    """Tensors by name; modules may add plain values of their own, but no dict in which there are more tensors."""
    tensors = [name for name, value in found.items() if isinstance(value, torch.Tensor)]
    return (
        bool(tensors)
        and all(isinstance(name, str) for name in found)
        and not any(isinstance(found.get(name), Mapping) for name in WRAPPERS)
    )


def _inner(found: Mapping[Any, Any]) -> list[str]:
    """Under which names a checkpoint has a state dict, whatever they are called."""
    return [
        name
        for name, value in found.items()
        if isinstance(name, str) and isinstance(value, Mapping) and value and _is_state_dict(value)
    ]


def _versions(found: Mapping[Any, Any]) -> dict[str, int]:
    """What ``state_dict()`` notes beside the tensors: which version of each class wrote them."""
    noted = getattr(found, "_metadata", None)
    told = noted.items() if isinstance(noted, Mapping) else ()
    return {
        name: value["version"]
        for name, value in told
        if isinstance(name, str) and isinstance(value, Mapping) and type(value.get("version")) is int
    }


def key_advice(file: Path | str, keys: Sequence[str]) -> str:
    """How one says which entry of a checkpoint is meant: on the command line, and in Python."""
    last = shown(keys[-1][:60])
    return f"'{file}:{last}', or key='{last}'"


def _listed(names: list[str]) -> str:
    first = ", ".join(f"'{shown(name[:60])}'" for name in names[:4])
    return (first + (" ..." if len(names) > 4 else "")) or "none"

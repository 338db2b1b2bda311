"""What can be found wrong of a command line without torch and TVM, which take seconds to import: names, files and ranges.

All of it is checked again where it is used; here only what is certainly wrong is refused, in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.networks.names import NAMES, SHORT, unknown_model
from ..outputs import check_file

__all__ = ["check_early"]

_MODELS = ("model", "named", "against", "teacher")
_READ = ("apply", "check_input", "classes", "files", "key_file")
_WRITTEN = ("report", "plan", "onnx", "html", "dot", "graphml")
_WRITE_A_FILE = ("capture", "prune", "compact", "quantize", "map")
"""Verbs whose --output is a file."""


def check_early(verb: str, values: Mapping[str, Any]) -> None:
    """Raises InputError for what is certainly wrong among the parameters of a verb, by their names in Python."""
    for name in _MODELS:
        if isinstance(values.get(name), str):
            _check_model(values[name], "dataset" in values)
    if isinstance(values.get("bundle"), str) and not Path(values["bundle"]).is_dir():
        raise InputError(f"there is no bundle '{values['bundle']}'; give the folder that export() wrote")
    _each(values, _READ, _check_read)
    if values.get("method") is None:  # Which finds zeros itself, and is told so.
        _each(values, ("masks",), _check_read)
    _each(values, _WRITTEN, check_file)
    if verb in _WRITE_A_FILE:
        _each(values, ("output",), check_file)
    _each(values, ("target",), _check_target)
    if verb == "prune":
        _each(values, ("sparsity",), _check_share)


def _each(values: Mapping[str, Any], names: Iterable[str], check: Callable[[Any], None]) -> None:
    """Checks what was said for each of these, once or several times."""
    for name in names:
        said = values.get(name)
        for each in said if isinstance(said, list | tuple) else [said]:
            if each is not None:
                check(each)


def _check_model(model: str, has_data: bool) -> None:
    if Path(model).exists():
        return
    place, colon, _ = model.rpartition(":")
    if model.endswith(".pt2"):
        raise InputError(f"no such file: '{model}'; give the path of a .pt2 file written by torch.export.save")
    if colon and place.endswith(".py") and not Path(place).is_file():
        raise InputError(f"no such file: '{place}'")
    if not colon and model not in (*NAMES, *(SHORT if has_data else ())):
        raise unknown_model(model)


def _check_read(file: Any) -> None:
    name, equal, path = str(file).partition("=")
    if not Path(str(file)).exists() and not (equal and Path(path).exists()):
        raise InputError(f"no such file: '{path if equal and name.isidentifier() else file}'")


def _check_target(target: Any) -> None:
    from ...backends.machines.targets import check_name

    if not str(target).endswith(".toml"):
        check_name(str(target))
    elif not Path(str(target)).exists():
        raise InputError(f"no such file: '{target}'")


def _check_share(share: Any) -> None:
    if isinstance(share, float) and not 0 <= share < 1:
        raise InputError(f"sparsity {share!r} is outside 0..1; give the share to remove, such as 0.5")

"""The fields of a target, from a ``.toml`` file or a bundle's manifest, checked one by one: they may be anybody's."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text
from ...frontend.base.json_text import shortened
from .architectures import architecture_of, llvm_triple, unsupported

__all__ = ["checked_fields", "fields_of_file"]

_NAME = re.compile(r"[^\W.][\w .+@()-]{0,99}")
_TRIPLE = re.compile(r"[a-z0-9_.]{1,40}(-(?!windows)[A-Za-z0-9_.]{1,40}){2,3}", re.ASCII)
_FEATURE = re.compile(r"[+-][a-z0-9][a-z0-9_.-]{0,60}", re.ASCII)
_MOST_TEXT = 16 << 10
"""Characters of a target file. Python's reader takes the square of its time for keys of many parts."""

_KINDS: dict[str, type] = {
    "name": str,
    "description": str,
    "triple": str,
    "cpu": str,
    "features": list,
    "float_abi": str,
    "link": list,
    "qemu_cpu": str,
    "mca_cpu": str,
    "qemu_machine": str,
}

_WORDS: dict[type, str] = {str: "a text in quotes", list: "a list of texts"}
_FLOAT_ABIS = ("hard", "soft")
"""What LLVM's targets take; it says of any other only that code could not be made."""

_MAX_VALUE = {
    "lanes": 64,
    "registers": 256,
    "cores": 4096,
    "channel_multiple": 1 << 16,
    "clock_mhz": 1 << 20,
    "l1_ways": 1 << 10,
    "last_cache_ways": 1 << 10,
    "memory_mb_s": 1 << 30,
}
"""Of fields that are numbers: far more than any machine has. Schedules are looked for among all that fit."""

_MOST_BYTES = 1 << 40

_OPTIONAL: dict[str, Any] = {
    "description": "",
    "features": [],
    "float_abi": None,
    "link": [],
    "clock_mhz": None,
    "qemu_cpu": "",
    "mca_cpu": "",
    "qemu_machine": "",
    "l1_ways": 4,
    "last_cache_bytes": None,
    "last_cache_ways": 16,
    "memory_mb_s": 4000,
}


def fields_of_file(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The fields of the target that a file describes, `names` being those that there are. It is called as the file is, unless
    it has a name.

    Raises:
        InputError: the file cannot be read, or a field is not what it must be.
    """
    try:
        text = read_text(path)
        if len(text) > _MOST_TEXT:
            raise InputError(f"target file '{path}' has {len(text)} characters; a target takes {_MOST_TEXT} at most")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"cannot read target file '{path}': {reason}; give a readable .toml file") from None
    except RecursionError:
        raise InputError(f"target file '{path}' is nested too deeply") from None
    except ValueError as error:  # Of TOML's grammar, or Python's of numbers.
        if isinstance(error, InputError):
            raise
        raise InputError(f"target file '{path}' is not TOML: {error}") from None
    found = checked_fields({"name": path.stem, **values}, str(path), names)
    if found["name"] == "host":
        raise InputError(f"target file '{path}': 'host' is the name of this machine; choose another name")
    _check_cpu(found, path)
    return found


def checked_fields(values: Mapping[str, Any], where: str, names: Sequence[str]) -> dict[str, Any]:
    """`values`, with what may be left out; `where` says in messages where they are from.

    Raises:
        InputError: a field is missing, unknown, or not what it must be.
    """
    complete = {**_OPTIONAL, **values}
    missing, unknown = [n for n in names if n not in complete], [n for n in complete if n not in names]
    if missing or unknown:
        problem = f"has an unknown field {shortened(unknown[0])}" if unknown else f"lacks '{missing[0]}'"
        raise InputError(f"target '{complete.get('name')}' in {where} {problem}; the fields are {', '.join(names)}")
    for name in names:
        wanted = _wanted(name, complete[name])
        if wanted:
            raise InputError(f"target '{complete.get('name')}' in {where}: '{name}' must be {wanted}")
    if not _TRIPLE.fullmatch(complete["triple"]) or architecture_of(complete["triple"]) is None:
        raise InputError(f"target '{complete.get('name')}' in {where}: {unsupported(complete['triple'])}")
    if complete["registers"] < 8 or complete["lanes"] & (complete["lanes"] - 1):
        raise InputError(
            f"target '{complete.get('name')}' in {where}: registers must be 8 or more and lanes a power of two, got"
            f" {complete['registers']} and {complete['lanes']}"
        )
    return {**complete, "features": tuple(complete["features"]), "link": tuple(complete["link"])}


def _check_cpu(found: Mapping[str, Any], path: Path) -> None:
    """Raises InputError for a core that LLVM does not know; it would take another one, and say so on stderr."""
    name, triple, cpu = (str(found[field]) for field in ("name", "triple", "cpu"))
    import tvm
    from tvm.target import codegen

    llvm = tvm.target.Target({"kind": "llvm", "mtriple": llvm_triple(triple)})
    known = list(codegen.llvm_get_cpu_archlist(llvm))
    if cpu not in known:
        close = difflib.get_close_matches(cpu[:60], known, n=3)
        choices = f"did you mean {' or '.join(close)}?" if close else "generic is the least of them"
        raise InputError(f"target '{name}' in {path}: LLVM knows no cpu {shortened(cpu)} of {triple}; {choices}")


def _wanted(name: str, value: Any) -> str | None:
    """What a field must be, if `value` is not that."""
    kind = _KINDS.get(name)
    if value is None and name in _OPTIONAL and _OPTIONAL[name] is None:
        return None
    if kind is None:
        most = _MAX_VALUE.get(name, _MOST_BYTES)
        good = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
        return None if good else f"a positive whole number up to {most}, got {shortened(value)}"
    if name == "name" and isinstance(value, str) and not _NAME.fullmatch(value):
        return f"a name that a file can have, got {shortened(value)}"
    if name == "float_abi" and value not in _FLOAT_ABIS:
        return f"{' or '.join(_FLOAT_ABIS)}, or left out, got {shortened(value)}"
    if name == "features" and isinstance(value, list | tuple):
        wrong = [entry for entry in value if not isinstance(entry, str) or not _FEATURE.fullmatch(entry)]
        if wrong:
            return f'a list of words such as "+neon", got {shortened(wrong[0])}'
    texts = not isinstance(value, list) or all(isinstance(entry, str) for entry in value)
    return None if isinstance(value, kind) and texts else f"{_WORDS[kind]}, got {shortened(value)}"

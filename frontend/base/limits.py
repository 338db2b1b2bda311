"""The most that a file may claim: what is larger is refused before it is read, unpacked or allocated."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from functools import cache

from .errors import InputError

__all__ = ["VARIABLE", "Limits", "check_limit", "check_unpacked", "in_words", "limits"]

VARIABLE = "RECONVENE_LIMITS"
"""Names the environment variable that raises (or lowers) limits, as in ``array=64GiB,text=256MiB``."""

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SETTING = re.compile(r"\s*(\w+)\s*=\s*(\d{1,15})\s*([KMGT]iB|)\s*")


@dataclass(frozen=True)
class Limits:
    """Bytes where nothing else is said.

    Attributes:
        file: of a file that is read as a whole.
        text: of a JSON or TOML text, or of a list of names.
        array: of one array, image list or stored tensor.
        value: of one value that a stored program computes, with its example inputs.
        unpacked: of what compressed data become, however few they are.
        ratio: bytes that one compressed byte may become, beyond `unpacked`.
        pixels: of one image.
        records: of one archive, and pieces that one call of a program splits a value into.
        positions: along all axes of all values of a program together, which are followed one by one.
    """

    file: int = 16 << 30
    text: int = 64 << 20
    array: int = 8 << 30
    value: int = 8 << 30
    unpacked: int = 256 << 20
    ratio: int = 100
    pixels: int = 64 << 20
    records: int = 100_000
    positions: int = 1 << 26


_COUNTED = ("ratio", "pixels", "records", "positions")


def limits() -> Limits:
    """Those that hold now: the defaults, changed as the environment says.

    Raises:
        InputError: the variable names no limit, or no number.
    """
    return _parsed(os.environ.get(VARIABLE, ""))


def check_limit(name: str, claimed: int, what: str) -> None:
    """Raises InputError if `what` (which begins the message) claims more than the limit called `name`."""
    most = getattr(limits(), name)
    if claimed > most:
        raise InputError(
            f"{what} claims {in_words(name, claimed)}, more than the limit of {in_words(name, most)}; if that is right, set"
            f" {VARIABLE}={name}={claimed}"
        )


def check_unpacked(claimed: int, packed: int, what: str) -> None:
    """Raises InputError if `packed` bytes claim to become more than compressed data of that length may."""
    now = limits()
    if claimed > max(now.unpacked, now.ratio * packed):
        raise InputError(
            f"{what} claims to unpack {in_words('file', packed)} to {in_words('file', claimed)}, more than {now.ratio} to 1;"
            f" if that is right, set {VARIABLE}=unpacked={claimed}"
        )


def in_words(name: str, size: int) -> str:
    """A size that the limit called `name` is on: ``7.9 GiB``, or ``70000000 pixels``."""
    if name in _COUNTED:
        return f"{size} {name}"
    for unit, factor in reversed(_UNITS.items()):
        if size >= factor > 1:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size // factor} {unit}"
    return f"{size} bytes"


@cache
def _parsed(text: str) -> Limits:
    changed: dict[str, int] = {}
    known = [field.name for field in dataclasses.fields(Limits)]
    for part in filter(str.strip, text.split(",")):
        found = _SETTING.fullmatch(part)
        if found is None or found[1] not in known:
            raise InputError(
                f"{VARIABLE} holds '{part.strip()}', which sets no limit; write NAME=SIZE, such as array=64GiB, of"
                f" {', '.join(known)}"
            )
        changed[found[1]] = int(found[2]) * _UNITS[found[3]]
    return Limits(**changed)

"""The files of a bundle, as its manifest and ``SHA256SUMS`` list them: all are there, what they should be, and no others that
would be taken in their place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...frontend.base.errors import InputError
from ...frontend.base.files import SUMS, open_regular, read_regular, read_sums, sha256, sha256_of
from ...frontend.base.json_text import json_count, json_object, shortened

__all__ = ["MANIFEST", "FileSum", "check_file", "check_sums", "file_sum", "read_listed"]

MANIFEST = "manifest.json"

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class FileSum:
    """What a file must be: its size and its SHA-256."""

    bytes: int
    sha256: str


def file_sum(entry: object) -> FileSum:
    """What a manifest says of a file. Raises ValueError for anything else."""
    values = json_object(entry, ("bytes", "sha256"))
    digest = values["sha256"]
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"{shortened(digest)} is no SHA-256")
    return FileSum(json_count(values["bytes"], "bytes of a file"), digest)


def check_sums(folder: Path, wanted: Mapping[str, object]) -> None:
    """Raises InputError unless ``SHA256SUMS`` in `folder` lists these checksums and no others, and no library lies there that
    is not listed.
    """
    try:
        sums = read_sums(folder)
    except FileNotFoundError:
        raise InputError(f"bundle '{folder}' has no {SUMS}; copy the bundle again") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {SUMS} of bundle '{folder}': {reason}; copy the bundle again") from None
    if sums.get(MANIFEST) != wanted[MANIFEST]:
        raise InputError(f"'{MANIFEST}' in bundle '{folder}' does not have its checksum; copy the bundle again")
    if different := sorted(name for name in {*sums, *wanted} if sums.get(name) != wanted.get(name)):
        raise InputError(
            f"{MANIFEST} and {SUMS} of bundle '{folder}' differ on {shortened(different[0])}; copy the bundle again"
        )
    _check_unlisted(folder, wanted)


def _check_unlisted(folder: Path, listed: Collection[str]) -> None:
    """No library lies there that is not listed: a program takes those beside it, and before them those in folders there that
    are named for the processor, such as ``glibc-hwcaps``.
    """
    for entry in folder.iterdir():
        if entry.name in listed:
            continue
        if ".so" in entry.name:
            raise InputError(f"bundle '{folder}' holds the library {shortened(entry.name)}, which it does not list")
        if entry.is_dir():
            raise InputError(
                f"bundle '{folder}' holds a folder {shortened(entry.name)}, and a bundle has none; remove it"
            )


def read_listed(folder: Path, name: str, expected: FileSum) -> bytes:
    """The file `name` in `folder`, if these very bytes are what is `expected`. Raises InputError else."""
    try:
        found = read_regular(folder / name, within=folder)
    except OSError as error:
        raise InputError(
            f"cannot read '{name}' in bundle '{folder}': {error.strerror}; copy the bundle again"
        ) from None
    if FileSum(len(found), sha256_of(found)) != expected:
        raise InputError(f"'{name}' in bundle '{folder}' does not have its checksum; copy the bundle again")
    return found


def check_file(folder: Path, name: str, expected: FileSum, what: str = "bundle") -> None:
    """Raises InputError unless the file `name` in `folder`, which is a `what`, is what is `expected`."""
    path, place = folder / name, f"{what} '{folder}'"
    try:
        with open_regular(path, within=folder) as stream:
            found = os.fstat(stream.fileno()).st_size
            digest = sha256(stream) if found == expected.bytes else ""
    except FileNotFoundError:
        raise InputError(f"{place} lacks '{name}'; copy the {what} again") from None
    except OSError as error:
        raise InputError(f"cannot read '{name}' in {place}: {error.strerror}; do not use it") from None
    if found != expected.bytes:
        raise InputError(f"'{name}' in {place} has {found} bytes instead of {expected.bytes}; copy the {what} again")
    if digest != expected.sha256:
        raise InputError(f"'{name}' in {place} does not have its checksum; copy the {what} again")

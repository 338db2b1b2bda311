"""Opening a bundle: its manifest is read, and everything that it says of the folder's files is checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ...frontend.base.errors import InputError
from ...frontend.base.files import SUMS, read_regular, sha256_of
from ...frontend.base.json_text import json_object, json_text, parse_json, shortened
from ..machines.object_files import machine_of
from ..machines.targets import Target
from .binding import check_binding
from .listed_files import MANIFEST, FileSum, check_file, check_sums, file_sum
from .manifest import FORMAT, PROGRAM, Bundle, Runtime, bundle_of, target_of

__all__ = ["open_bundle", "read_manifest"]

_FIELDS = (
    "format runtime target inputs outputs state signature threads pipeline versions glibc certificate data memory weights"
    " arena files"
).split()
"""The manifest's."""

_NEEDED = {"static": [PROGRAM], "wheel": [PROGRAM, "model.so"], "none": ["kernels.o"], "python": []}
"""The files without which a bundle of a runtime is none."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}", re.ASCII)


def open_bundle(folder: str | os.PathLike[str], *, manifest_sha256: str | None = None) -> Bundle:
    """What is in `folder`, after everything that its manifest says was checked: its fields, against each other, against the
    files and against the code. Nothing is loaded or mapped before.

    Args:
        manifest_sha256: what the manifest must have, of a signature or a portfolio that lists it.

    Raises:
        InputError: the folder is no bundle, is damaged, was changed, or was made by another version.
    """
    path = Path(folder)
    manifest = read_manifest(path, manifest_sha256)
    try:
        sums = {name: file_sum(entry) for name, entry in json_object(manifest["files"]).items()}
        _check_names(manifest["runtime"], sums)
    except ValueError as error:
        raise _unusable(path, error) from None
    for name, expected in sums.items():
        check_file(path, name, expected)
    try:
        target = target_of(manifest["target"])
        for name in (PROGRAM, "model.so"):
            if name in sums:
                _check_machine(path, name, target)
                check_binding(path, name, target, manifest)
        return bundle_of(path, manifest, target, sums)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise _unusable(path, error) from None


def read_manifest(folder: Path, sha256: str | None = None) -> dict[str, Any]:
    """The fields of the manifest in `folder`, which are those of this version. It has the checksum that ``SHA256SUMS`` says,
    and so do the files that it lists, as far as it says theirs; with `sha256` it has that one.

    Raises:
        InputError: there is none, it cannot be read, is damaged, or is of another version.
    """
    if not folder.is_dir():
        raise InputError(f"there is no bundle '{folder}'; give the folder that export() wrote")
    try:
        contents = read_regular(folder / MANIFEST, within=folder, limit="text")
        manifest = parse_json(contents)
    except FileNotFoundError:
        raise InputError(f"'{folder}' has no {MANIFEST}; give the folder that export() wrote") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {MANIFEST} of bundle '{folder}': {reason}; copy the bundle again") from None
    if sha256 is not None and sha256_of(contents) != sha256:
        raise InputError(f"'{MANIFEST}' in bundle '{folder}' does not have the checksum that was signed; do not use it")
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise InputError(
            f"bundle '{folder}' has format {shortened(found)}, this version reads {FORMAT}; export it again"
        )
    try:
        json_object(manifest, _FIELDS)
        listed = {name: json_object(entry)["sha256"] for name, entry in json_object(manifest["files"]).items()}
    except (ValueError, KeyError) as error:
        raise _unusable(folder, error) from None
    check_sums(folder, {**listed, MANIFEST: sha256_of(contents)})
    return dict(manifest)


def _check_names(runtime: object, sums: Mapping[str, FileSum]) -> None:
    for name in sums:
        if Path(name).name != name or "\\" in name:
            raise ValueError(f"it lists a file outside of the bundle, {shortened(name)}")
        if not _NAME.fullmatch(name) or name in (MANIFEST, SUMS):
            raise ValueError(f"{shortened(name)} is no name of a file")
    needed = _NEEDED[json_text(runtime, "runtime", get_args(Runtime))] or [
        name for name in ("model.so", "model.tar") if name in sums
    ]
    if missing := [name for name in needed or ["model.so"] if name not in sums]:
        raise ValueError(f"no '{missing[0]}', which the runtime '{runtime}' has")


def _check_machine(folder: Path, name: str, target: Target) -> None:
    found = machine_of(folder / name)
    if found is not None and found != target.isa.elf:
        raise InputError(
            f"{name} in bundle '{folder}' is not for {target.triple} as its manifest says; export it again"
        )


def _unusable(folder: Path, error: Exception) -> InputError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return InputError(f"manifest of bundle '{folder}' is not usable ({reason}); export the model again")

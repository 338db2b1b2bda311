"""A compiled model as a folder that can be copied to the machine it is for, and checked there.

The folder holds ``model.so`` (or ``model.tar``, objects not linked yet) and ``manifest.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import tvm

from ..frontend.errors import InputError
from .compile import Built, TensorSpec
from .targets import Target

__all__ = ["FORMAT", "MANIFEST", "load_bundle", "write_bundle"]

FORMAT = 1
"""Version of the folder's layout; a reader refuses any other."""

MANIFEST = "manifest.json"

_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "arm": 40}
_NOISE = b"Scope Saving"


def write_bundle(built: Built, folder: Path, *, link: bool = True) -> Path:
    """Writes `built` to `folder`, which appears complete or not at all; an older bundle there is replaced.

    Raises:
        InputError: the folder holds something else, or cannot be written, or the linker is missing or fails.
    """
    if folder.exists() and not _replaceable(folder):
        raise InputError(f"'{folder}' exists and is not a bundle; choose an empty or a new folder")
    with _folder_beside(folder) as temporary:
        library = temporary / ("model.so" if link else "model.tar")
        _write_library(built, library, link)
        manifest = _manifest(built, [library])
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return folder


def load_bundle(folder: str | os.PathLike[str]) -> Built:
    """The model in `folder`, after its checksums, its format and its architecture were checked.

    Raises:
        InputError: the folder is no bundle, is damaged, was made by another version, or is for another
        machine.
    """
    path = Path(folder)
    manifest = _read_manifest(path)
    try:
        target = _target(manifest["target"])
        inputs, outputs = (_specs(manifest[key]) for key in ("inputs", "outputs"))
        files = dict(manifest["files"])
        versions = dict(manifest["versions"])
        rest = (bool(manifest["returns_tuple"]), manifest["threads"], str(manifest["pipeline"]))
        sums = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"manifest of bundle '{path}' is not usable ({error}); export the model again") from None
    for name, (size, digest) in sums.items():
        _check_file(path, name, size, digest)
    if versions.get("apache-tvm") != metadata.version("apache-tvm"):
        raise InputError(
            f"bundle '{path}' was compiled with TVM {versions.get('apache-tvm')}, this is"
            f" {metadata.version('apache-tvm')}; compile the model again"
        )
    library = _library(path, sums, target)
    return Built(target, inputs, outputs, rest[0], rest[1], rest[2], tvm.runtime.load_module(str(library)))


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))


@contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well."""
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"cannot write '{folder}': {error.strerror}; choose a folder you can write to") from None
    old = temporary.with_name(temporary.name + "-old")
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise InputError(f"cannot write '{folder}': {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write_library(built: Built, library: Path, link: bool) -> None:
    command = built.target.link
    if link and (not command or shutil.which(command[0]) is None):
        wanted = f"'{command[0]}'" if command else "a link command, which the target does not name"
        raise InputError(f"linking for '{built.target.name}' needs {wanted}; install it, or export with link=False")
    options = {"fcompile": _linker(command)} if link else {}
    with _without_noise():
        built.library.export_library(str(library), **options)


def _linker(command: tuple[str, ...]) -> Any:
    def link(output: str, objects: list[str], **_: Any) -> None:
        call = [*command, "-shared", "-fPIC", "-o", output, *objects]
        result = subprocess.run(call, capture_output=True, text=True, check=False)
        if result.returncode:
            lines = result.stderr.strip().splitlines() or ["no message"]
            raise InputError(f"'{command[0]}' cannot link the model: {lines[-1]}")

    link.object_format = "o"  # type: ignore[attr-defined]
    return link


@contextmanager
def _without_noise() -> Iterator[None]:
    """Drops the line TVM logs as a warning for every constant it saves; all else it writes to stderr is
    passed on.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as capture:
        os.dup2(capture.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            capture.seek(0)
            for line in capture:
                if _NOISE not in line:
                    os.write(2, line)


def _manifest(built: Built, files: list[Path]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "target": asdict(built.target),
        "inputs": [asdict(spec) for spec in built.inputs],
        "outputs": [asdict(spec) for spec in built.outputs],
        "returns_tuple": built.returns_tuple,
        "threads": built.threads,
        "pipeline": built.pipeline,
        "versions": {name: metadata.version(name) for name in ("apache-tvm", "apache-tvm-ffi", "torch")},
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"there is no bundle '{folder}'; give the folder that export() wrote")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"'{folder}' has no {MANIFEST}; give the folder that export() wrote") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {MANIFEST} of bundle '{folder}': {error}; copy the bundle again") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise InputError(f"bundle '{folder}' has format {found!r}, this version reads {FORMAT}; export it again")
    return dict(manifest)


def _check_file(folder: Path, name: str, size: int, digest: str) -> None:
    if Path(name).name != name:
        raise InputError(f"bundle '{folder}' lists a file outside itself, '{name}'; do not use it")
    path = folder / name
    if not path.is_file():
        raise InputError(f"bundle '{folder}' lacks '{name}'; copy the bundle again")
    found = path.stat().st_size
    if found != size:
        raise InputError(f"'{name}' in bundle '{folder}' has {found} bytes instead of {size}; copy the bundle again")
    if _sha256(path) != digest:
        raise InputError(f"'{name}' in bundle '{folder}' does not have its checksum; copy the bundle again")


def _target(values: dict[str, Any]) -> Target:
    return Target(**{**values, "features": tuple(values["features"]), "link": tuple(values["link"])})


def _specs(values: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(str(v["name"]), tuple(int(n) for n in v["shape"]), str(v["dtype"])) for v in values)


def _library(folder: Path, files: dict[str, Any], target: Target) -> Path:
    """The shared library, if this machine can load it."""
    if "model.so" not in files:
        raise InputError(f"bundle '{folder}' holds objects that are not linked; link model.tar for {target.triple}")
    library = folder / "model.so"
    machine = _elf_machine(library)
    if machine is not None and machine != _ELF_MACHINES.get(target.architecture, machine):
        raise InputError(
            f"model.so in bundle '{folder}' is not for {target.triple} as its manifest says; export it again"
        )
    if not target.runs_here:
        raise InputError(
            f"bundle '{folder}' is for '{target.name}' ({target.triple}) and cannot run here; copy it there"
        )
    return library


def _elf_machine(path: Path) -> int | None:
    """The machine number in the ELF header, or None for another kind of file."""
    with path.open("rb") as stream:
        header = stream.read(20)
    return int.from_bytes(header[18:20], "little") if header[:4] == b"\x7fELF" and len(header) == 20 else None

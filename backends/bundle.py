"""A compiled model as a folder that can be copied to the machine it is for, and checked there.

The folder holds ``manifest.json``, ``README.md``, ``SHA256SUMS``, and by `Runtime`:

========  =====================================================================================
static    ``run``, a program that needs nothing of the machine
wheel     ``run``, ``model.so``, and the libraries of TVM's own wheels
none      C sources, objects and a header, without any runtime; and ``run`` made of them
python    ``model.so`` for TVM in Python, or ``model.tar``, objects that are not linked yet
========  =====================================================================================

Beside ``model.so`` and ``model.tar`` lie the weights, ``weights-*.bin`` (see `weights`), which are mapped.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from ..frontend.errors import InputError
from ..frontend.files import read_text, replacing_folder, sha256, write_sums
from ..frontend.json_text import parse_json
from .arena import Arena, Slot
from .built import Built, Memory
from .library import Library, load_library
from .linkers import find_linker, link_shared
from .object_files import ELF_MACHINES, machine_of, needed_glibc
from .program import PROGRAM, model_objects, write_static_program, write_wheel_program
from .readme import readme
from .signature import Signature, TensorSpec
from .standalone import write_standalone
from .state import State, read_states, write_states
from .targets import Target
from .weights import Place, map_weights, write_weights

__all__ = ["FORMAT", "MANIFEST", "Bundle", "Runtime", "check_runtime", "load_bundle", "open_bundle", "write_bundle"]

Runtime = Literal["static", "wheel", "none", "python"]

FORMAT = 4
"""Version of the folder's layout; a reader refuses any other."""

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """What a bundle's manifest says, after its files were found to be whole.

    Attributes:
        certificate: of the compaction the model came from, if one was given to `write_bundle`.
        glibc: the oldest C library the program runs with; None if it brings its own, or is no program.
        memory: what the model needs beside its inputs and outputs.
        weights: where they lie in the folder's files, in the order that the code takes them.
        arena: the plan of the values between kernels; None where no library is loaded.
        state: the buffers that are kept from call to call, with what they hold before the first.
        program: the file to run, or None.
    """

    folder: Path
    runtime: Runtime
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signature: Signature
    threads: int | None
    pipeline: str
    versions: Mapping[str, str]
    files: tuple[str, ...]
    certificate: Mapping[str, Any] | None
    glibc: str | None
    memory: Memory
    weights: tuple[Place, ...]
    arena: Arena | None
    state: tuple[State, ...] = ()

    @property
    def program(self) -> Path | None:
        return self.folder / PROGRAM if PROGRAM in self.files else None


def write_bundle(
    built: Built,
    folder: Path,
    *,
    link: bool = True,
    runtime: Runtime | None = None,
    certificate: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `built` to `folder`, which appears complete or not at all; an older bundle there is replaced.

    Args:
        link: False leaves object files (``model.tar``) for a linker elsewhere.
        runtime: see the top of this file; by default ``python`` for the host, ``none`` for machines without an
            operating system, and ``static`` for all others.
        certificate: goes into the manifest.

    Raises:
        InputError: the folder holds something else, or cannot be written; or there is no compiler for the target, or it
            fails.
    """
    chosen = check_runtime(built.target, runtime, link)
    if folder.exists() and not _replaceable(folder):
        raise InputError(f"'{folder}' exists and is not a bundle; choose an empty or a new folder")
    with replacing_folder(folder) as temporary:
        if not link:
            with model_objects(built) as objects:
                _archive(temporary / "model.tar", objects)
            places = write_weights(built.weights, temporary)
        else:
            places = _WRITERS[chosen](built, temporary)
        states = write_states(built.state, temporary)
        text = readme(built, chosen, sorted(_names(temporary)), _figures(temporary))
        (temporary / "README.md").write_text(text, encoding="utf-8")
        manifest = _manifest(built, temporary, chosen, places, states, certificate)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        write_sums(temporary)
    return folder


def open_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """What is in `folder`, after its format, its checksums and its architecture were checked.

    Raises:
        InputError: the folder is no bundle, is damaged, or was made by another version.
    """
    path = Path(folder)
    manifest = _read_manifest(path)
    try:
        sums = {
            str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in dict(manifest["files"]).items()
        }
        if manifest["runtime"] not in get_args(Runtime):
            raise ValueError(f"runtime {manifest['runtime']!r}")
        bundle = Bundle(
            folder=path,
            runtime=manifest["runtime"],
            target=_target(manifest["target"]),
            inputs=_specs(manifest["inputs"]),
            outputs=_specs(manifest["outputs"]),
            signature=Signature.from_plain(manifest["signature"]),
            threads=manifest["threads"],
            pipeline=str(manifest["pipeline"]),
            versions=dict(manifest["versions"]),
            files=tuple(sums),
            certificate=manifest["certificate"],
            glibc=manifest["glibc"],
            memory=Memory(**manifest["memory"]),
            weights=tuple(Place(**{**place, "shape": tuple(place["shape"])}) for place in manifest["weights"]),
            arena=_arena(manifest["arena"]),
        )
        if not {place.file for place in bundle.weights} <= set(sums):
            raise ValueError("weights in a file without a checksum")
        if bundle.signature.counts() != (len(bundle.inputs), len(bundle.outputs)):
            raise ValueError("a signature of another model")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"manifest of bundle '{path}' is not usable ({error}); export the model again") from None
    for name, (size, digest) in sums.items():
        _check_file(path, name, size, digest)
    bundle = replace(bundle, state=_states(manifest, path))
    for name in (PROGRAM, "model.so"):
        if name in sums:
            _check_machine(path, name, bundle.target)
    return bundle


def load_bundle(folder: str | os.PathLike[str]) -> Built:
    """The model in `folder`, loaded into this process, after all checks.

    Raises:
        InputError: as `open_bundle`; or the bundle is for another machine, or holds a program, which is not loaded but
            run (`reconvene.backends.execution.run_bundle`).
    """
    bundle = open_bundle(folder)
    path, target = bundle.folder, bundle.target
    if "model.tar" in bundle.files:
        raise InputError(f"bundle '{path}' holds objects that are not linked; link model.tar for {target.triple}")
    if bundle.runtime != "python":
        raise InputError(f"bundle '{path}' holds a program, not a library for Python; run it with reconvene run")
    if bundle.versions.get("apache-tvm") != metadata.version("apache-tvm"):
        raise InputError(
            f"bundle '{path}' was compiled with TVM {bundle.versions.get('apache-tvm')}, this is"
            f" {metadata.version('apache-tvm')}; compile the model again"
        )
    if not target.runs_here:
        raise InputError(f"bundle '{path}' is for '{target.name}' ({target.triple}) and cannot run here; copy it there")
    if bundle.arena is None:
        raise InputError(f"manifest of bundle '{path}' has no plan of the memory; export the model again")
    weights = map_weights(bundle.weights, path)
    code = (Library(load_library(path / "model.so")), weights, bundle.arena)
    return Built(
        target,
        bundle.inputs,
        bundle.outputs,
        bundle.signature,
        bundle.threads,
        bundle.pipeline,
        *code,
        state=bundle.state,
    )


def check_runtime(target: Target, runtime: str | None, link: bool = True) -> Runtime:
    """What a bundle for `target` would hold. Raises InputError if that is not possible."""
    if not link:
        if runtime not in (None, "python"):
            raise InputError(f"runtime '{runtime}' cannot be left unlinked; leave out one of the two")
        return "python"
    if runtime is None:
        if target.name == "host":
            return "python"
        return "none" if target.bare else "static"
    if runtime not in _WRITERS:
        raise InputError(f"unknown runtime '{runtime}'; choose from {', '.join(_WRITERS)}")
    if target.bare and runtime != "none":
        raise InputError(f"'{target.name}' has no operating system to run TVM's runtime on; use --runtime none")
    return runtime  # type: ignore[return-value]


def _write_library(built: Built, folder: Path) -> tuple[Place, ...]:
    linker = find_linker(built.target)
    with model_objects(built) as objects:
        link_shared(linker, folder / "model.so", objects)
    return write_weights(built.weights, folder)


_WRITERS: dict[str, Callable[[Built, Path], tuple[Place, ...]]] = {
    "static": write_static_program,
    "wheel": write_wheel_program,
    "none": write_standalone,
    "python": _write_library,
}
"""What writes the files of each runtime; it returns the places of the weights that lie in files of their own."""


def _figures(folder: Path) -> dict[str, int | None] | None:
    """What a standalone model takes of memory."""
    path = folder / "figures.json"
    return parse_json(read_text(path)) if path.is_file() else None


def _archive(path: Path, objects: tuple[Path, ...]) -> None:
    with tarfile.open(path, "w") as archive:
        for file in objects:
            archive.add(file, file.name)


def _names(folder: Path) -> Iterator[str]:
    return (entry.name for entry in folder.iterdir())


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))


def _manifest(
    built: Built,
    folder: Path,
    runtime: Runtime,
    places: Sequence[Place],
    states: Sequence[Mapping[str, Any]],
    certificate: Mapping[str, Any] | None,
) -> dict[str, Any]:
    names = sorted(_names(folder))
    versions = [needed_glibc(folder / name) for name in names if name == PROGRAM or name.endswith(".so")]
    return {
        "format": FORMAT,
        "runtime": runtime,
        "target": asdict(built.target),
        "inputs": [asdict(spec) for spec in built.inputs],
        "outputs": [asdict(spec) for spec in built.outputs],
        "state": states,
        "signature": built.signature.plain(),
        "threads": built.threads,
        "pipeline": built.pipeline,
        "versions": {name: metadata.version(name) for name in ("reconvene", "apache-tvm", "apache-tvm-ffi", "torch")},
        "glibc": max((v for v in versions if v), key=lambda v: tuple(map(int, v.split("."))), default=None),
        "certificate": None if certificate is None else dict(certificate),
        "memory": asdict(built.memory),
        "weights": [asdict(place) for place in places],
        "arena": asdict(built.arena) if runtime in ("python", "wheel") else None,
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names},
    }


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"there is no bundle '{folder}'; give the folder that export() wrote")
    try:
        manifest = parse_json(read_text(folder / MANIFEST))
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
    if sha256(path) != digest:
        raise InputError(f"'{name}' in bundle '{folder}' does not have its checksum; copy the bundle again")


def _check_machine(folder: Path, name: str, target: Target) -> None:
    found = machine_of(folder / name)
    if found is not None and found != ELF_MACHINES.get(target.architecture, found):
        raise InputError(
            f"{name} in bundle '{folder}' is not for {target.triple} as its manifest says; export it again"
        )


def _arena(values: dict[str, Any] | None) -> Arena | None:
    if values is None:
        return None
    slots = tuple(Slot(**{**slot, "shape": tuple(slot["shape"])}) for slot in values["slots"])
    if any(slot.offset < 0 or slot.offset + slot.size > values["bytes"] for slot in slots):
        raise ValueError("a value outside the arena")
    return Arena(**{**values, "slots": slots})


def _states(manifest: dict[str, Any], folder: Path) -> tuple[State, ...]:
    try:
        return read_states(manifest["state"], folder)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"manifest of bundle '{folder}' is not usable ({error}); export the model again") from None


def _target(values: dict[str, Any]) -> Target:
    return Target(**{**values, "features": tuple(values["features"]), "link": tuple(values["link"])})


def _specs(values: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(str(v["name"]), tuple(int(n) for n in v["shape"]), str(v["dtype"])) for v in values)

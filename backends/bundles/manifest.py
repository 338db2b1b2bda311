"""What a bundle's manifest says, read so that it says nothing else: no field is unknown, of another kind or twice there, and
all of them agree with each other and with the files.

``SHA256SUMS`` finds what was damaged. What was changed on purpose, checksums and all, is found in the code, which knows the
manifest it was linked with: see `binding`. Who made the whole is told by a signature: see `signing`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from ...frontend.base.errors import InputError
from ...frontend.base.files import SUMS, read_regular, sha256_of
from ...frontend.base.json_text import json_array, json_count, json_object, json_text, parse_json, shortened
from ..built import Compiled, Memory
from ..code.weights import Place, is_weights, names_contents
from ..dtypes import DTYPES, tensor_bytes
from ..lowering.arena import Arena, Slot
from ..machines.object_files import ELF_MACHINES, machine_of
from ..machines.targets import Target, target_from
from ..signature import Signature, TensorSpec
from ..state import State, is_initial, read_states, state_bytes
from ..tensor_spec import ALIGNMENT
from .binding import check_binding
from .listed_files import MANIFEST, FileSum, check_file, check_sums, file_sum

__all__ = [
    "FORMAT",
    "MANIFEST",
    "PROGRAM",
    "Bundle",
    "FileSum",
    "Runtime",
    "file_sum",
    "open_bundle",
    "read_manifest",
    "tensor_specs",
]

Runtime = Literal["static", "wheel", "none", "python"]

FORMAT = 5
"""Version of the folder's layout; a reader refuses any other."""

PROGRAM = "run"

_FIELDS = (
    "format runtime target inputs outputs state signature threads pipeline versions glibc certificate memory weights arena"
    " files"
).split()
_NEEDED = {"static": [PROGRAM], "wheel": [PROGRAM, "model.so"], "none": ["kernels.o"], "python": []}
"""The files without which a bundle of a runtime is none."""

_LIBRARIES = ("python", "wheel")
"""The runtimes that load a library, which takes weights from files and an arena."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}", re.ASCII)
_GLIBC = re.compile(r"\d{1,3}\.\d{1,3}", re.ASCII)
_MOST_AXES, _MOST_THREADS = 64, 4096


@dataclass(frozen=True)
class Bundle(Compiled):
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
    versions: Mapping[str, str]
    files: Mapping[str, FileSum]
    certificate: Mapping[str, Any] | None
    glibc: str | None
    memory: Memory
    weights: tuple[Place, ...]
    arena: Arena | None
    state: tuple[State, ...] = ()

    @property
    def program(self) -> Path | None:
        return self.folder / PROGRAM if PROGRAM in self.files else None


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
        target = _target(manifest["target"])
        for name in (PROGRAM, "model.so"):
            if name in sums:
                _check_machine(path, name, target)
                check_binding(path, name, target, manifest)
        return _read(path, manifest, target, sums)
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


def tensor_specs(values: object) -> tuple[TensorSpec, ...]:
    """What a manifest says of inputs, outputs, or kept buffers. Raises ValueError for anything else."""
    found = tuple(_spec(json_object(entry, ("name", "shape", "dtype"))) for entry in json_array(values))
    if len({spec.name for spec in found}) < len(found):
        raise ValueError("two tensors of one name")
    return found


# ---- fields


def _target(values: object) -> Target:
    try:
        return target_from(json_object(values), "it")
    except InputError as error:
        raise ValueError(str(error)) from None


def _read(folder: Path, manifest: Mapping[str, Any], target: Target, sums: Mapping[str, FileSum]) -> Bundle:
    """The bundle that `manifest` describes. Raises ValueError where its fields do not go together."""
    runtime: Any = json_text(manifest["runtime"], "runtime", get_args(Runtime))
    certificate, glibc, threads = manifest["certificate"], manifest["glibc"], manifest["threads"]
    if glibc is not None and not _GLIBC.fullmatch(json_text(glibc, "glibc")):
        raise ValueError(f"glibc {shortened(glibc)} is no version")
    library = runtime in _LIBRARIES
    bundle = Bundle(
        folder=folder,
        runtime=runtime,
        target=target,
        inputs=tensor_specs(manifest["inputs"]),
        outputs=tensor_specs(manifest["outputs"]),
        signature=Signature.from_plain(manifest["signature"]),
        threads=None if threads is None else _threads(threads),
        pipeline=json_text(manifest["pipeline"], "pipeline", ("reconvene", "tvm-default")),
        versions={name: json_text(value, "a version") for name, value in json_object(manifest["versions"]).items()},
        files=dict(sums),
        certificate=None if certificate is None else json_object(certificate),
        glibc=glibc,
        memory=_memory(manifest["memory"]),
        weights=_weights(manifest["weights"], sums),
        arena=None if manifest["arena"] is None else _arena(manifest["arena"]),
        state=_state(manifest["state"], folder, sums),
    )
    if (bundle.arena is not None) != library or (bundle.weights and not library):
        raise ValueError(
            f"a plan of the memory for the runtime '{runtime}'" if not library else "no plan of the memory"
        )
    _check_together(bundle)
    return bundle


def _check_together(bundle: Bundle) -> None:
    signature, memory = bundle.signature, bundle.memory
    if (signature.input_names(), signature.output_names()) != (_names(bundle.inputs), _names(bundle.outputs)):
        raise ValueError("a signature of another model")
    if bundle.arena is not None:
        weights = sum(place.bytes for place in bundle.weights)
        planned = (bundle.arena.bytes, bundle.arena.live_bytes, weights)
        if planned != (memory.arena_bytes, memory.live_bytes, memory.weights_bytes):
            raise ValueError("memory for another plan")
    if memory.live_bytes > memory.arena_bytes or memory.state_bytes != state_bytes(bundle.state):
        raise ValueError("memory for another plan")


def _names(specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    return tuple(spec.name for spec in specs)


def _threads(value: object) -> int:
    if not json_count(value, "threads", _MOST_THREADS):
        raise ValueError("no threads")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    dtype = json_text(entry["dtype"], "dtype", tuple(DTYPES))
    return TensorSpec(json_text(entry["name"], "name"), _shape(entry["shape"], dtype), dtype)


def _shape(values: object, dtype: str) -> tuple[int, ...]:
    shape = tuple(json_count(extent, "extent") for extent in json_array(values))
    if len(shape) > _MOST_AXES or tensor_bytes(shape, dtype) >= 2**63:
        raise ValueError(f"the shape {shortened(shape)} is of no tensor")
    return shape


def _memory(values: object) -> Memory:
    fields = ("arena_bytes", "live_bytes", "weights_bytes", "state_bytes")
    return Memory(**{name: json_count(value, name) for name, value in json_object(values, fields).items()})


def _weights(values: object, sums: Mapping[str, FileSum]) -> tuple[Place, ...]:
    """The weights' places, each within its file, and none half over another."""
    found = tuple(
        _place(json_object(entry, ("file", "offset", "shape", "dtype")), sums) for entry in json_array(values)
    )
    taken = sorted({(place.file, place.offset, place.bytes) for place in found if place.bytes})
    for (file, start, size), (other, offset, _) in pairwise(taken):
        if file == other and start != offset < start + size:
            raise ValueError(f"weights that overlap in '{file}'")
    listed = {name for name in sums if is_weights(name)}
    if listed != {place.file for place in found}:
        raise ValueError("files of weights that none lies in")
    return found


def _place(entry: Mapping[str, Any], sums: Mapping[str, FileSum]) -> Place:
    file, dtype = json_text(entry["file"], "file"), json_text(entry["dtype"], "dtype", tuple(DTYPES))
    if file not in sums or not is_weights(file):
        raise ValueError("weights in a file without a checksum")
    if not names_contents(file, sums[file].sha256):
        raise ValueError(f"'{file}' is not named by its content")
    place = Place(file, json_count(entry["offset"], "offset"), _shape(entry["shape"], dtype), dtype)
    if place.offset % ALIGNMENT:
        raise ValueError(f"weights at {place.offset}, which is no multiple of {ALIGNMENT}")
    if place.offset + place.bytes > sums[file].bytes:
        raise ValueError(f"'{file}' is too short for its weights")
    return place


def _arena(values: object) -> Arena:
    fields = json_object(values, ("slots", "bytes", "live_bytes", "alignment"))
    alignment = json_count(fields["alignment"], "alignment", 1 << 16)
    if not alignment or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment} is no power of two")
    slots = tuple(_slot(json_object(slot, ("offset", "shape", "dtype"))) for slot in json_array(fields["slots"]))
    arena = Arena(
        slots, json_count(fields["bytes"], "bytes"), json_count(fields["live_bytes"], "live_bytes"), alignment
    )
    for slot in slots:
        if slot.offset % alignment or slot.offset + slot.size > arena.bytes:
            raise ValueError("a value outside the arena")
    return arena


def _slot(entry: Mapping[str, Any]) -> Slot:
    dtype = json_text(entry["dtype"], "dtype", tuple(DTYPES))
    return Slot(json_count(entry["offset"], "offset"), _shape(entry["shape"], dtype), dtype)


def _state(values: object, folder: Path, sums: Mapping[str, FileSum]) -> tuple[State, ...]:
    rows = [json_object(row, ("name", "shape", "dtype", "initial")) for row in json_array(values)]
    tensor_specs([{key: row[key] for key in ("name", "shape", "dtype")} for row in rows])
    stored = [json_text(row["initial"], "initial", tuple(sums)) for row in rows if row["initial"] is not None]
    if sorted(stored) != sorted(name for name in sums if is_initial(name)):
        raise ValueError("files of first values that no state has")
    try:
        return read_states(rows, folder)
    except (OSError, EOFError, TypeError, MemoryError) as error:
        raise ValueError(str(error)) from None


# ---- files


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
    if found is not None and found != ELF_MACHINES.get(target.architecture, found):
        raise InputError(
            f"{name} in bundle '{folder}' is not for {target.triple} as its manifest says; export it again"
        )


def _unusable(folder: Path, error: Exception) -> InputError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
    return InputError(f"manifest of bundle '{folder}' is not usable ({reason}); export the model again")

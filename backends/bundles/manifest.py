"""What a bundle's manifest says, read so that it says nothing else: no field is unknown, of another kind or twice there, and
all of them agree with each other and with the files.

``SHA256SUMS`` finds what was damaged. What was changed on purpose, checksums and all, is found in the code, which knows the
manifest it was linked with: see `binding`. Who made the whole is told by a signature: see `signing`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from ...frontend.base.errors import InputError
from ...frontend.base.json_text import json_array, json_count, json_object, json_text, shortened
from ...frontend.data.facts import DataFacts
from ..artifact import Compiled, Memory
from ..code.weights import WeightPlace, is_weights, names_contents
from ..dtypes import DTYPES, tensor_bytes
from ..lowering.arena import Arena, Slot
from ..machines.targets import Target, target_from
from ..signature import Signature, TensorSpec
from ..state import State, is_initial, read_states, state_bytes
from ..tensor_spec import ALIGNMENT, CodeScale
from .listed_files import FileSum

__all__ = ["FORMAT", "PROGRAM", "Bundle", "Runtime", "bundle_of", "target_of", "tensor_specs"]

Runtime = Literal["static", "wheel", "none", "python"]

FORMAT = 6
"""Version of the folder's layout; a reader refuses any other."""

PROGRAM = "run"

_LIBRARIES = ("python", "wheel")
"""The runtimes that load a library, which takes weights from files and an arena."""

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
        data: classes and colours of the images that the model was trained on, if it said so.
        program: the file to run, or None.
    """

    folder: Path
    runtime: Runtime
    versions: Mapping[str, str]
    files: Mapping[str, FileSum]
    certificate: Mapping[str, Any] | None
    glibc: str | None
    memory: Memory
    weights: tuple[WeightPlace, ...]
    arena: Arena | None
    state: tuple[State, ...] = ()
    data: DataFacts | None = None

    @property
    def program(self) -> Path | None:
        return self.folder / PROGRAM if PROGRAM in self.files else None


def tensor_specs(values: object) -> tuple[TensorSpec, ...]:
    """What a manifest says of inputs, outputs, or kept buffers. Raises ValueError for anything else."""
    found = tuple(_spec(json_object(entry)) for entry in json_array(values))
    if len({spec.name for spec in found}) < len(found):
        raise ValueError("two tensors of one name")
    return found


def target_of(values: object) -> Target:
    """What a manifest says of the target. Raises ValueError for anything else."""
    try:
        return target_from(json_object(values), "it")
    except InputError as error:
        raise ValueError(str(error)) from None


def bundle_of(folder: Path, manifest: Mapping[str, Any], target: Target, sums: Mapping[str, FileSum]) -> Bundle:
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
        data=None if manifest["data"] is None else DataFacts.from_plain(json_object(manifest["data"])),
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
    known = ("name", "shape", "dtype", *(["codes"] if "codes" in entry else []))
    entry = json_object(entry, known)
    dtype = json_text(entry["dtype"], "dtype", tuple(DTYPES))
    codes = _codes(entry["codes"], dtype) if "codes" in entry else None
    return TensorSpec(json_text(entry["name"], "name"), _shape(entry["shape"], dtype), dtype, codes)


def _codes(values: object, dtype: str) -> CodeScale:
    fields = json_object(values, ("scale", "zero_point"))
    scale, zero = fields["scale"], fields["zero_point"]
    if not isinstance(scale, float) or not 0 < scale < math.inf:
        raise ValueError(f"the scale {shortened(scale)} of codes is no positive number")
    least = {"int8": -128, "uint8": 0}.get(dtype)
    if least is None:
        raise ValueError(f"codes in {dtype}")
    if not isinstance(zero, int) or isinstance(zero, bool) or not least <= zero < least + 256:
        raise ValueError(f"the zero point {shortened(zero)} is no code of {dtype}")
    return CodeScale(scale, zero)


def _shape(values: object, dtype: str) -> tuple[int, ...]:
    shape = tuple(json_count(extent, "extent") for extent in json_array(values))
    if len(shape) > _MOST_AXES or tensor_bytes(shape, dtype) >= 2**63:
        raise ValueError(f"the shape {shortened(shape)} is of no tensor")
    return shape


def _memory(values: object) -> Memory:
    fields = ("arena_bytes", "live_bytes", "weights_bytes", "state_bytes")
    return Memory(**{name: json_count(value, name) for name, value in json_object(values, fields).items()})


def _weights(values: object, sums: Mapping[str, FileSum]) -> tuple[WeightPlace, ...]:
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


def _place(entry: Mapping[str, Any], sums: Mapping[str, FileSum]) -> WeightPlace:
    file, dtype = json_text(entry["file"], "file"), json_text(entry["dtype"], "dtype", tuple(DTYPES))
    if file not in sums or not is_weights(file):
        raise ValueError("weights in a file without a checksum")
    if not names_contents(file, sums[file].sha256):
        raise ValueError(f"'{file}' is not named by its content")
    place = WeightPlace(file, json_count(entry["offset"], "offset"), _shape(entry["shape"], dtype), dtype)
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

"""``.pt2`` and ONNX files: reading without unpickling, writing all or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from .archive import Records, read_records, vetted
from .base.errors import InputError, ReconveneError
from .base.extras import install_command
from .base.files import replacing
from .base.json_text import parse_json
from .base.tensor_files import has_odd_booleans
from .base.torch_logs import quiet
from .claimed_values import check_values
from .containers import with_names, without_classes
from .data.facts import DataFacts, keep_facts
from .exported import from_program, program_of
from .graph_module import CapturedModule
from .onnx_quantized import check_types, settle_weights, translations
from .quantized_operators import LIBRARY, check_not_in_training, load_quantized_operators
from .state import state_of
from .stored_compute import Compute, keep_compute

__all__ = [
    "Compute",
    "StoredProgram",
    "check_onnx",
    "check_onnx_packages",
    "export_onnx",
    "load_program",
    "load_stored",
    "read_program",
    "save_program",
]

_CERTIFICATE = "extra/reconvene_certificate.json"
_COMPUTE = "extra/reconvene_compute.json"
_DATA = "extra/reconvene_data.json"
_NAMES = "extra/reconvene_names.json"
_ORIGIN = "extra/reconvene_origin.json"
_PROGRAM = re.compile(r"models/[^/]+\.json|data/(weights|constants)/.*|extra/reconvene_names\.json")
"""The records that say what a program computes."""


@dataclass(frozen=True, eq=False)
class StoredProgram:
    """What a ``.pt2`` file holds.

    Attributes:
        module: the graph.
        example_inputs: those stored with it, if any are.
        records: of the archive, as they were read.
    """

    path: Path
    module: CapturedModule
    example_inputs: tuple[Any, ...] | None
    records: Records = field(repr=False)

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The certificate that the file carries, None if it carries none.

        Raises:
            InputError: it is damaged, or of another program than the file's.
        """
        return self._note(_CERTIFICATE, "certificate", "check")

    @property
    def compute(self) -> Compute | None:
        """What the network computes beside the dense one it was made of, None if the file does not say.

        Raises:
            InputError: it is damaged, or of another program than the file's.
        """
        note = self._note(_COMPUTE, "compute", "count")
        if note is None:
            return None
        try:
            found = Compute(**note)
            if not all(type(macs) is int and macs > 0 for macs in (found.dense_macs, found.macs)):
                raise ValueError("multiply-accumulates are whole numbers above 0")
        except (TypeError, ValueError) as error:
            raise InputError(f"cannot read the compute in '{self.path}': {error}; the file is damaged") from None
        return found

    @property
    def data(self) -> DataFacts | None:
        """Classes and colours of the images that the network was trained on, None if the file does not say.

        Raises:
            InputError: it is damaged, or of another program than the file's.
        """
        note = self._note(_DATA, "data", "training")
        try:
            return None if note is None else DataFacts.from_plain(note)
        except ValueError as error:
            raise InputError(f"cannot read the data in '{self.path}': {error}; the file is damaged") from None

    @property
    def origin(self) -> dict[str, Any] | None:
        """How a smaller network came about, None if the file does not say.

        Raises:
            InputError: it is damaged, or of another program than the file's.
        """
        return self._note(_ORIGIN, "origin", "training")

    def _note(self, place: str, what: str, made: str) -> dict[str, Any] | None:
        """What the record at `place` says of the program, None if there is no such record."""
        if place not in self.records:
            return None
        try:
            record = parse_json(self.records[place], nonfinite=True)
            owner, note = str(record["program"]), dict(record[what])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read the {what} in '{self.path}': {error}; the file is damaged") from None
        if owner != _digest(self.records):
            raise InputError(
                f"the {what} in '{self.path}' is of another program: the file was changed after the {made}; prune or"
                f" compact it again, or drop the {what} with 'reconvene capture'"
            )
        return note


def read_program(path: str | os.PathLike[str]) -> StoredProgram:
    """Reads a ``.pt2`` file. Nothing of it is unpickled, imported or evaluated: see `archive`.

    Raises:
        InputError: no such file, not a ``.pt2`` archive, damaged, or one that asks for something to be run.
    """
    file = Path(path)
    records = read_records(file)
    archive = vetted(file, records)
    if any(LIBRARY.encode() in content for name, content in records.items() if name.startswith("models/")):
        load_quantized_operators()
    try:
        with _quiet():
            program = torch.export.load(archive)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"cannot read '{file}': {reason[0]}; the file is damaged or from another version of torch"
        ) from error
    if _NAMES in records:
        try:
            program = with_names(program, parse_json(records[_NAMES]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read the names of '{file}': {error}; the file is damaged") from None
    try:
        module = from_program(program)
    except ReconveneError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"cannot read '{file}': {reason[0]}; its graph makes no sense, the file is damaged") from error
    check_values(module, f"cannot read '{file}'")
    _check_booleans(file, module)
    return StoredProgram(file, module, module.meta.get("example_inputs"), records)


def _check_booleans(file: Path, module: CapturedModule) -> None:
    stored = dict(module.state_dict(keep_vars=True))
    for index, leaf in enumerate(tree_leaves(module.meta.get("example_inputs"))):
        stored[f"example input {index}"] = leaf
    for name, value in stored.items():
        if isinstance(value, torch.Tensor) and has_odd_booleans(value):
            raise InputError(
                f"cannot read '{file}': '{name}' holds booleans that are neither true nor false; it is damaged"
            )


def load_program(path: str | os.PathLike[str]) -> tuple[CapturedModule, tuple[Any, ...] | None]:
    """The graph module of a ``.pt2`` file and the example inputs stored with it. Raises as `load_stored`."""
    stored = load_stored(path)
    return stored.module, stored.example_inputs


def load_stored(path: str | os.PathLike[str]) -> StoredProgram:
    """The same with all that the file says; its module carries what the network was trained on, and what it computes.

    Raises:
        InputError: as `read_program`; or what the file says of these is damaged, or of another program.
    """
    stored = read_program(path)
    keep_facts(stored.module, stored.data)
    keep_compute(stored.module, stored.compute)
    return stored


def save_program(
    module: torch.nn.Module,
    example_inputs: Sequence[Any],
    path: str | os.PathLike[str],
    dynamic_shapes: Any = None,
    certificate: Mapping[str, Any] | None = None,
    compute: Compute | None = None,
    data: DataFacts | None = None,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Writes `module` as a ``.pt2`` file. `dynamic_shapes` defaults to those it was captured with.

    A `certificate`, a `compute`, `data` and an `origin` travel in the file, with a checksum of the program they are of:
    see `StoredProgram`.

    Raises:
        InputError: the file cannot be written. An older file of that name is then untouched.
    """
    if dynamic_shapes is None:
        dynamic_shapes = getattr(module, "meta", {}).get("dynamic_shapes")
    with replacing(path) as temporary:
        program, named = without_classes(program_of(module, tuple(example_inputs), dynamic_shapes))
        with _quiet():
            # torch insists on the suffix, whatever the person called the file.
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
        if named is not None:
            _attach(buffer, _NAMES, named)
        notes = {
            _CERTIFICATE: None if certificate is None else {"certificate": dict(certificate)},
            _COMPUTE: None if compute is None else {"compute": asdict(compute)},
            _DATA: None if data is None else {"data": data.to_plain()},
            _ORIGIN: None if origin is None else {"origin": dict(origin)},
        }
        for place, note in notes.items():
            if note is not None:
                _attach(buffer, place, {"program": _digest(_records(buffer)), **note})
        temporary.write_bytes(buffer.getbuffer())


def _attach(buffer: io.BytesIO, name: str, record: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/{name}", json.dumps(record, indent=2))


def _records(buffer: io.BytesIO) -> Records:
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def _digest(records: Records) -> str:
    """A checksum of a program's graph, weights and constants."""
    digest = hashlib.sha256()
    for name in sorted(records):
        if _PROGRAM.fullmatch(name):
            content = hashlib.sha256(records[name]).hexdigest()
            digest.update(f"{content}  {name}\n".encode())
    return digest.hexdigest()


def check_onnx_packages() -> None:
    """Raises InputError if those that ONNX is written with are missing."""
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(f"ONNX export needs two more packages; run: {install_command('onnx')}") from None


def check_onnx(module: torch.nn.Module) -> None:
    """Raises InputError where ONNX has no form for a captured module, which keeps state or rounds in other types; or packages
    are missing.
    """
    state = state_of(module) if isinstance(module, torch.fx.GraphModule) else {}
    if state:
        raise InputError(
            f"the model keeps '{next(iter(state))}' from one call to the next, and ONNX has no state; make it an input and an"
            " output of the model for that"
        )
    check_not_in_training(module)
    check_types(module)
    check_onnx_packages()


def export_onnx(module: torch.nn.Module, example_inputs: Sequence[Any], path: str | os.PathLike[str]) -> None:
    """Writes `module` as an ONNX file (needs the packages onnx and onnxscript).

    A quantised one is written as ``QuantizeLinear`` and ``DequantizeLinear`` around float operators, its weights as int8 under
    ``DequantizeLinear`` by channel. Nothing tells of the code that it was captured from.

    Raises:
        InputError: the packages are missing, the file cannot be written, or the model keeps state, rounds to integers that ONNX
            does not, or is quantised for training.
    """
    check_onnx(module)
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    with replacing(path) as temporary, _quiet():
        try:
            program = torch.onnx.export(
                module.eval(), tuple(example_inputs), dynamo=True, verbose=False, optimize=True,
                custom_translation_table=translations(module),
            )  # fmt: skip
            assert program is not None
            settle_weights(program.model)
            # Otherwise traces of a person's code, with its folders, are half of a small file.
            ClearMetadataAndDocStringPass()(program.model)
            program.save(str(temporary), external_data=False)
        except OSError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ReconveneError(f"cannot export '{path}' to ONNX: {reason[0]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's advice to library authors off the person's terminal."""
    with (
        quiet("torch.export", "torch.onnx", "onnxscript", "onnx_ir", below=logging.ERROR),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield

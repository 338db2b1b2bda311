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
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .capture import _from_program, export_program
from .errors import InputError, ReconveneError
from .files import replacing
from .graph_module import CapturedModule

__all__ = ["export_onnx", "load_program", "read_certificate", "save_program"]

_CERTIFICATE = "extra/reconvene_certificate.json"
_PROGRAM = re.compile(r"models/[^/]+\.json|data/(weights|constants)/.*")
"""The records that say what a program computes."""


def load_program(path: str | os.PathLike[str]) -> tuple[CapturedModule, tuple[Any, ...] | None]:
    """Reads a ``.pt2`` file and gives its graph module and the example inputs stored with it.

    Archives whose weights or constants are pickled are refused: reading them would run code from the file.

    Raises:
        InputError: no such file, not a ``.pt2`` archive, damaged, or one that needs unpickling.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"no such file: '{file}'; give the path of a .pt2 file written by torch.export.save")
    if file.is_dir() or not zipfile.is_zipfile(file):
        raise InputError(f"'{file}' is not a .pt2 archive; write one with torch.export.save or 'reconvene capture'")
    _refuse_pickles(file)
    try:
        with _quiet():
            program = torch.export.load(str(file))
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"cannot read '{file}': {reason[0]}; the file is damaged or from another version of torch"
        ) from error
    module = _from_program(program, None)
    return module, module.meta.get("example_inputs")


def save_program(
    module: torch.nn.Module,
    example_inputs: Sequence[Any],
    path: str | os.PathLike[str],
    dynamic_shapes: Any = None,
    certificate: Mapping[str, Any] | None = None,
) -> None:
    """Writes `module` as a ``.pt2`` file. `dynamic_shapes` defaults to those it was captured with.

    A `certificate` travels in the file, with a checksum of the program it is of: see `read_certificate`.

    Raises:
        InputError: the file cannot be written. An older file of that name is then untouched.
    """
    if dynamic_shapes is None:
        dynamic_shapes = getattr(module, "meta", {}).get("dynamic_shapes")
    with replacing(path) as temporary:
        program = export_program(module, tuple(example_inputs), dynamic_shapes)
        with _quiet():
            # torch insists on the suffix, whatever the person called the file.
            buffer = io.BytesIO()
            torch.export.save(program, buffer)
        if certificate is not None:
            _attach(buffer, certificate)
        temporary.write_bytes(buffer.getbuffer())


def _attach(buffer: io.BytesIO, certificate: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        root = archive.namelist()[0].partition("/")[0]
        record = {"program": _digest(archive), "certificate": dict(certificate)}
        archive.writestr(f"{root}/{_CERTIFICATE}", json.dumps(record, indent=2))


def read_certificate(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The certificate that a ``.pt2`` file carries, None if it carries none.

    Raises:
        InputError: the file is damaged, or the certificate is of another program than the file's.
    """
    file = Path(path)
    try:
        with zipfile.ZipFile(file) as archive:
            found = [name for name in archive.namelist() if name.partition("/")[2] == _CERTIFICATE]
            if not found:
                return None
            record = json.loads(archive.read(found[0]))
            owner, certificate = str(record["program"]), dict(record["certificate"])
            belongs = owner == _digest(archive)
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the certificate in '{file}': {error}; the file is damaged") from None
    if not belongs:
        raise InputError(
            f"the certificate in '{file}' is of another program: the file was changed after the check; prune or compact"
            " it again, or drop the certificate with 'reconvene capture'"
        )
    return certificate


def _digest(archive: zipfile.ZipFile) -> str:
    """A checksum of a program's graph, weights and constants."""
    digest = hashlib.sha256()
    for name in sorted(archive.namelist()):
        record = name.partition("/")[2]
        if _PROGRAM.fullmatch(record):
            content = hashlib.sha256(archive.read(name)).hexdigest()
            digest.update(f"{content}  {record}\n".encode())
    return digest.hexdigest()


def export_onnx(module: torch.nn.Module, example_inputs: Sequence[Any], path: str | os.PathLike[str]) -> None:
    """Writes `module` as an ONNX file (needs the packages onnx and onnxscript).

    Raises:
        InputError: the packages are missing or the file cannot be written.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("ONNX export needs two more packages; run: pip install onnx onnxscript") from None
    with replacing(path) as temporary, _quiet():
        try:
            program = torch.onnx.export(module.eval(), tuple(example_inputs), dynamo=True, verbose=False, optimize=True)
            assert program is not None
            program.save(str(temporary), external_data=False)
        except OSError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ReconveneError(f"cannot export '{path}' to ONNX: {reason[0]}") from error


_RECORDS = re.compile(
    r"models/[^/]+\.json|data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/[^/]+_config\.json"
    r"|data/sample_inputs/[^/]+\.pt|archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment"
    r"|\.data/[^/]+|extra/.*"
)
"""All that an archive may hold: graphs, plain tensors, their descriptions, example inputs, and text.

torch would also load compiled libraries (``data/aotinductor``), pickles of weights, and pickled constants of other kinds.
"""


def _refuse_pickles(file: Path) -> None:
    """Looks into the archive before torch does: torch would unpickle or run whatever the archive asks for."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if not any("/models/" in name for name in names):
                raise InputError(f"'{file}' is a zip file but not a .pt2 archive; write one with torch.export.save")
            _refuse_ambiguous_names(file, names)
            for name in names:
                _refuse_record(file, archive, name)
    except (
        zipfile.BadZipFile,
        json.JSONDecodeError,
        KeyError,
        OSError,
        RuntimeError,
        NotImplementedError,
        EOFError,
    ) as error:
        raise InputError(f"cannot read '{file}': {error}; the file is damaged") from None
    except (TypeError, AttributeError, UnicodeDecodeError, zlib.error):
        raise InputError(
            f"cannot read '{file}': its description of the weights makes no sense; the file is damaged"
        ) from None


def _refuse_ambiguous_names(file: Path, names: list[str]) -> None:
    """torch finds records without regard to case, and of two with one name takes another one than Python does."""
    if len({name.lower() for name in names}) < len(names) or len({name.partition("/")[0] for name in names}) > 1:
        raise InputError(
            f"'{file}' holds several records of one name, so that what would be read is unclear; save it anew"
        )


def _refuse_record(file: Path, archive: zipfile.ZipFile, name: str) -> None:
    record = name.partition("/")[2]
    if not _RECORDS.fullmatch(record):
        raise InputError(
            f"'{file}' holds '{record}', which may run code when read; save plain tensors with a newer torch"
        )
    if record.endswith("_config.json"):
        for key, entry in json.loads(archive.read(name))["config"].items():
            # Constants of other kinds than tensors are pickles, whatever they say.
            if entry.get("use_pickle") or not str(entry.get("path_name")).startswith(("weight_", "tensor_")):
                raise InputError(f"'{file}' stores '{key}' as a pickle, which may run code; save it as plain tensors")
    elif record.startswith("data/sample_inputs/"):
        try:
            torch.load(io.BytesIO(archive.read(name)), weights_only=True)
        except Exception:
            raise InputError(
                f"'{file}' stores example inputs that need unpickling; export it with tensors only"
            ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's advice to library authors off the person's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

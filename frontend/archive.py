"""A ``.pt2`` archive is read once, here, and torch gets a new one that holds only what was read.

torch's own reader takes another place of a zip file's directory than Python's does, so that an archive can show one of them
tensors and the other a pickle. It also unpacks, unpickles and loads whatever the archive asks for. So nothing of a
file reaches it as bytes: the records are read, vetted and written anew.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .base.errors import InputError
from .base.files import open_regular
from .base.limits import check_limit, limits
from .base.pickle_cost import check_pickle_cost
from .base.zip_files import reading_zip
from .program_schema import Unvetted, vetted_payloads, vetted_program

__all__ = ["Records", "read_records", "vetted"]

Records = dict[str, bytes]
"""Contents of an archive by name, without the folder that all of them lie in."""

_KNOWN = re.compile(
    r"models/[\w.-]+\.json|data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/[\w.-]+_config\.json"
    r"|data/sample_inputs/[\w.-]+\.pt|archive_format|archive_version|byteorder|version|\.format_version|\.storage_alignment"
    r"|\.data/[^/]+|extra/.*"
)
"""All that an archive may hold: graphs, plain tensors, their descriptions, example inputs, and text.

torch would also load compiled libraries (``data/aotinductor``), pickles of weights, and pickled constants of other kinds.
"""

_NOT_NEEDED = ("archive_version", "version", "byteorder", ".format_version", ".storage_alignment", ".data/", "extra/")
"""Records that torch needs none of, or writes itself."""


def read_records(path: str | os.PathLike[str]) -> Records:
    """The records of a ``.pt2`` file, read through one handle.

    Raises:
        InputError: no such file, no regular file, no ``.pt2`` archive, damaged, or one that holds what torch would load or
            unpickle, or is longer than the file; the message names the record.
    """
    file = Path(path)
    try:
        with _opened(file) as stream, reading_zip(stream, f"cannot read '{file}'") as archive:
            return _contents(file, archive, os.fstat(stream.fileno()).st_size)
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror or error}") from None


def vetted(path: str | os.PathLike[str], records: Records) -> io.BytesIO:
    """A new archive in memory, of what `records` (from the file `path`) say and torch may read.

    Raises:
        InputError: a record asks torch to run something; the message names the record and the entry.
    """
    wanted = {name: _vetted(Path(path), name, records) for name in records if not name.startswith(_NOT_NEEDED)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("program/.data/version", b"3\n")
        archive.writestr("program/archive_version", b"0")
        archive.writestr("program/byteorder", b"little")
        for name, content in wanted.items():
            archive.writestr(f"program/{name}", content)
    buffer.seek(0)
    return buffer


def _opened(file: Path) -> BinaryIO:
    """The open file. A pipe would block, and a device never end."""
    if not file.exists():
        raise InputError(f"no such file: '{file}'; give the path of a .pt2 file written by torch.export.save")
    if not file.is_file():
        raise InputError(f"'{file}' is not a .pt2 archive; write one with torch.export.save or 'reconvene capture'")
    stream = open_regular(file)
    if not zipfile.is_zipfile(stream):
        stream.close()
        raise InputError(f"'{file}' is not a .pt2 archive; write one with torch.export.save or 'reconvene capture'")
    stream.seek(0)
    return stream


def _contents(file: Path, archive: zipfile.ZipFile, length: int) -> Records:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    names = [entry.filename for entry in entries]
    if not any("/models/" in name for name in names):
        raise InputError(f"'{file}' is a zip file but not a .pt2 archive; write one with torch.export.save")
    if len({name.lower() for name in names}) < len(names) or len({name.partition("/")[0] for name in names}) > 1:
        raise InputError(
            f"'{file}' holds several records of one name, so that what would be read is unclear; save it anew"
        )
    check_limit("file", length, f"'{file}'")
    check_limit("records", len(entries), f"'{file}'")
    for entry in entries:
        record = entry.filename.partition("/")[2]
        if not _KNOWN.fullmatch(record) or ".." in record:
            raise InputError(
                f"'{file}' holds '{record}', which may run code when read; save plain tensors with a newer torch"
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise InputError(f"'{file}' packs '{record}', which torch never does; save it anew with torch.export.save")
        if record.endswith(".json"):
            check_limit("text", entry.file_size, f"'{record}' of '{file}'")
    if sum(entry.file_size for entry in entries) > length:
        raise InputError(f"the records of '{file}' overlap: together they are longer than the file; save it anew")
    return {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}


def _vetted(file: Path, name: str, records: Records) -> bytes:
    try:
        if name.startswith("models/"):
            return vetted_program(records[name])
        if name.endswith("_config.json"):
            folder = name.rpartition("/")[0]
            sizes = {path.rpartition("/")[2]: len(content) for path, content in records.items() if folder in path}
            return vetted_payloads(records[name], sizes)
        if name.startswith("data/sample_inputs/"):
            return _vetted_inputs(records[name])
    except Unvetted as error:
        raise InputError(f"'{file}' is refused: '{name}' {error}; save it anew with torch.export.save") from None
    except InputError as error:
        raise InputError(f"'{file}' is refused: '{name}': {error}") from None
    except ValueError:
        raise InputError(f"cannot read '{file}': '{name}' is not readable JSON; the file is damaged") from None
    return records[name]


def _vetted_inputs(content: bytes) -> bytes:
    """Example inputs, as tensors and plain values only, and no longer than the record is."""
    if not content:
        return content
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        claimed = sum(reader.get_record_size(name) for name in reader.get_all_records())
        if claimed > len(content):
            raise Unvetted("claims more bytes than it holds")
        _check_keys(reader.get_record("data.pkl"))
        inputs = torch.load(io.BytesIO(content), weights_only=True)
        _check_inputs(inputs)
        buffer = io.BytesIO()
        torch.save(inputs, buffer)
    except Unvetted:
        raise
    except Exception:
        raise Unvetted("stores example inputs that need unpickling, which may run code") from None
    return buffer.getvalue()


def _check_keys(content: bytes) -> None:
    try:
        check_pickle_cost(content)
    except ValueError as error:
        raise Unvetted(f"stores example inputs that cannot be read: {error}") from None


def _check_inputs(inputs: Any) -> None:
    """Containers that hold one another many times are small as a pickle, and without end for those who look at each value. And
    there is no quantised tensor without numbers to follow the graph with.
    """
    most = limits().records
    pending, count = [inputs], 0
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor) and value.is_quantized:
            raise Unvetted("stores quantised example inputs")
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        pending += inner
        count += 1 + len(inner)
        if count > most:
            raise Unvetted(f"stores more than {most} values as example inputs")

"""Zip archives that somebody else wrote: read by Python's ``zipfile`` alone, from one open file, within limits."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from .errors import InputError
from .limits import check_limit, check_unpacked

__all__ = ["check_directory", "members", "reading_zip"]

_END, _END_64 = b"PK\5\6", b"PK\6\6"
_TAIL = 22 + (1 << 16) + 20 + 56
"""Bytes from the end of a file in which its directory's place and size are written."""

_ENCRYPTED = 1


@contextmanager
def reading_zip(stream: BinaryIO, what: str) -> Iterator[zipfile.ZipFile]:
    """The archive in an open file. What is wrong with it within the block is one line.

    Args:
        what: begins the messages: ``cannot read 'x.npz'``.

    Raises:
        InputError: it is no archive, damaged, or claims more than the limits allow.
    """
    try:
        check_directory(stream, what)
        with zipfile.ZipFile(stream) as archive:
            yield archive
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, OverflowError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{what}: {reason}; the file is damaged") from None
    except (zlib.error, ValueError, MemoryError):
        raise InputError(f"{what}: its records make no sense; the file is damaged") from None


def check_directory(stream: BinaryIO, what: str) -> None:
    """Raises InputError if the archive's directory, which is read as a whole, is longer than a text may be."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read(_TAIL)
    stream.seek(0)
    for mark, place, width in ((_END, 12, 4), (_END_64, 40, 8)):
        at = tail.rfind(mark)
        claimed = int.from_bytes(tail[at + place : at + place + width], "little") if at >= 0 else 0
        # All bits stand for: the longer form says it.
        if claimed != (1 << 8 * width) - 1:
            check_limit("text", claimed, f"{what}: its directory")


def members(archive: zipfile.ZipFile, what: str) -> dict[str, bytes]:
    """The contents of all files of an archive by name, in its order, unpacked where they are packed.

    Raises:
        InputError: a name is there twice, a file is encrypted, or claims more than the limits allow.
    """
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    check_limit("records", len(entries), what)
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{what}: it holds '{twice}' twice, so that what would be read is unclear; save it anew")
    for entry in entries:
        where = f"{what}: '{entry.filename}'"
        if entry.flag_bits & _ENCRYPTED:
            raise InputError(f"{where} is encrypted; save it without a password")
        check_limit("array", entry.file_size, where)
        check_unpacked(entry.file_size, entry.compress_size, where)
    packed, unpacked = (sum(getattr(entry, name) for entry in entries) for name in ("compress_size", "file_size"))
    check_unpacked(unpacked, packed, what)
    check_limit("file", unpacked, what)
    return {entry.filename: archive.read(entry) for entry in entries}

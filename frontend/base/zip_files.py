"""Zip archives that somebody else wrote: read by Python's ``zipfile`` alone, from one open file, within limits."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from .errors import InputError
from .limits import check_limit, check_unpacked

__all__ = ["check_directory", "members", "reading_zip"]


class _Mark(NamedTuple):
    """A record at the end of an archive: how it begins, and its fields."""

    first: bytes
    fields: struct.Struct


_END = _Mark(b"PK\5\6", struct.Struct("<4sHHHHIIH"))
_LOCATOR = _Mark(b"PK\6\7", struct.Struct("<4sIQI"))
_END_64 = _Mark(b"PK\6\6", struct.Struct("<4sQHHIIQQQQ"))
_TAIL = (1 << 16) + sum(mark.fields.size for mark in (_END, _LOCATOR, _END_64))
"""Bytes from the end of a file in which its directory's place and size are written."""

_LONGER = (1 << 32) - 1
"""Stands for: the longer record says it."""

_UNCLEAR = "its directory is not where its end says, so that what would be read is unclear; save it anew"

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
    except Exception:  # The library lets pass whatever it meets in damaged directories.
        raise InputError(f"{what}: its records make no sense; the file is damaged") from None


def check_directory(stream: BinaryIO, what: str) -> None:
    """Raises InputError unless the archive's directory lies right before its end, where the end says, and is no longer than a
    text may be. Readers differ in what they do else: some go to the place, some back from the end.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read(_TAIL)
    stream.seek(0)
    at = tail.rfind(_END.first)
    if at < 0:
        return  # It is no archive, which the reader says.
    if len(tail) < at + _END.fields.size:
        raise InputError(f"{what}: its end is cut off; the file is damaged")
    *_, directory, place, comment = _END.fields.unpack_from(tail, at)
    long = at - _LOCATOR.fields.size - _END_64.fields.size
    end = at
    if at >= _LOCATOR.fields.size and tail[at - _LOCATOR.fields.size :].startswith(_LOCATOR.first):
        if long < 0 or not tail[long:].startswith(_END_64.first):
            raise InputError(f"{what}: {_UNCLEAR}")
        _, _, where, _ = _LOCATOR.fields.unpack_from(tail, at - _LOCATOR.fields.size)
        *_, long_directory, long_place = _END_64.fields.unpack_from(tail, long)
        short = ((directory, long_directory), (place, long_place))
        if where != size - len(tail) + long or any(said not in (_LONGER, whole) for said, whole in short):
            raise InputError(f"{what}: {_UNCLEAR}")
        directory, place, end = long_directory, long_place, long
    check_limit("text", directory, f"{what}: its directory")
    if place + directory != size - len(tail) + end or at + _END.fields.size + comment != len(tail):
        raise InputError(f"{what}: {_UNCLEAR}")


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

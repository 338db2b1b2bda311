"""Writing files so that a failure leaves the old file, or none, never half of one; not even when the power goes. And opening
those that somebody else wrote, if they are files.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from .errors import InputError
from .limits import check_limit
from .systems import try_lock

__all__ = [
    "SUMS",
    "open_regular",
    "parse_sums",
    "read_open",
    "read_regular",
    "read_sums",
    "read_text",
    "remove_unfinished",
    "replacing",
    "replacing_folder",
    "sha256",
    "sha256_of",
    "write_sums",
    "write_text",
]

SUMS = "SHA256SUMS"
"""The file with the checksums of a folder's files."""

_SUM = re.compile(r"([0-9a-f]{64})  ([^/\\\x00-\x1f\x7f]+)", re.ASCII)

_MARK = ".unfinished-"
"""In the names of what is being written; what a killed run left behind is told by it, and by the lock that nobody holds. Where
there are no locks it stays.
"""

_SETTLED_SECONDS = 60.0
"""Younger files are left alone: they may be about to be locked."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of Linux's ``renameat2``."""


def open_regular(path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None) -> BufferedReader:
    """`path` opened for reading its bytes, if it is a regular file: a pipe or a socket would block forever, and a device
    never end. `path` may be a link to one; with `within` only to one below that folder.

    Raises:
        OSError: it cannot be read, is no regular file, or leads out of the folder; `strerror` says which.
    """
    place, flags = os.fspath(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if within is not None:
        resolved = _resolved(path)
        if not resolved.is_relative_to(Path(within).resolve()):
            raise OSError(errno.EXDEV, f"it leads out of '{os.fspath(within)}'", str(place))
        place, flags = str(resolved), flags | getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(place, flags | getattr(os, "O_NOCTTY", 0))
    except ValueError:
        raise _no_name(path) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # A socket.
            raise OSError(errno.ENXIO, "it is no regular file", str(path)) from None
        raise
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _resolved(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).resolve(strict=True)
    except RuntimeError:  # What older Pythons raise for links in a ring.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
    except ValueError:
        raise _no_name(path) from None


def _no_name(path: str | os.PathLike[str]) -> OSError:
    """Names that somebody else wrote may have a zero byte or half of a character in them."""
    return OSError(errno.EINVAL, "no file can have this name", ascii(os.fspath(path)))


def read_regular(
    path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None, limit: str = "file"
) -> bytes:
    """All bytes of a regular file, read through one handle. `limit` names one of `limits.Limits`.

    Raises:
        OSError: as `open_regular`.
        InputError: it is longer than the limit.
    """
    with open_regular(path, within) as stream:
        return read_open(stream, path, limit)


def read_open(stream: BinaryIO, path: str | os.PathLike[str], limit: str = "file") -> bytes:
    """The same of a file that is open, from its beginning; `path` is for messages."""
    size = os.fstat(stream.fileno()).st_size
    check_limit(limit, size, f"'{path}'")
    stream.seek(0)
    found = stream.read(size + 1)
    if len(found) != size:
        raise OSError(errno.EIO, "it changes while it is read", os.fspath(path))
    return found


def read_text(path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None) -> str:
    """A regular file of UTF-8 text, no longer than texts may be. Raises as `read_regular`, and ValueError for other text."""
    return read_regular(path, within, "text").decode("utf-8")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, with the same suffix, that replaces it when the block ends well.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(path)
    try:
        remove_unfinished(target, _SETTLED_SECONDS)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}{_MARK}", suffix=target.suffix, dir=target.parent)
        try_lock(handle)
    except OSError as error:
        raise InputError(f"cannot write '{target}': {error.strerror}; choose a folder you can write to") from None
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise InputError(f"cannot write '{target}': {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder that takes the place of `folder` when the block ends well.

    Where the system can exchange two folders, whoever looks finds the old one or the new one at every moment.

    Raises:
        InputError: the folder cannot be written, or the disk is full. What was there is then untouched.
    """
    try:
        remove_unfinished(folder, _SETTLED_SECONDS)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_MARK}", dir=folder.parent))
        handle = os.open(temporary, os.O_RDONLY)
        try_lock(handle)
    except OSError as error:
        raise InputError(f"cannot write '{folder}': {error.strerror}; choose a folder you can write to") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        for entry in (temporary, *temporary.rglob("*")):
            _flush(entry)
        _put(temporary, folder)
        _flush(folder.parent)
    except OSError as error:
        raise InputError(f"cannot write '{folder}': {error.strerror or error}") from None
    finally:
        # After an exchange, this is what was there before.
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def _put(temporary: Path, folder: Path) -> None:
    """Puts one folder where another may be, which is then found under the first one's name."""
    if not folder.exists():
        temporary.rename(folder)
        return
    if _exchanged(temporary, folder):
        return
    old = temporary.with_name(temporary.name + "-old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    old.rename(temporary)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the system could exchange two names in one step."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def _flush(path: Path) -> None:
    """Waits until what was written is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # Some file systems cannot say so of folders.
            raise
    finally:
        os.close(handle)


def remove_unfinished(target: Path, age: float = 0.0) -> None:
    """Removes what runs that were killed left of `target`; what a running one writes is locked.

    Args:
        target: what was to be written.
        age: seconds, below which a file is left alone: where others may be writing, one that is new is not locked yet.
    """
    for entry in target.parent.glob(f".{_literal(target.name)}{_MARK}*"):
        with suppress(OSError):
            if entry.is_symlink() or time.time() - entry.stat().st_mtime < age:
                continue
            handle = os.open(entry, os.O_RDONLY)
            try:
                if try_lock(handle):
                    shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
            finally:
                os.close(handle)


def _literal(text: str) -> str:
    """`text` for `glob`, which has characters of its own."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in text)


def sha256(file: Path | BufferedReader) -> str:
    """The checksum of a file, or of what is left of an open one, in hexadecimal. Raises OSError as `open_regular`."""
    if isinstance(file, BufferedReader):
        return hashlib.file_digest(file, "sha256").hexdigest()
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(contents: bytes) -> str:
    """The checksum of `contents`, in hexadecimal."""
    return hashlib.sha256(contents).hexdigest()


def write_sums(folder: Path) -> None:
    """Writes `SUMS` for all files of `folder`, as ``sha256sum --check`` reads it."""
    names = sorted(entry.name for entry in folder.iterdir())
    text = "".join(f"{sha256(folder / name)}  {name}\n" for name in names)
    (folder / SUMS).write_text(text, encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """The checksums in ``SHA256SUMS`` by file.

    Raises:
        OSError, InputError: as `read_text`.
        ValueError: a line is another one than `write_sums` writes, or a file is there twice.
    """
    return parse_sums(read_text(folder / SUMS, within=folder))


def parse_sums(text: str) -> dict[str, str]:
    """The checksums in such a text, by file. Raises ValueError as `read_sums`."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        parts = _SUM.fullmatch(line)
        if parts is None or parts[2] in found or parts[2] in (".", ".."):
            raise ValueError(f"line {number} is no checksum of a file")
        found[parts[2]] = parts[1]
    return found


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` to `path` in UTF-8, all of it or nothing; letters of file names that are none are escaped.

    Raises:
        InputError: that cannot be done.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

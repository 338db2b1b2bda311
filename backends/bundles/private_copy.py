"""Copies of files in memory that nothing can change any more, neither another process nor this one."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.files import open_regular
from .listed_files import FileSum

__all__ = ["private_copies"]

_PIECE = 1 << 20


@contextmanager
def private_copies(folder: Path, files: Mapping[str, FileSum]) -> Iterator[Path]:
    """A folder with these files of `folder`, as they are sealed in memory; what is mapped or loaded from there stays.

    Args:
        files: what each must be, by name. It is the copies that are compared with it.

    Raises:
        InputError: a file is missing or another one, or the system has no sealed memory.
        MemoryError: there is no room for them.
    """
    if not hasattr(os, "memfd_create"):
        raise InputError("this system has no memory that can be sealed; leave the files where nobody changes them")
    with ExitStack() as stack:
        links = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, expected in files.items():
            number = os.memfd_create(name[:100], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            copy = stack.enter_context(os.fdopen(number, "r+b", buffering=0))
            _fill(copy, folder, name, expected)
            (links / name).symlink_to(f"/proc/self/fd/{number}")
        yield links


def _fill(copy: Any, folder: Path, name: str, expected: FileSum) -> None:
    path = folder / name
    changed = InputError(f"'{path}' is not what its checksum says; copy the bundle again")
    hashed, left = hashlib.sha256(), expected.bytes
    try:
        with open_regular(path, within=folder) as stream:
            while piece := stream.read(min(_PIECE, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise changed
                hashed.update(piece)
                copy.write(piece)
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.ENOSPC):
            raise MemoryError(f"no memory for a copy of '{path}'") from None
        raise InputError(f"cannot copy '{path}': {error.strerror}; copy the bundle again") from None
    if left or hashed.hexdigest() != expected.sha256:
        raise changed
    import fcntl  # There is one where memory can be sealed.

    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)

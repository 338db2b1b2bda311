"""How a run of the command line ends: with one line on stderr and an exit code, whatever went wrong.

Exit codes: 0 done; 1 a check failed; 2 bad input, or a machine that lacks room, memory or rights; 70 a fault of ours; 130
interrupted; 143 ended by SIGTERM.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from ...frontend.base.errors import ReconveneError
from ...frontend.base.shown_text import shown

__all__ = ["INTERNAL_ERROR", "INTERRUPTED", "explained", "failed", "unheard"]

INTERNAL_ERROR, INTERRUPTED = 70, 130
_MACHINE = 2
_NO_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "Cannot allocate memory")
"""In what PyTorch and TVM say where Python has `MemoryError`."""


def explained(error: BaseException) -> int:
    """One line on stderr for `error`; returns its exit code."""
    if isinstance(error, ReconveneError):
        return failed(" ".join(str(error).split()), error.exit_code)
    usage = getattr(error, "format_message", None)
    if usage is not None:
        return failed(
            f"{' '.join(usage().split()).removesuffix('.')}; see reconvene --help", getattr(error, "exit_code", 2)
        )
    if any(isinstance(reason, KeyboardInterrupt) for reason in _reasons(error)):
        return failed("interrupted", INTERRUPTED)
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return failed(
            f"there is not enough memory here: {text[:200] or 'no more is given'}; take a smaller model", _MACHINE
        )
    if isinstance(error, OSError):
        return failed(_of_the_system(error), _MACHINE)
    line = f"internal error: {type(error).__name__}: {text[:200]}; please report it, --debug shows the traceback"
    return failed(line, INTERNAL_ERROR)


def failed(line: str, code: int) -> int:
    """Writes `line` to stderr, if anybody is there, and gives `code`."""
    told = line if line.startswith("internal error") else f"error: {line}"
    with suppress(OSError):
        # Names of files may be no text, and names in files may be orders to a terminal.
        print(shown(told), file=sys.stderr, flush=True)
        return code
    unheard(2)
    return code


def unheard(number: int) -> None:
    """Lets what is still to be written to stdout (1) or stderr (2) go nowhere, so that Python's last flush does not fail."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def _of_the_system(error: OSError) -> str:
    what = error.strerror or " ".join(str(error).split()) or type(error).__name__
    where = f"'{os.fsdecode(error.filename)}': " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    return f"{where}{what}; choose files and folders that are there and that you may read and write"


def _reasons(error: BaseException) -> list[BaseException]:
    """The error and those it came from. Libraries that are called back hand on what stopped them as an error of their own."""
    found: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and one not in found:
            found.append(one)
            pending += [one.__cause__, one.__context__]
    return found

"""``python -m reconvene``."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

_ENDED = 128
"""What exit codes of signals begin at."""


def main() -> None:
    """Runs the command line and exits with its code."""
    _open_streams()
    try:
        os.getcwd()
    except OSError:
        # Libraries end the process where they cannot find out what it is.
        print("error: the current folder is gone, or may not be read; go to another one", file=sys.stderr)
        sys.exit(2)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from .driver.cli.command_line import main as run

    code = run(sys.argv[1:])
    flushed = _flushed()
    sys.exit(code or flushed)


def _flushed() -> int:
    """0 if all that was written to stdout is there."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes again when it ends.
        if isinstance(error, BrokenPipeError):
            return 0
        print(f"error: cannot write to stdout: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _leave(number: int, _: Any) -> None:
    """Ends at once while modules are imported: libraries turn what is raised there into errors of theirs, and nothing has
    been begun. `driver.cli.terminal` lets signals be exceptions when the work begins.
    """
    line = b"error: interrupted\n" if number == signal.SIGINT else b"error: ended by SIGTERM\n"
    try:
        os.write(2, line)
    finally:
        os._exit(_ENDED + number)


def _open_streams() -> None:
    """Opens those of stdin, stdout and stderr that are closed, to nowhere: else the next file that is opened would have their
    number, and what libraries print would be written to it. Names that the terminal has no letters for are written escaped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()

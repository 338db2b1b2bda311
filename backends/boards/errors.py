"""What goes wrong with a board: for good, or so that another try may help."""

from __future__ import annotations

from ...frontend.base.errors import InputError
from ...frontend.base.shown_text import shown

__all__ = ["BoardError", "BoardLost", "printable"]


class BoardError(InputError):
    """A board cannot do what was asked. The message names it."""


class BoardLost(BoardError):
    """A board is not there, does not answer, or went away: another try, or another board, may do."""


_MAX_CHARACTERS = 300


def printable(text: str) -> str:
    """What a board or a tracker said, for a line of a message: control characters and the like escaped, and not too long."""
    plain = shown(text[: _MAX_CHARACTERS + 1]).replace("\n", "\\n")
    return plain if len(text) <= _MAX_CHARACTERS else f"{plain[:_MAX_CHARACTERS]}..."

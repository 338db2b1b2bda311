"""What goes wrong with a board: for good, or so that another try may help."""

from __future__ import annotations

from ...frontend.errors import InputError

__all__ = ["BoardError", "BoardLost"]


class BoardError(InputError):
    """A board cannot do what was asked. The message names it."""


class BoardLost(BoardError):
    """A board is not there, does not answer, or went away: another try, or another board, may do."""

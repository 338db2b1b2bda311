"""Verbs that had another name, which goes on working and says so."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperGroup

__all__ = ["RENAMED", "Verbs"]

RENAMED = {"server": "board-server", "sparsify": "train-levels"}
"""Old name to new: a server of boards is not what ``serve`` is, and levels are trained."""


class Verbs(TyperGroup):
    """The verbs of the command line, which are found by their old names, too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        new = RENAMED.get(args[0])
        if new is None:
            return super().resolve_command(ctx, args)
        print(f"note: 'reconvene {args[0]}' is now called 'reconvene {new}'", file=sys.stderr)
        return super().resolve_command(ctx, [new, *args[1:]])

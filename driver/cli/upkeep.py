"""The verb that looks after the cache folder."""

from __future__ import annotations

from typing import Annotated

import typer

from .command_options import Json
from .terminal import answer

__all__ = ["cache_"]


def cache_(
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Remove 'all', or libraries, choices, times, tuned, runtimes, hosts, estimates, data. Repeatable.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show how much is kept in the cache folder, or remove it."""
    from ..verbs import cache as verb

    answer(json, lambda: verb.run(verb.Request(tuple(clear or ()))))

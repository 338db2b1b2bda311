"""The verbs about what layers take with zeros on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import InputShapes, Json, KeyFile, Model, Seed, Target
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["times"]

By = Annotated[
    str,
    typer.Option(help="Who tells times: 'model' (a formula), 'cycles' of emulated code, or 'time' here or on a board."),
]
OnBoard = Annotated[
    str | None, typer.Option(metavar="BOARD", help="With --by time: rpc://HOST:PORT or tracker://HOST:PORT/KEY.")
]


def times(
    model: Model,
    target: Target = "host",
    structure: Annotated[
        list[str] | None,
        typer.Option(metavar="STRUCTURE", help="Of zeros, such as row-block:4 or block-punched:8x4. Repeatable."),
    ] = None,
    shares: Annotated[str, typer.Option(metavar="S,S", help="Shares of zeros.")] = "0.5,0.7,0.8,0.9",
    by: By = "model",
    on: OnBoard = None,
    key_file: KeyFile = None,
    input: InputShapes = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Show what a model's layers take on a target, dense and with zeros of structures; found once, and kept."""
    from ..verbs import times as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            target=target,
            structures=tuple(structure or ()),
            shares=shares,
            by=by,
            on=on,
            key_file=key_file,
            inputs=tuple(input or ()),
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)

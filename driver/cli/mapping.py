"""The verbs about what layers take with zeros on a machine, and about which zeros they are to have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import InputShapes, Json, KeyFile, Model, Output, Seed, Target, Weights
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["map_", "times"]

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
    weights: Weights = None,
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
            weights=weights,
            inputs=tuple(input or ()),
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)


def map_(
    model: Model,
    target: Target = "host",
    sparsity: Annotated[
        float, typer.Option("--sparsity", "-s", help="Share of zeros of the layers that take a structure, 0..1.")
    ] = 0.8,
    beta: Annotated[
        float, typer.Option(help="How much longer than the coarsest block a smaller one may take, as a share.")
    ] = 0.2,
    data: Annotated[
        str, typer.Option(help="'hard' (3x3 convolutions take patterns), or 'easy' (they take block-punched zeros).")
    ] = "hard",
    by: By = "model",
    on: OnBoard = None,
    key_file: KeyFile = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of layers to leave dense. Repeatable.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Search for structures and shares that take this share of the dense time, instead of by rules."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="With --budget: judge by accuracy on images held out of this training set.")
    ] = None,
    training_data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="The same of your own: a folder, file.py:function, hf:NAME; or where --dataset lies."
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|KIND",
            help="With --budget, without images: judge by outputs on a file's, or synthetic (matched, leaves, noise).",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another setting of the search, see docs. Repeatable."),
    ] = None,
    output: Output = None,
    weights: Weights = None,
    input: InputShapes = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Choose zeros for every layer by rules or a search and its times on a target: a plan for 'prune' and 'train'."""
    from ..verbs import map as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            target=target,
            sparsity=sparsity,
            beta=beta,
            data=data,
            by=by,
            on=on,
            key_file=key_file,
            ignore=tuple(ignore or ()),
            budget=budget,
            calibration=calibration,
            dataset=dataset,
            training_data=training_data,
            settings=tuple(setting or ()),
            output=output,
            weights=weights,
            inputs=tuple(input or ()),
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)

"""The verb that goes from a trained network to a front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import (
    Bfloat16,
    Changes,
    CheckpointEvery,
    Device,
    Float16,
    InputShapes,
    Json,
    KeyFile,
    Mean,
    Model,
    OwnData,
    Seed,
    Std,
    Target,
    Teacher,
    TestShare,
    TrainingData,
    TrainingThreads,
    Weights,
    Width,
    Workers,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["explore"]


def explore(
    model: Model,
    target: Target = "host",
    budget: Annotated[
        str, typer.Option(metavar="B,B", help="Shares of the dense network's time on the target.")
    ] = "0.5,0.35,0.25",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="VARIANT",
            help="What to make for each: channels, channels:knapsack, channels:rl-pruner, mapped, searched, or a structure.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="Trains with zeros: one-shot, gradual, admm or reweighted. As the preset says unless given.",
        ),
    ] = None,
    difficulty: Annotated[
        str,
        typer.Option(help="For mapped: 'easy' data (3x3 convolutions take blocks), or 'hard' (they take patterns)."),
    ] = "easy",
    beta: Annotated[
        float,
        typer.Option(help="For mapped: how much longer than the coarsest block a smaller one may take, as a share."),
    ] = 0.2,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Pattern of layers that stay as they are. Repeatable.")
    ] = None,
    shrinking: Annotated[
        str,
        typer.Option(metavar="PRESET", help="For channels:rl-pruner: rl-pruner, rl-pruner-laptop or rl-pruner-smoke."),
    ] = "rl-pruner-laptop",
    timed_by: Annotated[
        str,
        typer.Option(help="Who tells times in the search: 'model' (a formula), 'cycles' of emulated code, or 'time'."),
    ] = "model",
    told_by: Annotated[
        str | None,
        typer.Option(
            help="And at the end: 'time' (the host, or a board with --on), 'estimate', or 'model'.", show_default=False
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="BOARD", help="The board that measures: rpc://HOST:PORT or tracker://HOST:PORT/KEY."),
    ] = None,
    key_file: KeyFile = None,
    dataset: TrainingData = None,
    data: OwnData = None,
    test_share: TestShare = None,
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    preset: Annotated[
        str | None, typer.Option(help="Of the training that each network gets: laptop, or fine-tune for your own data.")
    ] = None,
    setting: Changes = None,
    teacher: Teacher = None,
    device: Device = "cpu",
    bfloat16: Bfloat16 = False,
    float16: Float16 = False,
    threads: TrainingThreads = None,
    width: Width = 1.0,
    checkpoint_every: CheckpointEvery = 100,
    weights: Weights = None,
    input: InputShapes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of all that is made; beside MODEL unless given.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """For each budget of time make several smaller networks, train, compile and time them; or go on where that was killed."""
    from ..verbs import explore as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            target=target,
            budget=budget,
            variants=tuple(variant or ()),
            method=method,
            difficulty=difficulty,
            beta=beta,
            ignore=tuple(ignore or ()),
            shrinking=shrinking,
            timed_by=timed_by,
            told_by=told_by,
            on=on,
            key_file=key_file,
            dataset=dataset,
            data=data,
            test_share=test_share,
            colours=verb.parse_colours(mean, std),
            workers=workers,
            preset=preset,
            settings=tuple(setting or ()),
            teacher=teacher,
            machine=verb.machine_asked(device, bfloat16, float16, threads),
            width=width,
            checkpoint_every=checkpoint_every,
            weights=weights,
            inputs=tuple(input or ()),
            output=output,
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)

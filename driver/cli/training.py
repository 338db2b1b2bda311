"""The verbs that train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import (
    MOST_MACS,
    Bfloat16,
    Changes,
    CheckpointEvery,
    DataFolder,
    Device,
    InputShapes,
    Json,
    Model,
    Seed,
    Teacher,
    TrainingData,
    TrainingThreads,
    Width,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["train", "train_levels"]


def train(
    model: Model,
    dataset: TrainingData = "cifar10",
    data: DataFolder = None,
    preset: Annotated[str, typer.Option(help="Hyper-parameters: vgg16-cifar10, laptop, smoke and others.")] = "laptop",
    setting: Changes = None,
    masks: Annotated[
        Path | None, typer.Option(help="Weights that stay zero: parameter name to bool tensor, .safetensors.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="Find zeros in training: one-shot, gradual, admm, reweighted or sr-ste. As the preset says unless given.",
        ),
    ] = None,
    structure: Annotated[
        list[str] | None,
        typer.Option(
            "--structure",
            metavar="[PATTERN=]STRUCTURE",
            help="Of the zeros: row-block:4, pattern, 2:4 ..., for layers of a name or all others; or channels. Repeatable.",
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", "-s", help="Share of zeros, 0..1, where the structure does not say it."),
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of layers without zeros. Repeatable.")] = None,
    teacher: Teacher = None,
    device: Device = "cpu",
    bfloat16: Bfloat16 = False,
    threads: TrainingThreads = None,
    width: Width = 1.0,
    checkpoint_every: CheckpointEvery = 100,
    restart: Annotated[bool, typer.Option("--restart", help="Do not go on with what the folder holds.")] = False,
    compute: Annotated[
        str,
        typer.Option(
            help="What is as for the dense network: 'epochs', or 'equal' for more epochs as they are cheaper, at most twice."
        ),
    ] = "epochs",
    dense_macs: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_MACS, help="Multiply-accumulates of the dense network on one image, for --compute equal."
        ),
    ] = None,
    input: InputShapes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; beside MODEL unless given.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a model, with zeros found in training if a method is named; or go on with a training that was killed."""
    from ..verbs import train as verb

    def work() -> Answer:
        asked = verb.structure_asked(verb.structures_asked(structure or []))
        request = verb.Request(
            model=model,
            dataset=dataset,
            data=data,
            preset=preset,
            settings=tuple(setting or ()),
            zeros=verb.ZerosAsked(method=method, structure=asked, sparsity=sparsity, ignore=tuple(ignore or ())),
            teacher=teacher,
            masks=masks,
            machine=verb.Hardware(device, "bfloat16" if bfloat16 else "float32", threads),
            width=width,
            checkpoint_every=checkpoint_every,
            restart=restart,
            compute=compute,
            dense_macs=dense_macs,
            inputs=tuple(input or ()),
            output=output,
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)


def train_levels(
    model: Model,
    levels: Annotated[int, typer.Option(min=1, max=100, help="Levels of rising sparsity, beside the dense one.")] = 8,
    share: Annotated[float, typer.Option(help="Of the weights that remain, removed at every level.")] = 0.2,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="iterative; or a score, for masks found before training; or another method that zeroes weights.",
        ),
    ] = "iterative",
    rewind: Annotated[str, typer.Option(help="Where weights go back to: 500it (steps) or 1ep (epochs).")] = "0it",
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of weights that stay whole. Repeatable.")] = None,
    dataset: TrainingData = "cifar10",
    data: DataFolder = None,
    preset: Annotated[str, typer.Option(help="Hyper-parameters of every level, as for train.")] = "laptop",
    setting: Changes = None,
    teacher: Teacher = None,
    device: Device = "cpu",
    bfloat16: Bfloat16 = False,
    threads: TrainingThreads = None,
    width: Width = 1.0,
    checkpoint_every: CheckpointEvery = 100,
    input: InputShapes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the levels; beside MODEL unless given.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train sparse models, level by level, by iterative magnitude pruning; or go on where that was killed."""
    from ..verbs import train_levels as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            ladder=verb.Ladder(levels, share, method, rewind, tuple(ignore or ())),
            dataset=dataset,
            data=data,
            preset=preset,
            settings=tuple(setting or ()),
            teacher=teacher,
            machine=verb.Hardware(device, "bfloat16" if bfloat16 else "float32", threads),
            width=width,
            checkpoint_every=checkpoint_every,
            inputs=tuple(input or ()),
            output=output,
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)

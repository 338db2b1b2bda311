"""The verbs that train, and tell what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import (
    MOST_MACS,
    MOST_RUNS,
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
    On,
    OwnData,
    PublicKey,
    Seed,
    SessionTimeout,
    Std,
    Teacher,
    TestShare,
    ThreadsOfBundle,
    TrainingData,
    TrainingThreads,
    Weights,
    Width,
    Workers,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["evaluate", "shrink", "train", "train_levels"]

Preset = Annotated[
    str | None,
    typer.Option(help="Hyper-parameters: laptop, or fine-tune for your own data; vgg16-cifar10, smoke and others."),
]


def train(
    model: Model,
    dataset: TrainingData = None,
    data: OwnData = None,
    test_share: TestShare = None,
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    preset: Preset = None,
    setting: Changes = None,
    masks: Annotated[
        Path | None, typer.Option(help="Weights that stay zero: parameter name to bool tensor, .safetensors.")
    ] = None,
    keep_zeros: Annotated[
        bool, typer.Option("--keep-zeros", help="Weights of the model that are zero stay zero.")
    ] = False,
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
            metavar="[PATTERN=]STRUCTURE|PLAN",
            help="Of the zeros: row-block:4, 2:4, pattern@0.8 ..., for layers of a name or others; channels; or a plan.",
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", "-s", help="Share of zeros, 0..1, where structures do not say it."),
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of layers without zeros. Repeatable.")] = None,
    teacher: Teacher = None,
    device: Device = "cpu",
    bfloat16: Bfloat16 = False,
    float16: Float16 = False,
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
    weights: Weights = None,
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
            test_share=test_share,
            colours=verb.parse_colours(mean, std),
            workers=workers,
            preset=preset,
            settings=tuple(setting or ()),
            zeros=verb.ZerosAsked(method=method, structure=asked, sparsity=sparsity, ignore=tuple(ignore or ())),
            teacher=teacher,
            masks=masks,
            keep_zeros=keep_zeros,
            machine=verb.machine_asked(device, bfloat16, float16, threads),
            width=width,
            checkpoint_every=checkpoint_every,
            restart=restart,
            compute=compute,
            dense_macs=dense_macs,
            weights=weights,
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
    dataset: TrainingData = None,
    data: OwnData = None,
    test_share: TestShare = None,
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    preset: Preset = None,
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


def shrink(
    model: Model,
    sparsity: Annotated[float, typer.Option("--sparsity", "-s", help="Share of the filters that goes, 0..1.")] = 0.6,
    rule: Annotated[
        str,
        typer.Option(help="What goes at a step: rl-pruner; or uniform, magnitude, taylor, latency, knapsack."),
    ] = "rl-pruner",
    reward: Annotated[
        str,
        typer.Option(help="What candidates are worth beside accuracy: macs, parameters, or the latency on --target."),
    ] = "accuracy",
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Whose layers' modelled times count, or are only told.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of layers that stay whole. Repeatable.")] = None,
    dataset: TrainingData = None,
    data: OwnData = None,
    test_share: TestShare = None,
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    preset: Annotated[
        str | None,
        typer.Option(help="Steps, search and training: rl-pruner as its authors, rl-pruner-laptop, rl-pruner-smoke."),
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
        Path | None, typer.Option("--output", "-o", help="Folder of the steps; beside MODEL unless given.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Make a trained model smaller step by step, each found by a search and followed by a training; or go on."""
    from ..verbs import shrink as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            sparsity=sparsity,
            rule=rule,
            reward=reward,
            target=target,
            ignore=tuple(ignore or ()),
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


def evaluate(
    model: Annotated[str, typer.Argument(metavar="BUNDLE|MODEL", help="A bundle, or a model to compile first.")],
    dataset: TrainingData = None,
    data: OwnData = None,
    test_share: TestShare = None,
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    test_images: Annotated[
        int, typer.Option(min=0, max=MOST_RUNS, help="How many of the images for tests, 0 for all.")
    ] = 0,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What a bundle was compiled from, to run in PyTorch beside it.")
    ] = None,
    on: On = None,
    key_file: KeyFile = None,
    public_key: PublicKey = None,
    timeout: SessionTimeout = 600,
    threads: ThreadsOfBundle = None,
    weights: Weights = None,
    input: InputShapes = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Tell how often a model is right on images for tests, in PyTorch and compiled, and how often both agree."""
    from ..verbs import evaluate as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            dataset=dataset,
            data=data,
            test_share=test_share,
            colours=verb.parse_colours(mean, std),
            workers=workers,
            test_images=test_images,
            against=against,
            on=on,
            key_file=key_file,
            public_key=public_key,
            timeout=timeout,
            threads=threads,
            weights=weights,
            inputs=tuple(input or ()),
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)

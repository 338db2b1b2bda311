"""The verbs that run and time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import (
    MOST_IMAGES,
    MOST_RUNS,
    InputShapes,
    Json,
    KeyFile,
    Mean,
    On,
    PublicKey,
    Seed,
    SessionTimeout,
    Std,
    Target,
    ThreadsOfBundle,
    Weights,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["bench", "demo", "run"]


def run(
    model: Annotated[str, typer.Argument(metavar="BUNDLE|MODEL", help="A bundle, or a model to compile first.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAME=]INPUT.npy|IMAGE]...",
            help="In order, or by the names of the inputs; or image files, which are scaled and normalised.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Inputs: .npy, or .npz with one array each, by the inputs' names or in order.")
    ] = None,
    on: On = None,
    key_file: KeyFile = None,
    public_key: PublicKey = None,
    timeout: SessionTimeout = 600,
    threads: ThreadsOfBundle = None,
    mean: Mean = None,
    std: Std = None,
    weights: Weights = None,
    input: InputShapes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs here: .npz, or .npy for one.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run a bundle, or a model compiled for this machine."""
    from ..verbs import run as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            files=tuple(files or ()),
            data=data,
            on=on,
            key_file=key_file,
            public_key=public_key,
            timeout=timeout,
            threads=threads,
            weights=weights,
            inputs=tuple(input or ()),
            colours=verb.parse_colours(mean, std),
            output=output,
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)


def bench(
    model: Annotated[str, typer.Argument(metavar="BUNDLE|MODEL", help="A bundle, or a model to compile first.")],
    against: Annotated[str | None, typer.Option(metavar="MODEL", help="The dense model, measured beside it.")] = None,
    target: Target = "host",
    threads: ThreadsOfBundle = None,
    batch: Annotated[int | None, typer.Option(min=1, max=MOST_IMAGES, help="Size of the inputs' first axis.")] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_RUNS, help="Measured runs, after warm-up: 50, or 1 when emulated.", show_default=False
        ),
    ] = None,
    on: On = None,
    key_file: KeyFile = None,
    public_key: PublicKey = None,
    timeout: SessionTimeout = 600,
    engine: Annotated[
        list[str] | None, typer.Option(help="reconvene, tvm-default or eager; all unless given. Repeatable.")
    ] = None,
    weights: Weights = None,
    input: InputShapes = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure latency: of a bundle, or of a model on our TVM pipeline, TVM's default, and PyTorch eager."""
    from ..verbs import bench as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            against=against,
            target=target,
            threads=threads,
            batch=batch,
            repeat=repeat,
            on=on,
            key_file=key_file,
            public_key=public_key,
            timeout=timeout,
            engines=tuple(engine or ()),
            weights=weights,
            inputs=tuple(input or ()),
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")] = Path("out/demo"),
    repeat: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="Measured runs of every network.")] = 50,
    dataset: Annotated[
        str,
        typer.Option(help="What VGG-16 is trained on: digits, or fashion-mnist or cifar10, which take many minutes."),
    ] = "digits",
    json: Json = False,
) -> None:
    """Prune two real networks, one before its training and one after, and prove, compile and time both on real images."""
    from ..verbs import demo as verb

    answer(json, lambda: verb.run(verb.Request(out, repeat, dataset)))

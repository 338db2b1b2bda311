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
    On,
    PublicKey,
    Seed,
    SessionTimeout,
    Target,
    ThreadsOfBundle,
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
            metavar="[[NAME=]INPUT.npy]...", help="In order, or by the names of the inputs.", show_default=False
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
    input: InputShapes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs here: .npz, or .npy for one.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run a bundle, or a model compiled for this machine."""
    from ..verbs import run as run_verb

    shapes, keys = input or [], (key_file, public_key)
    answer(json, lambda: run_verb.run(model, files or [], data, on, shapes, threads, output, seed, timeout, *keys))


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
    input: InputShapes = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure latency: of a bundle, or of a model on our TVM pipeline, TVM's default, and PyTorch eager."""
    from ..verbs import bench as verb

    if on is not None or Path(model).is_dir():
        from ..verbs import bundles
        from ..verbs.sign import signed_bundle

        def work() -> Answer:
            signed = signed_bundle(model, public_key)
            return bundles.bench_bundle(model, on, threads, repeat, timeout, key_file, signed)

        answer(json, work)
        return
    rounds = repeat or 50
    shapes, engines = input or [], engine or []
    answer(json, lambda: verb.run(model, against, shapes, target, threads or 1, batch, rounds, engines, seed))


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")] = Path("out/demo"),
    repeat: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="Measured runs of every network.")] = 50,
    json: Json = False,
) -> None:
    """Prune, prove, compile and time two real networks on real images."""
    from ..verbs import demo as verb

    answer(json, lambda: verb.run(out, repeat))

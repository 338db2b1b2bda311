"""The verbs that compile, and what is known of machines without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import (
    Choose,
    Dynamic,
    InputShapes,
    Json,
    KeyFile,
    Model,
    Output,
    ReportFile,
    Seed,
    Target,
    Threads,
    Weights,
    Winograd,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["board_server", "compile_", "estimate", "targets"]


def compile_(
    model: Model,
    target: Target = "host",
    threads: Threads = 1,
    link: Annotated[bool, typer.Option(help="Link here; else leave object files for a linker elsewhere.")] = True,
    runtime: Annotated[
        str | None,
        typer.Option(help="static: one program; wheel: with TVM's libraries; none: C sources; python: a library."),
    ] = None,
    winograd: Winograd = "auto",
    choose: Choose = "model",
    on: Annotated[
        str | None,
        typer.Option(metavar="BOARD", help="With --choose time: rpc://HOST:PORT or tracker://HOST:PORT/KEY."),
    ] = None,
    key_file: KeyFile = None,
    cache: Annotated[bool, typer.Option(help="Take compiled code from the cache folder, and keep it there.")] = True,
    tune: Annotated[
        int,
        typer.Option(
            min=0, max=100_000, metavar="N", help="Trials of MetaSchedule for each kernel without a schedule of ours."
        ),
    ] = 0,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="TYPE",
            help="float32; float16 on cores that compute in it: the Raspberry Pi 5, not the 4; int8: all layers of a quantised"
            " model on 8-bit codes, also where float32 is faster.",
        ),
    ] = "float32",
    codes: Annotated[
        str | None,
        typer.Option(
            metavar="ENDS", help="A quantised model takes or gives 8-bit codes, not float32: inputs, outputs or both."
        ),
    ] = None,
    check: Annotated[bool, typer.Option(help="Compare the code with the model, on inputs of several kinds.")] = True,
    check_input: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Compare on these inputs, too: .npy or .npz. Repeatable.")
    ] = None,
    weights: Weights = None,
    input: InputShapes = None,
    dynamic: Dynamic = None,
    output: Output = None,
    report: ReportFile = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compile a model with TVM into a bundle (a folder)."""
    from ..verbs import compile as verb

    def work() -> Answer:
        request = verb.Request(
            model=model,
            target=target,
            threads=threads,
            link=link,
            runtime=runtime,
            winograd=winograd,
            choose=choose,
            on=on,
            key_file=key_file,
            cache=cache,
            tune=tune,
            dtype=dtype,
            codes=codes,
            check=check,
            check_files=tuple(check_input or ()),
            weights=weights,
            inputs=tuple(input or ()),
            dynamic=tuple(dynamic or ()),
            output=output,
            report=report,
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)


def estimate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle with a program, for aarch64 or x86_64.")],
    all: Annotated[bool, typer.Option("--all", help="Show every kernel, however many there are.")] = False,
    assembly: Annotated[
        str | None, typer.Option(metavar="KERNEL", help="Also show the code that this kernel spends its time in.")
    ] = None,
    json: Json = False,
) -> None:
    """Estimate instructions, cycles, cache misses and time on the bundle's machine, without the machine."""
    from ..verbs import estimate as verb

    answer(json, lambda: verb.run(verb.Request(bundle, all, assembly)))


def targets(json: Json = False) -> None:
    """List the machines that there are presets for."""
    from ..verbs import targets as verb

    answer(json, verb.run)


def board_server(
    target: Annotated[str, typer.Option("--target", "-t", help="The board it is for, from 'reconvene targets'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    runtime: Annotated[
        str | None,
        typer.Option(help="wheel: with TVM's own libraries, where there are; source: compiled from its sources."),
    ] = None,
    json: Json = False,
) -> None:
    """Make an RPC server for a board, which 'run' and 'bench' reach with --on."""
    from ..verbs import board_server as verb

    answer(json, lambda: verb.run(verb.Request(target, output, runtime)))

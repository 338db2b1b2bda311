"""The command line: one verb each, results on stdout, everything else on stderr.

`ending` has the exit codes.
This file imports neither torch nor TVM, so that ``--help`` answers at once; `verbs` does the work.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...frontend.base.errors import InputError
from .command_options import (
    MODEL_HELP,
    MOST_CHANNELS,
    MOST_IMAGES,
    MOST_RUNS,
    Bfloat16,
    Changes,
    CheckpointEvery,
    Choose,
    DataFolder,
    Dataset,
    Device,
    Dynamic,
    Fold,
    InputShapes,
    Json,
    KeyFile,
    Model,
    On,
    OnnxFile,
    Output,
    PlanFile,
    PublicKey,
    ReportFile,
    Seed,
    SessionTimeout,
    Target,
    Threads,
    ThreadsOfBundle,
    TrainingData,
    TrainingThreads,
    Width,
    Winograd,
)
from .ending import INTERRUPTED, explained, failed, unheard
from .meaningless import Verb
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["app", "main"]

app = typer.Typer(
    name="reconvene",
    help="A compiler for pruned neural networks: proves which channels can go, removes them exactly, and compiles"
    " what is left.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
) -> None:
    """Options that stand anywhere on the line; `main` has read them."""


@app.command(cls=Verb)
def capture(
    model: Model,
    input: InputShapes = None,
    dynamic: Dynamic = None,
    output: Output = None,
    onnx: OnnxFile = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Capture a model as a graph (.pt2)."""
    from ..verbs import capture as verb

    answer(json, lambda: verb.run(model, input or [], dynamic or [], output, onnx, seed))


@app.command(cls=Verb)
def prune(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)] = None,
    named: Annotated[str | None, typer.Option("--model", help="MODEL, as an option.")] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", help="How channels are scored; or reconvene, the paper's method.")
    ] = "magnitude",
    sparsity: Annotated[
        float, typer.Option("--sparsity", "-s", help="Share of the channels to remove, 0..1; of weights for reconvene.")
    ] = 0.5,
    score: Annotated[str | None, typer.Option(help="For reconvene: magnitude, random, snip, grasp or synflow.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another setting of reconvene, see docs. Repeatable."),
    ] = None,
    dataset: Dataset = None,
    data: DataFolder = None,
    width: Width = 1.0,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Score on random inputs and labels.")] = False,
    scope: Annotated[
        str, typer.Option(help="The share holds in every 'layer', or 'global' over all of them.")
    ] = "layer",
    target: Annotated[str | None, typer.Option(help="Round the channels kept to what suits this target.")] = None,
    latency: Annotated[
        float | None, typer.Option(help="Share of the dense time to reach on the target, instead of a sparsity.")
    ] = None,
    channel_multiple: Annotated[
        int | None, typer.Option(min=1, max=MOST_CHANNELS, help="Round them to this multiple instead.")
    ] = None,
    minimum_channels: Annotated[
        int, typer.Option(min=1, max=MOST_CHANNELS, help="What every layer keeps at least.")
    ] = 1,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of parameter names to leave. Repeatable.")] = None,
    input: InputShapes = None,
    dynamic: Dynamic = None,
    output: Output = None,
    report: ReportFile = None,
    plan: PlanFile = None,
    onnx: OnnxFile = None,
    fold: Fold = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Choose channels to remove, remove them, and prove that nothing else changed."""
    from ..verbs import prune as verb
    from ..verbs.compacted import Outputs
    from ..verbs.settings import method_settings

    outputs = Outputs(output, report, plan, onnx)
    options = {
        "scope": scope,
        "latency": latency,
        "channel_multiple": channel_multiple,
        "minimum_channels": minimum_channels,
        "ignore": tuple(ignore or ()),
        "seed": seed,
        "fold_batch_norm": fold,
    }

    def work() -> Answer:
        settings = method_settings(score, setting or [])
        told = verb.PruningData(dataset, data, width, synthetic, settings, tuple(dynamic or ()))
        chosen = one_model(model, named)
        return verb.run(chosen, input or [], method, sparsity, target, options, told, outputs)

    answer(json, work)


@app.command(cls=Verb)
def compact(
    model: Model,
    masks: Annotated[Path | None, typer.Option(help="More zeros: parameter name to bool tensor, .safetensors.")] = None,
    apply: Annotated[Path | None, typer.Option(help="Do to this model what a plan (.json) says was done.")] = None,
    input: InputShapes = None,
    dynamic: Dynamic = None,
    output: Output = None,
    report: ReportFile = None,
    plan: PlanFile = None,
    onnx: OnnxFile = None,
    fold: Fold = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Remove the channels that the model's own zeros make removable, and prove that nothing else changed."""
    from ..verbs import compact as verb
    from ..verbs.compacted import Outputs

    outputs = Outputs(output, report, plan, onnx)
    answer(json, lambda: verb.run(model, input or [], masks, apply, outputs, seed, fold, dynamic or []))


@app.command(cls=Verb)
def train(
    model: Model,
    dataset: TrainingData = "cifar10",
    data: DataFolder = None,
    preset: Annotated[str, typer.Option(help="Hyper-parameters: vgg16-cifar10, laptop, smoke and others.")] = "laptop",
    setting: Changes = None,
    masks: Annotated[
        Path | None, typer.Option(help="Weights that stay zero: parameter name to bool tensor, .safetensors.")
    ] = None,
    device: Device = "cpu",
    bfloat16: Bfloat16 = False,
    threads: TrainingThreads = None,
    width: Width = 1.0,
    checkpoint_every: CheckpointEvery = 100,
    restart: Annotated[bool, typer.Option("--restart", help="Do not go on with what the folder holds.")] = False,
    input: InputShapes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; beside MODEL unless given.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a model, or go on with a training that was killed."""
    from ..verbs import train as verb

    def work() -> Answer:
        machine = verb.Machine(device, "bfloat16" if bfloat16 else "float32", threads)
        options = verb.Options(
            dataset, data, preset, tuple(setting or ()), masks, machine, width, checkpoint_every, restart, seed
        )
        return verb.train_verb(model, input or [], options, output)

    answer(json, work)


@app.command(cls=Verb)
def sparsify(
    model: Model,
    levels: Annotated[int, typer.Option(min=1, max=100, help="Levels of rising sparsity, beside the dense one.")] = 8,
    share: Annotated[float, typer.Option(help="Of the weights that remain, removed at every level.")] = 0.2,
    method: Annotated[
        str, typer.Option("--method", "-m", help="iterative; or a score, for masks found before training.")
    ] = "iterative",
    rewind: Annotated[str, typer.Option(help="Where weights go back to: 500it (steps) or 1ep (epochs).")] = "0it",
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of weights that stay whole. Repeatable.")] = None,
    dataset: TrainingData = "cifar10",
    data: DataFolder = None,
    preset: Annotated[str, typer.Option(help="Hyper-parameters of every level, as for train.")] = "laptop",
    setting: Changes = None,
    device: Device = "cpu",
    bfloat16: Bfloat16 = False,
    threads: TrainingThreads = None,
    width: Width = 1.0,
    checkpoint_every: CheckpointEvery = 100,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the levels; beside MODEL unless given.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train sparse models, level by level, by iterative magnitude pruning; or go on where that was killed."""
    from ..training import levels as training_levels
    from ..verbs import sparsify as sparsify_verb
    from ..verbs import train as verb

    def work() -> Answer:
        machine = verb.Machine(device, "bfloat16" if bfloat16 else "float32", threads)
        options = verb.Options(
            dataset, data, preset, tuple(setting or ()), None, machine, width, checkpoint_every, False, seed
        )
        ladder = training_levels.Ladder(levels, share, method, rewind, tuple(ignore or ()))
        return sparsify_verb.sparsify_verb(model, ladder, options, output)

    answer(json, work)


@app.command("compile", cls=Verb)
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
    check: Annotated[bool, typer.Option(help="Compare the code with the model, on inputs of several kinds.")] = True,
    check_input: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Compare on these inputs, too: .npy or .npz. Repeatable.")
    ] = None,
    input: InputShapes = None,
    dynamic: Dynamic = None,
    output: Output = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compile a model with TVM into a bundle (a folder)."""
    from ..verbs import compile as verb

    options = {
        "threads": threads,
        "winograd": winograd,
        "choose": choose,
        "on": on,
        "key_file": key_file,
        "cache": cache,
        "tune": tune,
        "check": check,
    }
    answer(
        json,
        lambda: verb.run(
            model, input or [], target, options, link, runtime, output, seed, check_input or [], dynamic or []
        ),
    )


@app.command(cls=Verb)
def portfolio(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="LEVELS|MODEL...", help="What sparsify wrote, or several .pt2; or one with --sparsity."),
    ],
    sparsity: Annotated[
        list[float] | None,
        typer.Option("--sparsity", "-s", help="Prune MODEL to this share, too; 0: as is. Repeatable."),
    ] = None,
    method: Annotated[str, typer.Option("--method", "-m", help="How channels are scored then.")] = "magnitude",
    scope: Annotated[
        str, typer.Option(help="The share holds in every 'layer', or 'global' over all of them.")
    ] = "layer",
    name: Annotated[str | None, typer.Option(help="Of the portfolio; that of its folder unless given.")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Compile for it; the host unless given. Repeatable.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Measure accuracy on: cifar10 and others, as for train.")] = None,
    data: DataFolder = None,
    test_images: Annotated[
        int, typer.Option(min=0, max=10_000_000, help="How many of its test images; 0 for all.")
    ] = 0,
    batch: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="Images a call of the variants takes.")] = 1,
    threads: Threads = 1,
    winograd: Winograd = "auto",
    choose: Choose = "model",
    repeat: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="Measured runs of every variant.")] = 50,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Model the latency on targets that are not here.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the portfolio; beside the first source unless given."),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Shrink sparse models without loss, compile and measure them, and put them into one folder to switch between."""
    from ..verbs import portfolio as verb

    def work() -> Answer:
        request = verb.Request(
            tuple(sparsity or ()), method, scope, name, tuple(target or ("host",)), dataset, data, test_images, batch,
            threads, repeat, estimate, seed, {"winograd": winograd, "choose": choose},
        )  # fmt: skip
        return verb.portfolio_verb(sources, request, output)

    answer(json, work)


@app.command(cls=Verb)
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


@app.command(cls=Verb)
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


@app.command(cls=Verb)
def serve(
    portfolio: Annotated[str, typer.Argument(metavar="PORTFOLIO", help="The folder of a portfolio.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="TCP port; 8000 unless there is a Unix socket, 0 for any free one."),
    ] = None,
    unix: Annotated[Path | None, typer.Option(metavar="PATH", help="Also, or only, listen on a Unix socket.")] = None,
    variant: Annotated[str | None, typer.Option(help="What answers first; else the one that did last.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="What switches variants: latency, queue, memory, power, or hand. Repeatable."),
    ] = None,
    objective: Annotated[
        float | None, typer.Option("--objective-ms", help="For latency: what 95 of 100 requests stay below.")
    ] = None,
    reserve: Annotated[
        int, typer.Option("--reserve-mib", min=1, max=1 << 20, help="For memory: what is to be left.")
    ] = 256,
    queue_high: Annotated[float, typer.Option(help="For queue: the mean length that is too much.")] = 8.0,
    dwell: Annotated[float, typer.Option(help="Seconds that a variant answers at least.")] = 10.0,
    threads: Threads = 1,
    queue: Annotated[int, typer.Option(min=1, max=100_000, help="Requests that may wait; others get 503.")] = 64,
    timeout: Annotated[float, typer.Option(min=0.001, max=86_400, help="Seconds that a request may take.")] = 30.0,
    body: Annotated[int, typer.Option("--body-mib", min=1, max=1 << 14, help="Size that a request may have.")] = 64,
    bodies: Annotated[
        int,
        typer.Option("--bodies-mib", min=1, max=1 << 20, help="Size that all requests under way may have together."),
    ] = 256,
    connections: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Connections that may be open; for one more, an idle one goes.")
    ] = 1024,
    control: Annotated[bool, typer.Option(help="Let clients switch variants.")] = True,
    control_token: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with what clients must know to switch, but over a Unix socket; or set RECONVENE_CONTROL_TOKEN.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name under which clients that switch reach the server. Repeatable."),
    ] = None,
    public_key: PublicKey = None,
    state: Annotated[Path | None, typer.Option(help="File that notes which variant is served.")] = None,
    private_copy: Annotated[
        bool, typer.Option("--private-copy", help="Copy a variant's files into sealed memory instead of mapping them.")
    ] = False,
    target: Target = "host",
    json: Json = False,
) -> None:
    """Serve a portfolio over HTTP, and switch between its variants while it answers."""
    from ..verbs import serve as verb

    options = verb.Options(
        host=host,
        port=port,
        unix=unix,
        target=target,
        variant=variant,
        threads=threads,
        policies=tuple(policy or ()),
        objective_ms=objective,
        reserve_mib=reserve,
        queue_high=queue_high,
        dwell=dwell,
        queue=queue,
        timeout=timeout,
        body_mib=body,
        bodies_mib=bodies,
        connections=connections,
        control=control,
        control_token=control_token,
        private=private_copy,
        hosts=tuple(allow_host or ()),
        state=state,
        public_key=public_key,
    )
    answer(json, lambda: verb.serve_verb(portfolio, options))


@app.command(cls=Verb)
def sign(
    folder: Annotated[
        str | None, typer.Argument(metavar="BUNDLE|PORTFOLIO", help="What to sign.", show_default=False)
    ] = None,
    secret_key: Annotated[Path | None, typer.Option(metavar="FILE", help="minisign's, without a password.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Make a key there, and FILE.pub beside it, and sign nothing.")
    ] = None,
    json: Json = False,
) -> None:
    """Sign a bundle or a portfolio, so that --public-key tells who made it."""
    from ..verbs.sign import sign_verb

    answer(json, lambda: sign_verb(folder, secret_key, new_key))


@app.command(cls=Verb)
def server(
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

    answer(json, lambda: verb.run(target, runtime, output))


@app.command(cls=Verb)
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

    answer(json, lambda: verb.run(bundle, all, assembly))


@app.command(cls=Verb)
def explain(
    model: Model,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    dot: Annotated[Path | None, typer.Option(help="Write the channel axes for Graphviz.")] = None,
    graphml: Annotated[Path | None, typer.Option(help="Write the channel axes as GraphML.")] = None,
    input: InputShapes = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Show which channels can go together, which cannot, and why."""
    from ..verbs import explain as verb

    answer(json, lambda: verb.run(model, input or [], html, dot, graphml, seed))


@app.command(cls=Verb)
def targets(json: Json = False) -> None:
    """List the machines that there are presets for."""
    from ..verbs import targets as verb

    answer(json, verb.run)


@app.command("cache", cls=Verb)
def cache_(
    clear: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND", help="Remove 'all', or libraries, choices, tuned, runtimes, estimates, data. Repeatable."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show how much is kept in the cache folder, or remove it."""
    from ..verbs import cache as verb

    answer(json, lambda: verb.run(clear or []))


@app.command(cls=Verb)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")] = Path("out/demo"),
    repeat: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="Measured runs of every network.")] = 50,
    json: Json = False,
) -> None:
    """Prune, prove, compile and time two real networks on real images."""
    from ..verbs import demo as verb

    answer(json, lambda: verb.run(out, repeat))


def one_model(argument: str | None, option: str | None) -> str:
    """MODEL, given once."""
    if (argument is None) == (option is None):
        raise InputError("name one MODEL, as an argument or with --model")
    return argument or option or ""


def main(arguments: Sequence[str]) -> int:
    """Runs the command line with `arguments` (without the program's name) and returns the exit code."""
    debug = "--debug" in arguments
    if not debug:
        # torch and TVM warn about their own insides; nobody at the keyboard can act on that.
        warnings.simplefilter("ignore")
    try:
        line = [item for item in arguments if item != "--debug"] or ["--help"]
        done = app(line, prog_name="reconvene", standalone_mode=False)
        # typer turns Ctrl-C into an exit code, of some versions only.
        return failed("interrupted", INTERRUPTED) if done == INTERRUPTED else done if isinstance(done, int) else 0
    except (typer.Abort, KeyboardInterrupt):
        return failed("interrupted", INTERRUPTED)
    except SystemExit as ending:
        if (
            type(sys.stdout).__name__ != "PacifyFlushWrapper"
        ):  # What typer puts there when nobody reads its help any more.
            raise
        unheard(1)
        return 0 if ending.code == 1 else 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        return explained(error)

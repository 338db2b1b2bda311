"""The verbs that take a model in, show what can go, and make it smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...frontend.base.errors import InputError
from .command_options import (
    MODEL_HELP,
    MOST_CHANNELS,
    DataFolder,
    Dataset,
    Dynamic,
    Fold,
    InputShapes,
    Json,
    Mean,
    Model,
    OnnxFile,
    Output,
    PlanFile,
    ReportFile,
    Seed,
    Std,
    Structure,
    Weights,
    Width,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["capture", "compact", "explain", "prune"]


def capture(
    model: Model,
    input: InputShapes = None,
    weights: Weights = None,
    dynamic: Dynamic = None,
    output: Output = None,
    onnx: OnnxFile = None,
    image_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="ORDER",
            help="Have it take images as bytes: NHWC, as cameras give them, or NCHW; normalised as its file says, or as --mean"
            " and --std do.",
        ),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Record what the outputs are called, a name a line, and --mean and --std with them."
        ),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Capture a model as a graph (.pt2)."""
    from ..verbs import capture as verb

    def work() -> Answer:
        request = verb.Request(
            model,
            tuple(input or ()),
            tuple(dynamic or ()),
            output,
            onnx,
            image_bytes,
            verb.parse_channels(mean, std),
            seed,
            weights,
            classes,
        )
        return verb.run(request)

    answer(json, work)


def explain(
    model: Model,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    dot: Annotated[Path | None, typer.Option(help="Write the channel axes for Graphviz.")] = None,
    graphml: Annotated[Path | None, typer.Option(help="Write the channel axes as GraphML.")] = None,
    weights: Weights = None,
    input: InputShapes = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Show which channels can go together, which cannot, and why."""
    from ..verbs import explain as verb

    answer(json, lambda: verb.run(verb.Request(model, html, dot, graphml, tuple(input or ()), seed, weights)))


def prune(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)] = None,
    named: Annotated[str | None, typer.Option("--model", help="MODEL, as an option.")] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            metavar="METHOD",
            help="How channels are scored; reconvene, the paper's method; or a score of your own, file.py:function.",
        ),
    ] = "magnitude",
    sparsity: Annotated[
        float,
        typer.Option(
            "--sparsity", "-s", help="Share of channels to remove, 0..1; of weights for reconvene or structures."
        ),
    ] = 0.5,
    layer_sparsity: Annotated[
        list[str] | None,
        typer.Option(
            "--layer-sparsity", metavar="PATTERN=S", help="Only these layers lose channels, each its share. Repeatable."
        ),
    ] = None,
    structure: Structure = None,
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
    timed_by: Annotated[
        str, typer.Option(help="Who tells times with --structure: 'model', 'cycles' of emulated code, or 'time' here.")
    ] = "model",
    channel_multiple: Annotated[
        int | None, typer.Option(min=1, max=MOST_CHANNELS, help="Round them to this multiple instead; 8 for reconvene.")
    ] = None,
    minimum_channels: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_CHANNELS, help="What every layer keeps at least: 1, or 8 and a sixteenth for reconvene."
        ),
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Pattern of parameter names to leave. Repeatable.")] = None,
    recover: Annotated[
        str | None, typer.Option(metavar="least-squares", help="Solve the layers anew that read fewer channels.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|KIND",
            help="What on: a .npy or .npz file, or synthetic (matched, leaves, noise). Default synthetic.",
        ),
    ] = None,
    recover_set: Annotated[
        list[str] | None,
        typer.Option("--recover-set", metavar="NAME=VALUE", help="A setting of either, see docs. Repeatable."),
    ] = None,
    weights: Weights = None,
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
    """Choose channels to remove, or weights inside of layers, remove what can go, and prove that nothing else changed."""
    from ..verbs import prune as verb
    from ..verbs.compacted import Outputs
    from ..verbs.settings import method_settings, structures_asked

    def work() -> Answer:
        request = verb.Request(
            model=one_model(model, named),
            outputs=Outputs(output, report, plan, onnx),
            method=method,
            settings=method_settings(score, setting or []),
            sparsity=verb.shares_asked(layer_sparsity) if layer_sparsity else sparsity,
            structure=structures_asked(structure or []),
            scope=scope,
            target=target,
            latency=latency,
            timed_by=timed_by,
            channel_multiple=channel_multiple,
            minimum_channels=minimum_channels,
            ignore=tuple(ignore or ()),
            fold=fold,
            weights=weights,
            inputs=tuple(input or ()),
            dynamic=tuple(dynamic or ()),
            dataset=dataset,
            data=data,
            width=width,
            synthetic=synthetic,
            recover=recover,
            calibration=calibration,
            recover_settings=tuple(recover_set or ()),
            seed=seed,
        )
        return verb.run(request)

    answer(json, work)


def compact(
    model: Model,
    masks: Annotated[Path | None, typer.Option(help="More zeros: parameter name to bool tensor, .safetensors.")] = None,
    apply: Annotated[Path | None, typer.Option(help="Do to this model what a plan (.json) says was done.")] = None,
    structure: Structure = None,
    weights: Weights = None,
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
    from ..verbs.settings import structures_asked

    outputs = Outputs(output, report, plan, onnx)
    inputs, sizes = tuple(input or ()), tuple(dynamic or ())

    def work() -> Answer:
        said = structures_asked(structure or [])
        return verb.run(verb.Request(model, outputs, masks, apply, said, fold, inputs, sizes, seed, weights))

    answer(json, work)


def one_model(argument: str | None, option: str | None) -> str:
    """MODEL, given once."""
    if (argument is None) == (option is None):
        raise InputError("name one MODEL, as an argument or with --model")
    return argument or option or ""

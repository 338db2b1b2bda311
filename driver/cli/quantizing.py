"""The verb that rounds a network to integers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_options import (
    MOST_IMAGES,
    MOST_RUNS,
    InputShapes,
    Json,
    Mean,
    Model,
    Output,
    Seed,
    Std,
    TestShare,
    Weights,
    Workers,
)
from .terminal import answer

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["quantize"]


def quantize(
    model: Model,
    dataset: Annotated[
        str | None, typer.Option(help="Find ranges on one that the model was trained on: cifar10, digits and others.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Or on your own: a folder of images by class, file.py:function, hf:NAME, or a .npy or .npz of inputs.",
        ),
    ] = None,
    test_share: TestShare = None,
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|KIND", help="Instead of data: a .npy or .npz file, or synthetic (matched, leaves, noise)."
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=MOST_IMAGES, help="How many inputs are looked at, at most.")] = 512,
    test_images: Annotated[
        int, typer.Option(min=0, max=MOST_RUNS, help="How many of those for tests it is measured on, 0 for all.")
    ] = 1000,
    observer: Annotated[
        str, typer.Option(help="How ranges are found: histogram (of least error), min-max or percentile.")
    ] = "histogram",
    equalize: Annotated[
        bool, typer.Option("--equalize", help="First give weights on both sides of a ReLU equal ranges.")
    ] = False,
    correct_bias: Annotated[
        bool, typer.Option("--correct-bias", help="Take the mean error of each channel out of the biases.")
    ] = False,
    float_layers: Annotated[
        list[str] | None, typer.Option("--float", metavar="PATTERN", help="Layers that stay float. Repeatable.")
    ] = None,
    float_worst: Annotated[
        int, typer.Option(min=0, max=MOST_RUNS, help="So many layers of most noise stay float, too.")
    ] = 0,
    float_below: Annotated[
        float | None, typer.Option(metavar="DB", help="Layers of a lower signal-to-noise ratio stay float.")
    ] = None,
    round_outputs: Annotated[
        bool, typer.Option("--round-outputs", help="Round what the network gives, too, for 'compile --codes outputs'.")
    ] = False,
    trainable: Annotated[
        bool, typer.Option("--trainable", help="Write it for 'reconvene train'; quantize what comes of that again.")
    ] = False,
    weights: Weights = None,
    input: InputShapes = None,
    output: Output = None,
    onnx: Annotated[
        Path | None, typer.Option(help="Also write ONNX: QuantizeLinear and DequantizeLinear (QDQ).")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Also write a report (.json).")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Round a trained network to 8-bit integers (.pt2), and tell what that costs. Prune before."""
    from ..verbs import quantize as verb

    def work() -> Answer:
        options = verb.Options(
            observer, equalize, correct_bias, tuple(float_layers or ()), float_worst, float_below, round_outputs
        )
        request = verb.Request(
            model=model,
            options=options,
            dataset=dataset,
            data=data,
            test_share=test_share,
            colours=verb.parse_colours(mean, std),
            workers=workers,
            calibration=calibration,
            images=images,
            test_images=test_images,
            weights=weights,
            inputs=tuple(input or ()),
            output=output,
            onnx=onnx,
            report=report,
            seed=seed,
            trainable=trainable,
        )
        return verb.run(request)

    answer(json, work)

"""Options that several verbs of the command line have, as types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "MODEL_HELP",
    "MOST_CHANNELS",
    "MOST_IMAGES",
    "MOST_MACS",
    "MOST_RUNS",
    "MOST_THREADS",
    "Bfloat16",
    "Changes",
    "CheckpointEvery",
    "Choose",
    "DataFolder",
    "Dataset",
    "Device",
    "Dynamic",
    "Float16",
    "Fold",
    "InputShapes",
    "Json",
    "KeyFile",
    "Mean",
    "Model",
    "On",
    "OnnxFile",
    "Output",
    "OwnData",
    "PlanFile",
    "PublicKey",
    "ReportFile",
    "Seed",
    "SessionTimeout",
    "Std",
    "Structure",
    "Target",
    "Teacher",
    "TestShare",
    "Threads",
    "ThreadsOfBundle",
    "TrainingData",
    "TrainingThreads",
    "Weights",
    "Width",
    "Winograd",
    "Workers",
]

MOST_THREADS, MOST_RUNS, MOST_IMAGES, MOST_CHANNELS, MOST_MACS = 1024, 1_000_000, 65_536, 65_536, 10**11
"""Bounds of counts: what is above is a slip of the finger, and would never be answered."""

MODEL_HELP = (
    "A .pt2 file, package.module:callable, file.py:callable, vgg16-cifar, resnet20-cifar, or another network by name."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
InputShapes = Annotated[
    list[str] | None, typer.Option("--input", metavar="SHAPE[,DTYPE]", help="An example input, such as 1x3x224x224.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE[:KEY]",
        help="Trained weights for a MODEL from code or by name: a state dict, .pth or .safetensors; KEY of a checkpoint.",
    ),
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        help="'batch' or 'size' must be able to vary; the batch may anyway where the model allows. Repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; beside MODEL unless given.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of initial weights, example inputs and random choices.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="Also write a report: .html, or .json.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="Also write which channels stay (JSON).")]
Fold = Annotated[
    bool, typer.Option("--fold-batch-norm", help="Also fold normalisation into the layers before; for inference only.")
]
OnnxFile = Annotated[Path | None, typer.Option("--onnx", help="Also write the model as ONNX.")]
Structure = Annotated[
    list[str] | None,
    typer.Option(
        "--structure",
        metavar="[PATTERN=]STRUCTURE|PLAN",
        help="Zeros inside of layers: row-block:4, 2:4, pattern@0.8 ..., for layers of a name or others; or a plan's .json.",
    ),
]
Threads = Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="Threads to run on.")]
ThreadsOfBundle = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_THREADS, help="Threads to run on: 1, or those a bundle was compiled for.", show_default=False
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Run a bundle on an emulated board: qemu; or on a real one: rpc://HOST:PORT, tracker://HOST:PORT/KEY.",
    ),
]
KeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What a board on the network wants to be known, as its --key-file.")
]
PublicKey = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Take only what was signed with it: minisign's .pub file, or its line of base64."),
]
SessionTimeout = Annotated[
    int, typer.Option("--timeout", min=1, max=604_800, help="Seconds that a board on the network may take.")
]
Dataset = Annotated[
    str | None,
    typer.Option(help="cifar10, digits, fashion-mnist or tiny-imagenet: the papers' networks are fitted to it."),
]
DataFolder = Annotated[Path | None, typer.Option("--data", help="Folder that holds the data set.")]
Width = Annotated[float, typer.Option(help="Scales the layers of a network that is fitted to a data set.")]
Winograd = Annotated[str, typer.Option(help="Winograd's algorithm for 3x3 layers: auto, off, 2x2 or 4x4.")]
Choose = Annotated[
    str,
    typer.Option(
        help="How kernels are chosen: by 'time', here or on a board, modelled 'cycles', 'model', or 'default'."
    ),
]
TrainingData = Annotated[
    str | None,
    typer.Option("--dataset", help="cifar10 (unless --data names your own), digits, fashion-mnist or tiny-imagenet."),
]
OwnData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Your own: a folder of images by class, file.py:function, hf:NAME; with --dataset, where that lies.",
    ),
]
TestShare = Annotated[
    float | None, typer.Option(help="Of the images of each class, to hold back for tests where no folder has them.")
]
Mean = Annotated[str | None, typer.Option(metavar="R,G,B", help="Subtracted from images' colours, as shares of 255.")]
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="What images' colours are then divided by.")]
Workers = Annotated[
    int, typer.Option(min=0, max=MOST_THREADS, help="Processes that make items for --data file.py:function.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a hyper-parameter, such as epochs=3. Repeatable."),
]
Teacher = Annotated[
    str | None, typer.Option(metavar="MODEL", help="A trained model of the same classes, which this one is to be like.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Bfloat16 = Annotated[bool, typer.Option("--bfloat16", help="Compute in bfloat16 where that is safe.")]
Float16 = Annotated[
    bool, typer.Option("--float16", help="Compute in float16 where that is safe, with the loss scaled; for older GPUs.")
]
TrainingThreads = Annotated[int | None, typer.Option(min=1, max=MOST_THREADS, help="Threads to train on.")]
CheckpointEvery = Annotated[int, typer.Option(min=1, max=1_000_000_000, help="Steps between checkpoints.")]
Target = Annotated[str, typer.Option("--target", "-t", help="A name from 'reconvene targets', or a .toml file.")]

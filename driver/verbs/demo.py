"""``reconvene demo``: two real networks on real images, pruned, proved, compiled and timed, in one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from torch import Tensor, nn

from ...frontend.base.errors import InputError
from ...frontend.base.files import write_text
from ...frontend.base.progress import stage, track
from ...frontend.data.datasets import Images, imagenet_samples, small_images
from ...frontend.networks.papers import vgg16_cifar
from ...frontend.networks.pretrained import efficientnet_lite0
from .. import api
from ..answer import Answer, files_line, table
from ..outputs import check_folder
from ..reports.latency import ENGINES, measure
from ..reports.report import Fact, Latency, Report, report_page, reports_to_json, speeds
from ..reports.tables import latency_table, size_table
from ..wording import change, milliseconds, relative, times

if TYPE_CHECKING:
    from ...backends.built import Built

__all__ = ["Request", "run"]

THREADS = 1
SEED = 0
_IMAGES = 64
"""Real images that compiled and eager predictions are compared on."""
_UNTRAINED = "Pruned at initialization: the weights are untrained, so there is no accuracy to speak of yet."
_NOT_RETRAINED = (
    "No training follows the pruning here, so the accuracy is what one-shot magnitude pruning leaves of it."
    " What is exact is that the compacted network computes what the masked one does."
)


@dataclass(frozen=True)
class Part:
    """One network of the demo."""

    name: str
    make: Callable[[int], Report]
    """Takes the number of measured runs."""


@dataclass(frozen=True)
class Request:
    """What ``reconvene demo`` is told; see its help."""

    out: Path
    """A folder."""
    repeat: int = 50


def run(request: Request) -> Answer:
    """Runs both parts and writes ``report.html`` and ``report.json`` into the folder that is asked for.

    A part whose packages or data are missing is left out, and named in the answer and the report.

    Raises:
        CheckError: a compacted network does not compute what the masked one does.
    """
    out = request.out
    check_folder(out)
    reports: list[Report] = []
    skipped: dict[str, str] = {}
    for part in (Part("VGG-16 on CIFAR-10", vgg), Part("EfficientNet-Lite0 on ImageNet", efficientnet)):
        try:
            with stage(part.name):
                reports.append(part.make(request.repeat))
        except InputError as error:
            skipped[part.name] = str(error)
    notes = [f"Skipped: {name}. {reason}" for name, reason in skipped.items()]
    text = reports_to_json(reports, notes)
    files = {"page": str(out / "report.html"), "data": str(out / "report.json")}
    out.mkdir(parents=True, exist_ok=True)
    write_text(files["page"], report_page(reports, "Two networks, pruned and proved", notes))
    write_text(files["data"], text)
    data = {"reports": [report.to_dict() for report in reports], "skipped": skipped, "files": files}
    return Answer(data, lambda console: show(console, reports, skipped, files))


def vgg(repeat: int) -> Report:
    """VGG-16 with fresh weights: half of the channels out before any training."""
    images, note = images_or_noise()
    torch.manual_seed(SEED)
    model = vgg16_cifar().eval()
    image = images[:1]
    found = api.prune(model, (image,), "magnitude", 0.5, "host", seed=SEED)
    variants = {"dense": api.capture(model, (image,)), "compacted": found.module}
    built = compiled(variants, image)
    outputs = {name: scores(module, images) for name, module in variants.items()}
    facts = (compiled_agrees("Predictions of TVM that equal PyTorch's", built, outputs, images),)
    report = dataclasses.replace(found.report, title="VGG-16 on CIFAR-10", facts=facts, notes=(f"{_UNTRAINED} {note}",))
    return report.with_latency(timed(variants, built, image, repeat, ENGINES))


def efficientnet(repeat: int) -> Report:
    """EfficientNet-Lite0 with its ImageNet weights: a fifth of the channels out, on 20 photographs."""
    model, photographs = efficientnet_lite0(), imagenet_samples()
    images = photographs.batch()
    image = images[:1]
    found = api.prune(model, (image,), "magnitude", 0.2, "host", seed=SEED)
    labels = torch.from_numpy(photographs.labels)
    variants = {"dense": api.capture(model, (image,)), "compacted": found.module}
    built = compiled(variants, image)
    outputs = {name: scores(module, images) for name, module in variants.items()}
    dense, compacted = outputs["dense"], outputs["compacted"]
    same = int((dense.argmax(1) == compacted.argmax(1)).sum())
    facts = (
        Fact("Top-1 of 20 photographs", hits(dense, labels, 1), hits(compacted, labels, 1)),
        Fact("Top-5 of 20 photographs", hits(dense, labels, 5), hits(compacted, labels, 5)),
        Fact("Predictions that equal the dense network's", "", f"{same}/{len(labels)}"),
        compiled_agrees("Predictions of TVM that equal PyTorch's", built, outputs, images),
    )
    report = dataclasses.replace(
        found.report, title="EfficientNet-Lite0 on ImageNet", facts=facts, notes=(_NOT_RETRAINED,)
    )
    return report.with_latency(timed(variants, built, image, repeat, ("reconvene", "eager")))


def images_or_noise() -> tuple[Tensor, str]:
    """`_IMAGES` real images (N, 3, 32, 32) and where they are from; noise, said loudly, where there are none."""
    try:
        found: Images = small_images()
    except InputError as error:
        noise = torch.randn(_IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(SEED))
        return noise, f"Timed on random noise, not on real images: {error}"
    return found.batch(0, _IMAGES), f"Images: {found.name}, test set."


def compiled(variants: Mapping[str, torch.fx.GraphModule], image: Tensor) -> dict[str, Built]:
    """Every variant compiled, once for both the comparison and the timing."""
    made = {}
    for name, module in variants.items():
        with stage(f"compiling the {name} network"):
            made[name] = api.compile(module, (image,), "host", threads=THREADS)
    return made


def timed(
    variants: Mapping[str, torch.fx.GraphModule],
    built: Mapping[str, Built],
    image: Tensor,
    repeat: int,
    engines: tuple[str, ...],
) -> list[Latency]:
    calls = {name: (module, (image,)) for name, module in variants.items()}
    return measure(calls, threads=THREADS, repeat=repeat, engines=engines, built=built)


def compiled_agrees(label: str, built: Mapping[str, Built], outputs: Mapping[str, Tensor], images: Tensor) -> Fact:
    """How many predictions the compiled networks share with PyTorch's `outputs`, image by image."""
    shares = []
    for name in ("dense", "compacted"):
        expected = outputs[name].argmax(1)
        agree = sum(
            int(first(built[name].run(images[index : index + 1])).argmax()) == int(expected[index])
            for index in track(range(len(images)), f"checking the compiled {name} network")
        )
        shares.append(f"{agree}/{len(images)}")
    return Fact(label, shares[0], shares[1])


def scores(module: nn.Module, images: Tensor) -> Tensor:
    """Outputs (N, classes), one image at a time: the graphs are captured for a batch of one.

    On one thread: PyTorch's threads wait for each other in every layer, which beside another program takes
    longer by far than the network does.
    """
    from ...backends.measure import torch_threads

    with torch.inference_mode(), torch_threads(THREADS):
        return torch.cat([first(module(image[None])) for image in images])


def first(outputs: object) -> Tensor:
    """The only output of a classifier, whether it comes alone or in a tuple."""
    found = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return torch.as_tensor(found)


def hits(outputs: Tensor, labels: Tensor, most: int) -> str:
    found = (outputs.topk(most).indices == labels[:, None]).any(1)
    return f"{int(found.sum())}/{len(labels)}"


def show(console: Console, reports: list[Report], skipped: dict[str, str], files: dict[str, str]) -> None:
    for report in reports:
        console.print(size_table(report))
        console.print(latency_table(report.latency))
        console.print()
    console.print(summary(reports, skipped))
    for name, reason in skipped.items():
        console.print(f"SKIPPED {name}: {reason}", style="bold red", markup=False, soft_wrap=True)
    console.print(files_line(files), markup=False, soft_wrap=True)


def summary(reports: list[Report], skipped: dict[str, str]) -> object:
    """The one table to remember."""
    numbers = ("parameters", "multiply-accumulates", "largest difference", "latency", "faster")
    made = table("network", *numbers, right=numbers, title="Compacted against dense (one thread, batch 1)")
    for report in reports:
        speed = speeds(report)[0]
        made.add_row(
            report.title,
            change(report.before.parameters, report.after.parameters),
            change(report.before.macs, report.after.macs),
            relative(report.certificate.max_relative),
            f"{milliseconds(speed.before.median_ms)} → {milliseconds(speed.after.median_ms)}",
            times(speed.before.median_ms, speed.after.median_ms),
        )
    for name in skipped:
        made.add_row(name, *["SKIPPED"] * len(numbers), style="bold red")
    return made

"""The first part of the demo: VGG-16 pruned by Reconvene before it is trained, and trained beside the dense one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import torch

from ...frontend.base.progress import stage
from ...frontend.data.datasets import Images, find_dataset
from ...frontend.graph_module import CapturedModule
from ...frontend.networks.papers import vgg16_cifar
from .. import api
from ..reports.report import Fact, Report
from ..training.loop import Trained, train
from ..training.presets import Preset, find_preset
from .demo_measuring import compiled, compiled_agrees, scores, timed

__all__ = ["COURSES", "Course", "vgg"]

SEED = 0
_COMPARED = 64
"""Real images that compiled and eager predictions are compared on."""


@dataclass(frozen=True)
class Course:
    """How the networks of one data set are made and trained.

    Attributes:
        width: of VGG-16's layers, both dense and before the removal.
        sparsity: p, the share of the weights that the first step of Reconvene removes.
        preset: of both trainings.
    """

    width: float
    sparsity: float
    preset: Preset


_SECONDS = Preset(epochs=6, batch=64, rate=0.05, schedule="cosine", warmup=1.0, weight_decay=5e-4, augment="none")
_MINUTES = dataclasses.replace(find_preset("laptop"), schedule="cosine", milestones=())

COURSES: Mapping[str, Course] = MappingProxyType(
    {
        "digits": Course(0.5, 0.95, _SECONDS),
        "fashion-mnist": Course(0.5, 0.95, _MINUTES),
        "cifar10": Course(0.5, 0.95, _MINUTES),
    }
)
"""By data set. The digits are there with the demo's packages; the others, where a person has put them, take many minutes."""


def vgg(dataset: str, repeat: int) -> Report:
    """The report of both networks: accuracy, parameters, latency.

    Raises:
        InputError: the images are not there.
        CheckError: the small network does not compute what the masked one does.
    """
    course, source = COURSES[dataset], find_dataset(dataset)
    training, test = source.load(None, "train"), source.load(None, "test")
    torch.manual_seed(SEED)
    model = vgg16_cifar(source.classes, course.width, source.side)
    image = test.batch(0, 1)
    dense, _ = api.captured(model, (image,))
    found = api.prune(dense, (image,), "reconvene", course.sparsity, seed=SEED, profile=False)
    done = {
        name: trained(name, module, (training, test), course.preset)
        for name, module in (("dense", dense), ("compacted", found.module))
    }
    variants = {name: run.module for name, run in done.items()}
    built, some = compiled(variants, image), test.batch(0, _COMPARED)
    facts = (
        accuracy(done, test, course.preset),
        Fact("Seconds of training", *(f"{done[name].seconds:.0f}" for name in ("dense", "compacted"))),
        compiled_agrees(built, {name: scores(module, some) for name, module in variants.items()}, some),
    )
    report = dataclasses.replace(
        found.report,
        title=f"VGG-16 on {test.name}, pruned before training",
        facts=(*facts, *found.report.facts),
        notes=(note(course, training), *found.report.notes),
    )
    return report.with_latency(timed(variants, built, image, repeat, ("reconvene", "eager")))


def trained(name: str, module: torch.fx.GraphModule, images: tuple[Images, Images], preset: Preset) -> Trained:
    """One training, from its first step; nothing of it is kept but the network."""
    assert isinstance(module, CapturedModule)
    with TemporaryDirectory() as folder, stage(f"training the {name} network"):
        return train(module, *images, preset, Path(folder), seed=SEED)


def accuracy(done: Mapping[str, Trained], test: Images, preset: Preset) -> Fact:
    """Of both networks after their last epoch."""
    count = preset.test_images or len(test)
    dense, small = (f"{done[name].score:.1%}" for name in ("dense", "compacted"))
    return Fact(f"Accuracy on {count} test images", dense, small)


def note(course: Course, training: Images) -> str:
    """How the networks came about, for a person."""
    preset = course.preset
    return (
        f"VGG-16 of width {course.width}, from fresh weights. Reconvene removed channels before any training"
        f" (p = {course.sparsity}); then both networks were trained alike, {preset.epochs} epochs of"
        f" {preset.train_images or len(training)} images of {training.name}. The certificate is that of the removal: weights"
        " were drawn anew after it."
    )

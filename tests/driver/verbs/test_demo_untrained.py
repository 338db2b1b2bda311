"""Both networks of the first part are trained alike, and what each gets right is the first thing the report says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from reconvene.driver.reports.report import Fact
from reconvene.driver.training.loop import Trained, train
from reconvene.driver.verbs import demo_untrained
from reconvene.driver.verbs.demo_untrained import COURSES, Course, vgg
from reconvene.frontend.data.datasets import DATASETS, DataSet, Images
from tests.driver.records import latency


def halves(root: object, split: str) -> Images:
    """Images of 16x16 whose upper or lower half is bright."""
    labels = np.arange(32) % 2
    pixels = np.random.default_rng(len(split)).integers(0, 128, (32, 3, 16, 16), np.uint8)
    pixels[labels == 0, :, :8] += 128
    pixels[labels == 1, :, 8:] += 128
    return Images("halves", pixels, labels, (0.5,) * 3, (0.5,) * 3)


def test_accuracy_is_that_of_networks_trained_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[Any, Trained]] = []

    def spied(module: Any, *given: Any, **options: Any) -> Trained:
        runs.append(((*given[:3], options), train(module, *given, **options)))
        return runs[-1][1]

    preset = dataclasses.replace(COURSES["digits"].preset, epochs=2, batch=8)
    monkeypatch.setattr(demo_untrained, "find_dataset", lambda name: DataSet(2, 16, halves))
    monkeypatch.setattr(demo_untrained, "COURSES", {"halves": Course(0.125, 0.9, preset)})
    monkeypatch.setattr(demo_untrained, "train", spied)
    monkeypatch.setattr(demo_untrained, "compiled", lambda variants, image: variants)
    monkeypatch.setattr(demo_untrained, "compiled_agrees", lambda *given: Fact("agree", "", ""))
    monkeypatch.setattr(demo_untrained, "timed", lambda *given: latency())
    report = vgg("halves", 3)
    (alike, dense), (alike_too, small) = runs
    assert alike == alike_too and alike[2] == preset
    sizes = [sum(weight.numel() for weight in run.module.parameters()) for run in (dense, small)]
    assert sizes == [report.before.parameters, report.after.parameters] and sizes[1] < sizes[0] / 2
    first = report.facts[0]
    assert first == Fact("Accuracy on 32 test images", f"{dense.score:.1%}", f"{small.score:.1%}")
    assert report.title == "VGG-16 on halves, pruned before training" and report.latency
    assert "trained alike, 2 epochs of 32 images of halves" in report.notes[0]


def test_every_data_set_of_the_demo_is_one_of_ours_and_its_training_can_be_run() -> None:
    for name, course in COURSES.items():
        assert name in DATASETS
        course.preset.check()

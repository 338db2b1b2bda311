"""Presets are the papers' code's; rates by hand; changes are checked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reconvene.driver.training.presets import Preset, find_preset, rate_at, recorded
from reconvene.frontend.base.errors import InputError


def test_the_papers_hyper_parameters() -> None:
    vgg, resnet = find_preset("vgg16-cifar10"), find_preset("resnet50-tiny-imagenet")
    assert (vgg.epochs, vgg.batch, vgg.rate, vgg.milestones) == (160, 128, 0.1, (80, 120))
    assert (resnet.epochs, resnet.batch, resnet.rate, resnet.milestones, resnet.warmup) == (
        200,
        256,
        0.2,
        (100, 150),
        5,
    )
    resnet20 = find_preset("resnet20-cifar10")
    assert all((p.momentum, p.weight_decay, p.gamma) == (0.9, 1e-4, 0.1) for p in (vgg, resnet, resnet20))


def test_rates_by_hand() -> None:
    preset = Preset(epochs=4, batch=1, rate=0.8, milestones=(2, 3), warmup=0.5)
    rates = [rate_at(preset, step, 4) for step in range(16)]
    assert rates == pytest.approx([0.4, *[0.8] * 7, *[0.08] * 4, *[0.008] * 4])
    assert rate_at(Preset(1, 1, 0.5), 0, 10) == 0.5


@pytest.mark.parametrize(
    ("dense", "small", "epochs"), [(100, 100, 8), (130, 100, 10), (199, 100, 15), (200, 100, 16), (900, 100, 16)]
)
def test_equal_compute_by_hand(dense: int, small: int, epochs: int) -> None:
    """Never more than the dense network computes, and never more than twice the epochs."""
    preset = Preset(epochs=8, batch=1, rate=0.8, milestones=(4, 6), warmup=0.5)
    longer = preset.stretched(dense, small)
    assert longer.epochs == epochs and longer.epochs * small <= 8 * dense
    assert longer.milestones == (epochs / 2, epochs * 0.75) and longer.warmup == epochs / 16
    same = (longer.batch, longer.rate, longer.gamma, longer.momentum, longer.weight_decay, longer.augment)
    assert same == (1, 0.8, 0.1, 0.9, 1e-4, "crop-flip")


def test_a_network_that_computes_more_is_trained_as_long() -> None:
    assert find_preset("laptop").stretched(90, 100) == find_preset("laptop")


@pytest.mark.parametrize("macs", [(0, 5), (5, 0)])
def test_nothing_is_compared_with_nothing(macs: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="both are 1 or more"):
        find_preset("smoke").stretched(*macs)


def test_changes_as_text_and_as_numbers() -> None:
    changed = find_preset("smoke").changed({"epochs": "3", "rate": "0.2", "milestones": "1,2", "augment": "none"})
    assert (changed.epochs, changed.rate, changed.milestones, changed.augment) == (3, 0.2, (1.0, 2.0), "none")
    assert find_preset("smoke").changed({"milestones": 5}).milestones == (5.0,)
    assert find_preset("smoke").changed({"matched": "layer1.*, fc"}).matched == ("layer1.*", "fc")
    assert find_preset("smoke").changed({"matched": ("fc",)}).matched == ("fc",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 1}, "no setting 'epoch'.*epochs"),
        ({"epochs": "many"}, "whole number"),
        ({"epochs": 1.5}, "whole number"),
        ({"rate": "fast"}, "a number"),
        ({"milestones": "1,x"}, "80,120"),
        ({"epochs": 0}, "0 epochs .* both are 1 or more"),
        ({"batch": 0}, "batches of 0 .* both are 1 or more"),
        ({"train_images": -1}, "^train_images -1 .* 0 for all"),
        ({"test_images": -2}, "^test_images -2 .* 0 for all"),
        ({"rate": "nan"}, "from 0 up"),
        ({"augment": "mixup"}, "choose one of none"),
        ({"optimizer": "lion"}, "choose one of sgd, adamw"),
        ({"schedule": "linear"}, "choose one of steps, cosine, one-cycle"),
        ({"matching": "hints"}, "choose one of features, similarities"),
        ({"label_smoothing": 1.5}, "label_smoothing 1.5 is not a share from 0 to 1"),
        ({"teacher_share": -0.1}, "teacher_share .* a share from 0 to 1"),
        ({"clip": "inf"}, "clip inf is not a number from 0 up"),
        ({"ema": 1}, "ema 1.0 is not a number from 0 to below 1"),
        ({"beta2": 1}, "beta2 1.0 is not a number from 0 to below 1"),
        ({"temperature": 0}, "temperature 0.0 is not a number above 0"),
        ({"optimizer": "adamw", "momentum": 1}, "first beta of AdamW"),
    ],
)
def test_changes_of_no_use_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_preset("smoke").changed(settings)


def test_a_cosine_by_hand() -> None:
    preset = Preset(epochs=4, batch=1, rate=0.8, warmup=1, schedule="cosine")
    falling = [0.4 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert [rate_at(preset, step, 4) for step in range(16)] == pytest.approx([0.2, 0.4, 0.6, 0.8, *falling])
    assert rate_at(Preset(1, 1, 0.5, schedule="cosine", warmup=3), 0, 1) == 0.5


def test_one_cycle_by_hand() -> None:
    """From a 25th of the rate to it in a quarter of the steps, and down to a 10,000th of that 25th."""
    preset = Preset(epochs=4, batch=1, rate=0.8, warmup=1, schedule="one-cycle")
    rates = [rate_at(preset, step, 5) for step in range(20)]
    low, least = 0.8 / 25, 0.8 / 25 / 1e4
    rising = [low + (0.8 - low) * (1 - math.cos(math.pi * step / 4)) / 2 for step in range(5)]
    falling = [least + (0.8 - least) * (1 + math.cos(math.pi * step / 15)) / 2 for step in range(1, 16)]
    assert rates == pytest.approx([*rising, *falling])
    assert max(range(10), key=lambda step: rate_at(Preset(1, 1, 1.0, schedule="one-cycle"), step, 10)) == 2
    assert rate_at(Preset(1, 1, 0.5, schedule="one-cycle"), 0, 1) == 0.5


def test_what_is_recorded_of_a_preset_is_what_trainings_have_recorded_before() -> None:
    """Or else trainings that were begun with an older version would not go on."""
    preset = Preset(epochs=3, batch=8, rate=0.1, temperature=2.0)
    old = {
        "epochs": 3, "batch": 8, "rate": 0.1, "milestones": (), "gamma": 0.1, "warmup": 0.0, "momentum": 0.9,
        "weight_decay": 1e-4, "augment": "crop-flip", "train_images": 0, "test_images": 0,
    }  # fmt: skip
    assert recorded(preset) == old
    assert recorded(preset, teacher=True) == {**old, "temperature": 2.0}
    assert recorded(preset.changed({"clip": 1, "schedule": "cosine"})) == {**old, "clip": 1.0, "schedule": "cosine"}


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'quick'.*laptop"):
        find_preset("quick")

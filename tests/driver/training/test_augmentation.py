"""Random changes: what they may do to a picture, and that only the generator decides."""

from __future__ import annotations

import sys

import pytest
import torch

from reconvene.driver.training.augmentation import AUGMENTATIONS, crop_flip, resized_crop_flip
from reconvene.driver.training.batches import generator_for
from reconvene.frontend.base.errors import InputError


def test_crops_are_shifts_by_at_most_four_with_black_borders_and_half_are_flipped() -> None:
    picture = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8)
    changed = crop_flip(picture.expand(400, 2, 8, 8), generator_for(1))
    padded = torch.nn.functional.pad(picture, (4,) * 4)[0, 0]
    allowed = {}
    for top in range(9):
        for left in range(9):
            part = padded[top : top + 8, left : left + 8]
            allowed[tuple(part.flatten().tolist())] = (top, left, False)
    for top in range(9):
        for left in range(9):
            part = padded[top : top + 8, left : left + 8].flip(1)
            allowed.setdefault(tuple(part.flatten().tolist()), (top, left, True))
    seen = [allowed[tuple(entry[0].flatten().tolist())] for entry in changed]
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert {place[0] for place in seen} == {place[1] for place in seen} == set(range(9))
    assert 140 < sum(place[2] for place in seen) < 260


def test_scaled_parts_stay_inside_the_picture() -> None:
    ramp = torch.linspace(0, 255, 64).expand(200, 3, 64, 64)
    changed = resized_crop_flip(ramp, generator_for(2))
    assert changed.shape == ramp.shape and changed.min() >= 0 and changed.max() <= 255.01
    slope = changed[:, 0, 0, -1] - changed[:, 0, 0, 0]
    assert 60 < (slope < 0).sum() < 140
    share = slope.abs() / 255
    assert share.min() > 0.25 and share.max() <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_decides(name: str) -> None:
    images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    one, same = (AUGMENTATIONS[name](images, generator_for(3, 4)) for _ in range(2))
    assert torch.equal(one, same)
    assert name == "none" or not torch.equal(one, AUGMENTATIONS[name](images, generator_for(3, 5)))


@pytest.mark.parametrize("name", ["trivial-augment", "rand-augment"])
def test_torchvision_s_changes_are_drawn_for_each_image_from_the_generator(name: str) -> None:
    pictures = torch.randint(256, (12, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    one, again, other = (AUGMENTATIONS[name](pictures, generator_for(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.shape == pictures.shape and one.dtype is torch.uint8
    assert torch.equal(one, again) and not torch.equal(one, other)
    cropped = crop_flip(pictures, generator_for(1))
    assert 0 < sum(torch.equal(*pair) for pair in zip(one, cropped, strict=True)) < 12 or name == "rand-augment"
    assert not torch.equal(one, cropped)


def test_without_torchvision_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(InputError, match="torchvision's, which cannot be imported") as caught:
        AUGMENTATIONS["trivial-augment"](torch.zeros(1, 3, 8, 8, dtype=torch.uint8), generator_for(0))
    assert "\n" not in str(caught.value)

"""Views are parts of the images that they are from, at their size, and the same for the same seed."""

from __future__ import annotations

import torch

from reconvene.passes.recovery.views import crops


def test_parts_are_of_the_images_by_turns() -> None:
    flat = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 2, 12, 20)
    made = crops(flat, 7)
    assert made.shape == (7, 2, 12, 20)
    torch.testing.assert_close(made, torch.tensor([0.0, 1, 2, 0, 1, 2, 0]).reshape(7, 1, 1, 1).expand(7, 2, 12, 20))


def test_a_part_is_half_of_the_side_to_the_whole_and_some_are_mirrored() -> None:
    slope = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    made = crops(slope, 40, seed=3)
    reach = made.amax((1, 2, 3)) - made.amin((1, 2, 3))
    assert 0.45 < reach.min() < 0.65 and reach.max() > 0.85
    rising = made[:, 0, 32, 63] > made[:, 0, 32, 0]
    # Of one image by turns, as of several.
    assert 15 < int(rising.sum()) < 25
    both = crops(slope.expand(2, 1, 64, 64), 8)
    first = both[::2, 0, 32, 63] > both[::2, 0, 32, 0]
    assert 0 < int(first.sum()) < 4


def test_places_are_those_of_the_seed() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(crops(images, 4, 1), crops(images, 4, 1))
    assert not torch.equal(crops(images, 4, 1), crops(images, 4, 2))

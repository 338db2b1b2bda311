"""Images in memory: where each element lies, and what may be read as something else without moving it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reconvene.backends.kernels.image import View
from reconvene.backends.lowering.layout import Image, dense_view, flattened, in_a_row, selected

SIZES = [
    (batch, blocks, height, width, lanes, halo)
    for batch, (height, width), halo in itertools.product((1, 3), ((1, 1), (1, 4), (3, 1), (3, 4)), (0, 2))
    for blocks, lanes in ((1, 1), (2, 8))
]


def places(view: View, slots: np.ndarray) -> np.ndarray:
    """Where the elements of an image lie, as ``(N, C, H, W)``."""
    found = [
        [[[view.offset(n, slot // view.lanes, y, x) + slot % view.lanes for x in range(view.width)]
          for y in range(view.height)] for slot in slots] for n in range(view.batch)
    ]  # fmt: skip
    return np.array(found)


def image_of(view: View) -> Image:
    return Image(None, view, np.arange(view.blocks * view.lanes))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_elements_have_places_of_their_own_with_the_border_around_them(size: tuple[int, ...]) -> None:
    batch, blocks, height, width, lanes, halo = size
    view = dense_view(*size)
    whole = dense_view(batch, blocks, height + 2 * halo, width + 2 * halo, lanes, 0)
    taken = places(view, np.arange(blocks * lanes))
    assert taken.min() >= 0 and taken.max() < view.size
    assert len(np.unique(taken)) == taken.size
    if (height, width) != (1, 1):
        around = places(whole, np.arange(blocks * lanes))
        assert np.array_equal(taken, around[:, :, halo : halo + height, halo : halo + width])
        assert view.size == batch * blocks * lanes * (height + 2 * halo) * (width + 2 * halo)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_that_follow_each_other_are_a_row(size: tuple[int, ...]) -> None:
    batch, blocks, height, width, lanes, halo = size
    view = dense_view(*size)
    slots = np.arange(blocks * lanes)
    row = in_a_row(view)
    if (height, width) == (1, 1):
        assert row is not None and (row.batch, row.height, row.width) == (1, 1, batch)
        assert np.array_equal(places(row, slots)[0, :, 0], places(view, slots)[:, :, 0, 0].T)
    elif halo:
        assert row is None, "the border lies between"
    else:
        assert row is not None and (row.batch, row.height, row.width) == (batch, 1, height * width)
        assert np.array_equal(places(row, slots)[:, :, 0], places(view, slots).reshape(batch, blocks * lanes, -1))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_image_is_one_pixel_of_many_channels_where_it_lies(size: tuple[int, ...]) -> None:
    image = image_of(dense_view(*size))
    flat = flattened(image)
    before, after = places(image.view, image.slots), places(flat.view, flat.slots)
    assert np.array_equal(after[:, :, 0, 0], before.reshape(len(before), -1))


@pytest.mark.parametrize("source", [[0, 1, 2], [9], [8, 15], [17, 3, 9], [23, 16]], ids=str)
def test_channels_are_selected_where_they_lie(source: list[int]) -> None:
    image = image_of(dense_view(2, 3, 2, 4, 8, 1))
    part = selected(image, np.array(source))
    assert np.array_equal(places(part.view, part.slots), places(image.view, np.array(source)))
    assert part.view.blocks == max(source) // 8 - min(source) // 8 + 1

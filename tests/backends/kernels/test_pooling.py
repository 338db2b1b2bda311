"""Whether the windows of a pooling lie within the image, so that nothing has to be asked at its edges."""

from __future__ import annotations

import pytest

from reconvene.backends.kernels.epilogue import Epilogue
from reconvene.backends.kernels.pooling import PoolSpec
from reconvene.backends.lowering.layout import dense_view


@pytest.mark.parametrize(
    ("image", "result", "window", "stride", "padding", "inside"),
    [
        ((6, 8), (3, 4), (2, 2), (2, 2), (0, 0), True),
        ((6, 7), (3, 4), (2, 2), (2, 2), (0, 0), False),
        ((5, 8), (3, 4), (2, 2), (2, 2), (0, 0), False),
        ((7, 9), (3, 4), (3, 3), (2, 2), (0, 0), True),
        ((6, 9), (3, 4), (3, 3), (2, 2), (0, 0), False),
        ((7, 8), (3, 4), (3, 3), (2, 2), (0, 0), False),
        ((7, 9), (3, 4), (3, 3), (2, 2), (1, 0), False),
        ((7, 9), (3, 4), (3, 3), (2, 2), (0, 1), False),
        ((5, 5), (1, 1), (5, 5), (5, 5), (0, 0), True),
        ((5, 5), (1, 1), (6, 5), (5, 5), (0, 0), False),
    ],
)
def test_windows_lie_inside_where_no_edge_cuts_them(
    image: tuple[int, int],
    result: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    inside: bool,
) -> None:
    views = (dense_view(1, 1, *size, 8, 0) for size in (image, result))
    assert PoolSpec("max", *views, window, stride, padding, False, Epilogue((), (), False)).inside == inside

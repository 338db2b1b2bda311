"""Images from blocks to planes and back: every element, every border, nothing written that is not the image's."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.planes import plane_view
from reconvene.backends.kernels.transposing import TransposeSpec
from reconvene.backends.lowering.layout import dense_view
from tests.support.planes import laid_out, read_back

SIZES = [
    (1, 16, 20, 19, 1, 1),
    (2, 20, 14, 14, 1, 0),
    (1, 5, 7, 7, 0, 1),
    (1, 33, 4, 12, 0, 0),
    (1, 9, 1, 3, 0, 2),
    (2, 7, 3, 2, 1, 1),
]
"""Batch, channels, height, width, the border in blocks, and that in planes."""


def run(spec: TransposeSpec, given: np.ndarray) -> np.ndarray:
    function = spec.function("kernel").with_attr("global_symbol", "kernel")
    compiled = tvm.compile(tvm.IRModule({"kernel": function}), target={"kind": "llvm", "opt-level": 1})["kernel"]
    result = tvm.runtime.tensor(np.full(spec.result.size, np.nan, "float32"))
    compiled(tvm.runtime.tensor(given), result)
    return result.numpy()  # type: ignore[no-any-return]


def blocked(image: np.ndarray, view: View) -> np.ndarray:
    """``(N, C, H, W)`` in blocks, with a border of zeros and zeros in unused lanes."""
    batch, channels, height, width = image.shape
    halo = view.halo
    room = np.zeros((batch, view.blocks * view.lanes, height + 2 * halo, width + 2 * halo), "float32")
    room[:, :channels, halo : halo + height, halo : halo + width] = image
    blocks = room.reshape(batch, view.blocks, view.lanes, *room.shape[2:])
    return blocks.transpose(0, 1, 3, 4, 2).reshape(-1).copy()


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_there_and_back(size: tuple[int, ...], lanes: int) -> None:
    batch, channels, height, width, border, halo = size
    image = np.random.default_rng(0).standard_normal((batch, channels, height, width)).astype("float32")
    blocks = dense_view(batch, -(-channels // lanes), height, width, lanes, border)
    planes = plane_view(batch, channels, height, width, halo, width + max(1, halo))
    turned = run(TransposeSpec(blocks, planes, channels), blocked(image, blocks))
    np.testing.assert_array_equal(read_back(turned, planes, channels), image)
    np.testing.assert_array_equal(
        run(TransposeSpec(planes, blocks, channels), laid_out(image, planes)), blocked(image, blocks)
    )

"""Work is cut so that all cores get as much, however few rows and channels a layer has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconvene.backends.choosing.layer_times import LayerShape, specification
from reconvene.backends.kernels.convolution import ConvolutionSpec, row_parts
from reconvene.backends.machines.targets import find_target


def layer(height: int, channels: int, cores: int, kernel: int = 1) -> ConvolutionSpec:
    shape = LayerShape((kernel, kernel), (1, 1), (1, 1), 1, height, height)
    return specification(shape, 64, channels, replace(find_target("rpi4").machine, cores=cores))


@pytest.mark.parametrize("cores", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "channels"), [(112, 16), (56, 24), (28, 32), (14, 96)])
def test_pixels_in_a_row_are_shared(height: int, channels: int, cores: int) -> None:
    spec = layer(height, channels, cores)
    columns = -(-spec.result.width // spec.tile.columns)
    work = row_parts(spec) * spec.tiles
    assert columns % row_parts(spec) == 0
    assert -(-work // cores) * cores <= 1.1 * work


def test_rows_need_no_parts() -> None:
    assert row_parts(layer(56, 64, 4, kernel=3)) == row_parts(layer(112, 16, 1)) == 1

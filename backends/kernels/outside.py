"""Taps of a window that lie outside of the image: of far dilated ones many do, and multiplying by their zeros is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Convolution
from . import loops
from .image import View
from .zeros import density

__all__ = ["left_out", "window_taps"]

_WORTH_IT = 0.25
"""Rows or columns of padding for each of the image, from which on they are left out."""

_DENSE = 0.75
"""The share of weights that are not zero above which no kernel skips zeros."""


class Window(Protocol):
    """Of a layer's specification, what says what its outputs read. `skips`: whether rows and columns outside are left out."""

    @property
    def source(self) -> View: ...
    @property
    def kernel(self) -> tuple[int, int]: ...
    @property
    def stride(self) -> tuple[int, int]: ...
    @property
    def dilation(self) -> tuple[int, int]: ...
    @property
    def padding(self) -> tuple[int, int]: ...
    @property
    def skips(self) -> tuple[bool, bool]: ...


def left_out(convolution: Convolution, height: int, width: int, dtype: str) -> tuple[bool, bool]:
    """Whether a layer on an image so large skips rows, so that the image needs no border above and below for it, and columns
    that all outputs of a tile read outside. Not one whose weights are mostly zero: kernels that skip these read the border.
    """
    above, left, below, right = convolution.padding
    rows = convolution.dilation[0] > 1 and above + below >= _WORTH_IT * height
    columns = convolution.dilation[1] > 1 and left + right >= _WORTH_IT * width
    able = (rows or columns) and not DTYPES[dtype].is_code and density(convolution) > _DENSE
    return rows and able, columns and able


@contextmanager
def window_taps(spec: Window, axis: int, first: Any, count: int = 1) -> Iterator[Any]:
    """A loop over the rows (axis 0) or columns of the window of `count` outputs from `first` on."""
    if not spec.skips[axis]:
        with loops.serial(spec.kernel[axis]) as tap:
            yield tap
        return
    zero, step, stride = tirx.const(0, "int32"), spec.dilation[axis], spec.stride[axis]
    extent = spec.source.width if axis else spec.source.height
    near = first * stride - spec.padding[axis]
    far = near + (count - 1) * stride
    begin = (tirx.max(zero - far, zero) + (step - 1)) // step
    end = loops.at_most(tirx.max(extent - 1 + step - near, zero) // step, spec.kernel[axis])
    with loops.span(begin, end) as tap:
        yield tap

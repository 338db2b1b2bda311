"""What kernels of convolutions have in common that read no weight that is zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .convolution import ConvolutionSpec
from .epilogue import Epilogue
from .image import View

__all__ = ["SkippingSpec", "window_of"]


@dataclass(frozen=True, kw_only=True)
class SkippingSpec:
    """One convolution, or linear layer, of few weights.

    Attributes:
        source: the input.
        result: the output.
        kernel, stride, dilation, padding: height then width; padding is above and to the left.
        outputs: channels of the result.
        weights: that are multiplied.
    """

    source: View
    result: View
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    outputs: int
    weights: int
    epilogue: Epilogue

    @property
    def pixels(self) -> int:
        """Of all images of the result."""
        return self.result.batch * self.result.height * self.result.width

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the weights that are multiplied."""
        return self.pixels * self.weights


def window_of(spec: ConvolutionSpec) -> dict[str, Any]:
    """What a kernel that skips zeros has of the layer as the direct kernel computes it, by attribute."""
    shared = ("source", "result", "kernel", "stride", "dilation", "padding", "epilogue")
    return {name: getattr(spec, name) for name in shared}

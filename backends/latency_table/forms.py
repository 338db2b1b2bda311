"""The layers of a network as kernels see them: which of them are one to a table of times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from ..graph.nodes import Convolution, Node
from ..kernels.depthwise import DepthwiseSpec
from ..lowering.steps import KernelPlan

__all__ = ["Form", "forms_of"]


@dataclass(frozen=True)
class Form:
    """A call of a convolution or linear layer without its weights: all that its kernels depend on but zeros.

    Attributes:
        key: of everything that they depend on, where the images lie and what is computed with the results too.
        shape: of the weight, as filters x input channels of a group x kernel.
        stride, dilation: height then width.
        groups: of the convolution.
        result: batch, height and width of what it computes.
        depthwise: whether every channel is alone.
    """

    key: str
    shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    result: tuple[int, int, int]
    depthwise: bool = False

    def __str__(self) -> str:
        """``64x32x3x3 /2 to 14x14``."""
        stride = f" /{self.stride[0]}" if self.stride[0] > 1 else ""
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{'x'.join(map(str, self.shape))}{stride}{groups} to {'x'.join(map(str, self.result[1:]))}"


def forms_of(plan: KernelPlan, names: Mapping[Node, str]) -> dict[str, tuple[Form, ...]]:
    """By the name of the weight, the form of every call. `plan` has all images in blocks."""
    found: dict[str, tuple[Form, ...]] = {}
    for step in plan.kernels:
        if step.layer is not None and step.node in names:
            name, convolution = names[step.node], step.layer.convolution
            found[name] = (*found.get(name, ()), _form(step.node, convolution, step.layer.spec))
    return found


def _form(node: Node, convolution: Convolution, spec: object) -> Form:
    outputs, inputs, height, width = convolution.weights.kernel.shape
    shape = outputs, inputs, height, width
    digest = hashlib.sha256(repr((spec, shape, convolution.groups)).encode()).hexdigest()
    batch, _, *size = node.image_shape
    return Form(
        digest[:24], shape, convolution.stride, convolution.dilation, convolution.groups, (batch, size[0], size[1]),
        isinstance(spec, DepthwiseSpec),
    )  # fmt: skip

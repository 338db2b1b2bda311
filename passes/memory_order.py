"""In which order of memory gradients are computed: channels last, where a graph allows that.

PyTorch's convolutions then work on images as they lie, forwards and backwards, instead of copying them into blocks and back.
"""

from __future__ import annotations

import torch
from torch import fx, nn

__all__ = ["arrange", "best_order"]

_aten = torch.ops.aten

_BY_STRIDES = (
    _aten.view.default, _aten.view.dtype, _aten.view_as.default, _aten._unsafe_view.default, _aten.as_strided.default,
    _aten.view_as_real.default, _aten.view_as_complex.default,
)  # fmt: skip
"""Operators that may ask for the strides that the graph was captured with."""


_CONVOLUTIONS = (_aten.conv2d.default, _aten.convolution.default)
_LANES = 8
"""Of AVX2."""


def best_order(module: fx.GraphModule) -> torch.memory_format:
    """``torch.channels_last``, or ``torch.contiguous_format`` if an operator of the graph depends on strides, or is one that
    PyTorch 2.13 destroys memory with in that order.
    """
    unfit = any(node.target in _BY_STRIDES or _destroys(node) for node in module.graph.nodes)
    return torch.contiguous_format if unfit else torch.channels_last


def _destroys(node: fx.Node) -> bool:
    """Whether it is a pointwise convolution with a stride of fewer channels than a vector has.

    On processors with AVX2 and no AVX-512, the gradients of such a one are written beyond their end: of 2 or 4 channels the
    process ends in ``free(): invalid next size``, of 8 and more it does not. Windows of 2x2 and 3x3 are right.
    """
    if node.target not in _CONVOLUTIONS or not isinstance(node.args[1], fx.Node):
        return False
    shape = tuple(node.args[1].meta["val"].shape) if "val" in node.args[1].meta else ()
    stride = node.args[3] if len(node.args) > 3 else node.kwargs.get("stride", 1)
    steps = stride if isinstance(stride, list | tuple) else [stride]
    return shape[1:2] < (_LANES,) and shape[2:] == (1, 1) and any(step != 1 for step in steps)


def arrange(module: nn.Module, order: torch.memory_format) -> None:
    """Lays parameters and buffers of four dimensions out in `order`, in place; values stay as they are."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=order)

"""In which order of memory a network trains: channels last, where its graph allows that.

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


def best_order(module: fx.GraphModule) -> torch.memory_format:
    """``torch.channels_last``, or ``torch.contiguous_format`` if an operator of the graph depends on strides."""
    by_strides = any(node.target in _BY_STRIDES for node in module.graph.nodes)
    return torch.contiguous_format if by_strides else torch.channels_last


def arrange(module: nn.Module, order: torch.memory_format) -> None:
    """Lays parameters and buffers of four dimensions out in `order`, in place; values stay as they are."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=order)

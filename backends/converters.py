"""Operators that Relax has, and that TVM's importer lacks or hands to it in the wrong form."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from tvm import relax

from . import indexing, scattering, tables

__all__ = ["CONVERTERS"]

Converter = Callable[[fx.Node, Any], Any]
"""From a node and the importer, which knows the values of its arguments, to a value."""

_METHODS, _PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def _reduced(reduce: Callable[..., Any]) -> Converter:
    def convert(node: fx.Node, importer: Any) -> Any:
        given = importer.retrieve_args(node)
        axes = list(given[1]) if len(given) > 1 else []
        return importer.block_builder.emit(reduce(given[0], axes or None, given[2] if len(given) > 2 else False))

    return convert


def _grid_sampled(node: fx.Node, importer: Any) -> Any:
    """PyTorch's points lie along the last axis of the grid, Relax's along its channels."""
    image, grid, method, padding, align_corners = importer.retrieve_args(node)
    return importer.block_builder.emit(
        relax.op.image.grid_sample(
            image, relax.op.permute_dims(grid, [0, 3, 1, 2]), method=_METHODS[method], layout="NCHW",
            padding_mode=_PADDINGS[padding], align_corners=align_corners,
        )
    )  # fmt: skip


def _pooled(name: str) -> Converter:
    def convert(node: fx.Node, importer: Any) -> Any:
        if any(user.target is operator.getitem and user.args[1] == 1 and user.users for user in node.users):
            raise ValueError("the indices of a maximum pooling are read, and TVM has none")
        return importer.create_convert_map()[name](node)

    return convert


def _computed_in(name: str, *types: torch.dtype) -> Converter:
    """The importer gives products of types other than float32 that type, or fails on them in other words."""

    def convert(node: fx.Node, importer: Any) -> Any:
        value = node.meta["val"]
        dtype = (value if isinstance(value, Tensor) else value[0]).dtype
        if dtype not in types:
            raise ValueError(
                f"'{node.name}' is computed in {dtype}, which TVM has not; convert the model with .float()"
            )
        return importer.create_convert_map()[name](node)

    return convert


_PRODUCTS = ("mm.default", "bmm.default", "matmul.default", "addmm.default", "baddbmm.default", "convolution.default")
_POOLINGS = ("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        **tables.CONVERTERS,
        **indexing.CONVERTERS,
        **scattering.CONVERTERS,
        "amax.default": _reduced(relax.op.max),
        "amin.default": _reduced(relax.op.min),
        "grid_sampler_2d.default": _grid_sampled,
        **{name: _pooled(name) for name in _POOLINGS},
        **{name: _computed_in(name, torch.float32) for name in _PRODUCTS},
        "native_layer_norm.default": _computed_in("native_layer_norm.default", torch.float32, torch.float16),
    }
)
"""By the operator's name, as the importer takes them."""

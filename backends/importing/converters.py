"""Operators that Relax has, and that TVM's importer lacks or hands to it in the wrong form."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from tvm import relax

from ..graph.element_rules import FUNCTION, PARAMETERS
from ..legalizations.functions import elu, erfc, exp2, expm1, hypot, log1p, mapped, shifted_left, shifted_right
from ..legalizations.statistics import variance
from . import indexing, scattering, tables
from .codes import KEPT
from .ordering import ORDERING, given

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


def _elements(function: Callable[..., Any], *defaults: float) -> Converter:
    """A function of single elements; numbers that are not given are `defaults`."""
    name = f"tir_{getattr(function, '__name__', 'function')}"

    def convert(node: fx.Node, importer: Any) -> Any:
        given = list(importer.retrieve_args(node))
        tensors = [value for value in given if isinstance(value, relax.Expr)]
        numbers = [*given[len(tensors) :], *defaults[len(given) - len(tensors) :]]
        operands = [*_alike(importer, tensors), *map(float, numbers)]
        said = {FUNCTION: name.removeprefix("tir_"), PARAMETERS: list(map(float, numbers))}
        return importer.block_builder.emit_te(
            mapped(function, name), *operands, primfunc_name_hint=name, primfunc_attrs=said
        )

    return convert


def _alike(importer: Any, tensors: list[Any]) -> list[Any]:
    """Tensors broadcast to one shape."""
    if len(tensors) == 1:
        return tensors
    shape = torch.broadcast_shapes(*[tuple(int(extent) for extent in tensor.ty.shape) for tensor in tensors])
    return [importer.block_builder.emit(relax.op.broadcast_to(tensor, shape)) for tensor in tensors]


def _shifted(function: Callable[..., Any]) -> Converter:
    """Of integers, in the type that PyTorch computes in."""

    def convert(node: fx.Node, importer: Any) -> Any:
        kind = node.meta["val"].dtype
        if kind.is_floating_point:
            raise ValueError(
                "floating-point numbers are shifted, which TVM does not support; multiply by a power of two"
            )
        dtype = str(kind).removeprefix("torch.")
        emit = importer.block_builder.emit
        tensors = [
            emit(relax.op.astype(value, dtype)) if isinstance(value, relax.Expr) else relax.const(value, dtype)
            for value in importer.retrieve_args(node)
        ]
        name = function.__name__
        return importer.block_builder.emit_te(
            mapped(function, name), *_alike(importer, tensors), primfunc_name_hint=name
        )

    return convert


def _varied(root: bool) -> Converter:
    """Variances in float64 to the last step: their roots may be numbers where they themselves are not."""

    def convert(node: fx.Node, importer: Any) -> Any:
        x, named, correction, keepdims = given(node, importer, "self", "dim", "correction", "keepdim").values()
        rank = len(x.ty.shape)
        axes = [named] if isinstance(named, int) else list(named or range(rank))
        return importer.block_builder.emit_te(
            variance, x, sorted(axis % rank for axis in axes), bool(keepdims),
            1.0 if correction is None else float(correction), root, primfunc_name_hint="variance",
        )  # fmt: skip

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


def _cut(name: str) -> Converter:
    """The importer gives Relax a list of no places to cut at where one piece is all, and Relax does not know what that is."""

    def convert(node: fx.Node, importer: Any) -> Any:
        if len(node.meta["val"]) == 1:
            return (importer.retrieve_args(node)[0],)
        return importer.create_convert_map()[name](node)

    return convert


def _computed_in(name: str, *types: torch.dtype) -> Converter:
    """The importer gives products of types other than float32 that type, or fails on them in other words."""

    def convert(node: fx.Node, importer: Any) -> Any:
        value = node.meta["val"]
        dtype = (value if isinstance(value, Tensor) else value[0]).dtype
        if dtype not in types:
            raise ValueError(
                f"'{node.name}' is computed in {dtype}, which TVM does not support; convert the model with .float()"
            )
        return importer.create_convert_map()[name](node)

    return convert


_LEFT_SHIFTS = (
    "bitwise_left_shift.Tensor", "bitwise_left_shift.Tensor_Scalar", "bitwise_left_shift.Scalar_Tensor",
    "__lshift__.Tensor", "__lshift__.Scalar",
)  # fmt: skip
_PRODUCTS = ("mm.default", "bmm.default", "matmul.default", "addmm.default", "baddbmm.default", "convolution.default")
_CUTS = ("split.Tensor", "split_with_sizes.default")
_POOLINGS = ("max_pool2d_with_indices.default", "max_pool3d_with_indices.default")


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        **KEPT,
        **tables.CONVERTERS,
        **indexing.CONVERTERS,
        **scattering.CONVERTERS,
        "amax.default": _reduced(relax.op.max),
        "amin.default": _reduced(relax.op.min),
        "grid_sampler_2d.default": _grid_sampled,
        "elu.default": _elements(elu, 1.0, 1.0, 1.0),
        "erfc.default": _elements(erfc),
        "exp2.default": _elements(exp2),
        "expm1.default": _elements(expm1),
        "hypot.default": _elements(hypot),
        "log1p.default": _elements(log1p),
        "std.correction": _varied(root=True),
        "var.correction": _varied(root=False),
        **{name: _shifted(shifted_left) for name in _LEFT_SHIFTS},
        **{name.replace("left", "right").replace("__l", "__r"): _shifted(shifted_right) for name in _LEFT_SHIFTS},
        **ORDERING,
        **{name: _cut(name) for name in _CUTS},
        **{name: _pooled(name) for name in _POOLINGS},
        **{name: _computed_in(name, torch.float32) for name in _PRODUCTS},
        "native_layer_norm.default": _computed_in("native_layer_norm.default", torch.float32, torch.float16),
    }
)
"""By the operator's name, as the importer takes them."""

"""Operators that TVM's importer lacks or misreads, in terms of operators that it has.

They come on top of PyTorch's own decompositions; those of arithmetic are in `arithmetic`. What neither has is refused by the
importer, which names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition, first_of, promoting
from .bags import BAGS
from .complex_values import COMPLEX
from .contractions import CONTRACTIONS
from .counting import COUNTED
from .indexing import INDEXING
from .ordering import ORDERED
from .quantised import QUANTISED
from .resizing import RESIZING
from .scans import SCANS
from .scattering import SCATTERING
from .spectra import SPECTRA
from .tables import stored
from .windows import WINDOWS

__all__ = ["importable"]

A = torch.ops.aten


def importable() -> dict[OpOverload, Decomposition]:
    """Decompositions for ``ExportedProgram.run_decompositions``, after which TVM's importer may run.

    Each gives NotImplemented, which leaves the operator as it is, where the importer does it right.
    """
    made_of_others = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    table = dict(_default(len(made_of_others)))
    for operator in _KEPT:
        table.pop(operator, None)
    kinds = (
        _OURS,
        ORDERED,
        COUNTED,
        RESIZING,
        INDEXING,
        SCATTERING,
        WINDOWS,
        SPECTRA,
        SCANS,
        BAGS,
        CONTRACTIONS,
        QUANTISED,
    )
    for ours in (*kinds, promoting(), COMPLEX):
        for operator, decomposition in ours.items():
            table[operator] = first_of(decomposition, table.get(operator))
    return table


@lru_cache(maxsize=1)
def _default(registered: int) -> Mapping[OpOverload, Decomposition]:
    """PyTorch's own table, which takes as long as a small network's import. It differs only after operators were registered."""
    return dict(torch.export.default_decompositions().items())


def select(x: Tensor, axis: int, index: int) -> Any:
    """From the end, too: the importer's kernel would read before the tensor's memory."""
    return NotImplemented if index >= 0 else A.select.int(x, axis, index + x.shape[axis])


def full(size: Sequence[int], value: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """Of what is not finite: TVM's kernel fails on it."""
    if not isinstance(value, float) or math.isfinite(value):
        return NotImplemented
    return A.expand.default(A.scalar_tensor.default(value, dtype=dtype or torch.get_default_dtype()), list(size))


def full_like(x: Tensor, value: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    return full(x.shape, value, dtype=dtype or x.dtype)


def rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None) -> Any:
    """In training its slopes are random, which is refused."""
    return NotImplemented if training else A.leaky_relu.default(x, (lower + upper) / 2)


def prelu(x: Tensor, slope: Tensor) -> Any:
    """In terms that are epilogues of layers; slopes are finite, as those of a network that was not lost in training are."""
    return A.relu.default(x) + slope * A.clamp_max.default(x, 0.0)


def celu(x: Tensor, alpha: float = 1.0) -> Any:
    """With an alpha below zero its exponential grows, which the kernels' is not made for."""
    if alpha <= 0:
        return torch.where(x > 0, x, alpha * torch.expm1(x / alpha))
    return A.elu.default(x, alpha, 1.0, 1.0 / alpha)


def selu(x: Tensor) -> Any:
    """Klambauer et al., Self-Normalizing Neural Networks, 2017: its two constants as PyTorch has them."""
    return A.elu.default(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def fmax(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.maximum(x, y)))


def fmin(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.minimum(x, y)))


def vector_norm(
    x: Tensor, ord: float = 2, dim: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """Of order 0: the number of entries that are not zero. The importer takes a root of that order."""
    if ord != 0:
        return NotImplemented
    axes = list(range(x.dim())) if dim is None else list(dim)
    return (x != 0).to(dtype or x.dtype).sum(axes, keepdim)


def layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    """Over several axes as over one that is as long as they are together."""
    if len(shape) == 1:
        return NotImplemented
    lead, together = x.shape[: -len(shape)], [math.prod(shape)]
    flat = [None if given is None else given.reshape(together) for given in (weight, bias)]
    found, *moments = A.native_layer_norm.default(x.reshape([*lead, *together]), together, *flat, eps)
    return found.reshape(x.shape), *[moment.reshape([*lead, *[1] * len(shape)]) for moment in moments]


def var_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = list(range(x.dim())) if dim is None else list(dim)
    return A.var.correction(x, axes, correction=correction, keepdim=keepdim), A.mean.dim(x, axes, keepdim)


def std_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = list(range(x.dim())) if dim is None else list(dim)
    return A.std.correction(x, axes, correction=correction, keepdim=keepdim), A.mean.dim(x, axes, keepdim)


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, size: int, channels: int, rest: int, groups: int, eps: float
) -> Any:
    if weight is not None and bias is not None:
        return NotImplemented
    return _affine(x, weight, bias, size, channels, rest, groups, eps)


@stored
def same(count: int, value: int) -> np.ndarray[Any, Any]:
    """One number for each channel."""
    return np.full(count, value, "float32")


def instance_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    of_input: bool, momentum: float, eps: float, cudnn: bool,
) -> Any:  # fmt: skip
    """By the input's own statistics: that of groups of one channel."""
    if not of_input or x.dim() < 3 or mean is not None:
        return NotImplemented
    size, channels, rest = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    return _affine(x, weight, bias, size, channels, rest, channels, eps)[0]


def _affine(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, size: int, channels: int, rest: int, groups: int, eps: float
) -> Any:
    """With a factor and an offset, where there is none."""
    weight = same(channels, 1).to(x.dtype) if weight is None else weight
    bias = same(channels, 0).to(x.dtype) if bias is None else bias
    return A.native_group_norm.default(x, weight, bias, size, channels, rest, groups, eps)


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, training: bool,
    momentum: float, eps: float,
) -> Any:  # fmt: skip
    """With statistics of the batch, which move those that are kept; the importer takes `training` for its opposite."""
    if not training:
        found = A._native_batch_norm_legit_no_training.default(x, weight, bias, mean, variance, momentum, eps)
        return *found, mean, variance
    axes = [0, *range(2, x.dim())]
    found = A._native_batch_norm_legit.no_stats(x, weight, bias, True, momentum, eps)
    center = A.mean.dim(x, axes)
    inverse = torch.rsqrt(A.var.correction(x, axes, correction=0) + eps)
    kept = mean * (1 - momentum) + center * momentum
    spread = variance * (1 - momentum) + A.var.correction(x, axes, correction=1) * momentum
    return found[0], center, inverse, kept, spread


def bucketize(x: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Any:
    """How many boundaries are not above: for NaN all of them, where the importer's search gives none."""
    if not x.is_floating_point():
        return NotImplemented
    wide = x.unsqueeze(-1)
    passed = torch.logical_not(wide < boundaries if right else wide <= boundaries)
    return passed.sum(-1).to(torch.int32 if out_int32 else torch.int64)


def avg_pool(operator: OpOverload, axes: int) -> Decomposition:
    """With a divisor of its own: the mean over the whole window, padding included, times the window over the divisor."""

    def decomposition(
        x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,),
        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Any:  # fmt: skip
        if divisor_override is None:
            return NotImplemented
        if ceil_mode:
            raise ValueError(f"{operator} with ceil_mode and a divisor is not among TVM's; pad the input instead")
        window = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** axes
        return operator(x, kernel, stride, padding, False, True) * (window / divisor_override)

    return decomposition


def adaptive_max_pool(pool: OpOverload, axes: int) -> Decomposition:
    """A pooling where all windows are alike; else the maxima along one axis after the other."""

    def decomposition(x: Tensor, size: Sequence[int]) -> Any:
        extents = [int(extent) for extent in x.shape[-axes:]]
        if not any(extent % wanted for extent, wanted in zip(extents, size, strict=True)):
            window = [extent // wanted for extent, wanted in zip(extents, size, strict=True)]
            return pool(x, window, window)
        places = torch.arange(math.prod(extents), dtype=torch.int64).reshape(extents).expand(x.shape)
        for axis, (extent, wanted) in zip(
            range(-1, -axes - 1, -1), reversed(list(zip(extents, size, strict=True))), strict=True
        ):
            x, places = _largest_of_parts(x, places, axis, extent, wanted)
        return x, places

    return decomposition


def _largest_of_parts(x: Tensor, places: Tensor, axis: int, extent: int, wanted: int) -> tuple[Tensor, Tensor]:
    """The largest of each of so many parts of an axis, which may overlap, and where they are from."""
    found = []
    for number in range(wanted):
        start, end = number * extent // wanted, -(-(number + 1) * extent // wanted)
        values, indices = A.max.dim(x.narrow(axis, start, end - start), axis, True)
        found.append((values, places.narrow(axis, start, end - start).gather(axis, indices)))
    return torch.cat([values for values, _ in found], axis), torch.cat([where for _, where in found], axis)


_OURS: Mapping[OpOverload, Decomposition] = {
    A.select.int: select,
    A.full.default: full,
    A.full_like.default: full_like,
    A.rrelu.default: rrelu,
    A._prelu_kernel.default: prelu,
    A.celu.default: celu,
    A.selu.default: selu,
    A.fmax.default: fmax,
    A.fmin.default: fmin,
    A.std_mean.correction: std_mean,
    A.var_mean.correction: var_mean,
    A.linalg_vector_norm.default: vector_norm,
    A.native_group_norm.default: group_norm,
    A.instance_norm.default: instance_norm,
    A._native_batch_norm_legit_functional.default: batch_norm,
    A.native_layer_norm.default: layer_norm,
    A.bucketize.Tensor: bucketize,
    A.avg_pool2d.default: avg_pool(A.avg_pool2d.default, 2),
    A.avg_pool3d.default: avg_pool(A.avg_pool3d.default, 3),
    A.adaptive_max_pool2d.default: adaptive_max_pool(A.max_pool2d_with_indices.default, 2),
    A.adaptive_max_pool3d.default: adaptive_max_pool(A.max_pool3d_with_indices.default, 3),
}

_KEPT = (
    A.elu.default, A.erfc.default, A.exp2.default, A.expm1.default, A.hypot.default, A.log1p.default, A.sinh.default,
    A.cosh.default, A.atanh.default, A.std.correction, A.var.correction,
)  # fmt: skip
"""What `converters` and `legalizations` compute better than PyTorch's decompositions."""

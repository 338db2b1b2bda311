"""Operators that TVM's importer lacks or misreads, in terms of operators that it has.

They come on top of PyTorch's own decompositions; those of arithmetic are in `arithmetic`. What neither has is refused by the
importer, which names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition, first_of, promoting
from .complex_values import COMPLEX
from .indexing import INDEXING
from .resizing import RESIZING
from .scattering import SCATTERING
from .spectra import SPECTRA
from .windows import WINDOWS

__all__ = ["importable"]

A = torch.ops.aten


def importable() -> dict[OpOverload, Decomposition]:
    """Decompositions for ``ExportedProgram.run_decompositions``, after which TVM's importer may run.

    Each gives NotImplemented, which leaves the operator as it is, where the importer does it right.
    """
    table: dict[OpOverload, Decomposition] = dict(torch.export.default_decompositions().items())
    for ours in (_OURS, RESIZING, INDEXING, SCATTERING, WINDOWS, SPECTRA, promoting(), COMPLEX):
        for operator, decomposition in ours.items():
            table[operator] = first_of(decomposition, table.get(operator))
    return table


def select(x: Tensor, axis: int, index: int) -> Any:
    """From the end, too: the importer's kernel would read before the tensor's memory."""
    return NotImplemented if index >= 0 else A.select.int(x, axis, index + x.shape[axis])


def elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    """``selu`` has a scale, which the importer does not read; ``celu`` one for inputs."""
    if input_scale != 1:
        return torch.where(x > 0, x * scale, (torch.exp(x * input_scale) - 1) * (alpha * scale))
    return NotImplemented if scale == 1 else A.elu.default(x, alpha) * scale


def full(size: Sequence[int], value: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """Of what is not finite: TVM's kernel fails on it."""
    if not isinstance(value, float) or math.isfinite(value):
        return NotImplemented
    return A.expand.default(A.scalar_tensor.default(value, dtype=dtype or torch.get_default_dtype()), list(size))


def full_like(x: Tensor, value: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    return full(x.shape, value, dtype=dtype or x.dtype)


def cosh(x: Tensor) -> Tensor:
    return (torch.exp(x) + torch.exp(-x)) / 2


def sinh(x: Tensor) -> Tensor:
    return (torch.exp(x) - torch.exp(-x)) / 2


def erfc(x: Tensor) -> Tensor:
    return 1 - torch.erf(x)


def exp2(x: Tensor) -> Tensor:
    return torch.exp(x * math.log(2))


def hypot(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(x * x + y * y)


def fmax(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.maximum(x, y)))


def fmin(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.minimum(x, y)))


def least(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """``min`` along a dimension, with the indices."""
    values, indices = torch.max(-x, dim, keepdim)
    return -values, indices


def prod(x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    found = torch.cumprod(x, dim, dtype=dtype).narrow(dim, -1, 1)
    return found if keepdim else found.squeeze(dim)


def var_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = list(range(x.dim())) if dim is None else list(dim)
    return A.var.correction(x, axes, correction=correction, keepdim=keepdim), A.mean.dim(x, axes, keepdim)


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


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, size: int, channels: int, rest: int, groups: int, eps: float
) -> Any:
    if weight is not None and bias is not None:
        return NotImplemented
    weight = torch.ones(channels, dtype=x.dtype) if weight is None else weight
    bias = torch.zeros(channels, dtype=x.dtype) if bias is None else bias
    return A.native_group_norm.default(x, weight, bias, size, channels, rest, groups, eps)


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
    """Of windows that are all alike; others are left, and refused."""

    def decomposition(x: Tensor, size: Sequence[int]) -> Any:
        extents = [int(extent) for extent in x.shape[-axes:]]
        if any(extent % wanted for extent, wanted in zip(extents, size, strict=True)):
            return NotImplemented
        window = [extent // wanted for extent, wanted in zip(extents, size, strict=True)]
        return pool(x, window, window)

    return decomposition


_OURS: Mapping[OpOverload, Decomposition] = {
    A.select.int: select,
    A.elu.default: elu,
    A.full.default: full,
    A.full_like.default: full_like,
    A.cosh.default: cosh,
    A.sinh.default: sinh,
    A.erfc.default: erfc,
    A.exp2.default: exp2,
    A.hypot.default: hypot,
    A.fmax.default: fmax,
    A.fmin.default: fmin,
    A.min.dim: least,
    A.prod.dim_int: prod,
    A.var_mean.correction: var_mean,
    A.linalg_vector_norm.default: vector_norm,
    A.native_layer_norm.default: layer_norm,
    A.native_group_norm.default: group_norm,
    A.avg_pool2d.default: avg_pool(A.avg_pool2d.default, 2),
    A.avg_pool3d.default: avg_pool(A.avg_pool3d.default, 3),
    A.adaptive_max_pool2d.default: adaptive_max_pool(A.max_pool2d_with_indices.default, 2),
    A.adaptive_max_pool3d.default: adaptive_max_pool(A.max_pool3d_with_indices.default, 3),
}

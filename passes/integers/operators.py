"""Arithmetic on codes as operators of PyTorch: the reference that compiled code equals bit for bit.

A code ``q`` (int8) with scale ``s`` and zero ``z`` stands for the number ``s * (q - z)``. A layer adds products of codes in
int32, exactly, and a sum becomes a code by one multiplication in float32 and one rounding, half to even:
``clamp(rne(float32(sum) * m), low - z, high - z) + z`` (Jacob et al. 2018, arXiv:1712.05877, section 2.2, with a
floating-point multiplier). Clamping to whole numbers and rounding commute, so saturating narrows give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["NAMES", "OPERATORS"]

NAMESPACE = "reconvene"


@torch.library.custom_op(f"{NAMESPACE}::integer_conv2d", mutates_args=())
def integer_conv2d(
    codes: Tensor,
    weight: Tensor,
    bias: Tensor,
    zero: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Sums ``bias + weight * (codes - zero)`` as int32 ``(N, O, H, W)``; padding stands for zero.

    Args:
        codes: int8 ``(N, C, H, W)``.
        weight: int8 ``(O, C / groups, KH, KW)``.
        bias: int32 ``(O,)``, in steps of the scales of both.
    """
    # Whole numbers below 2**53 are exact in float64.
    found = F.conv2d(
        codes.double() - zero, weight.double(), bias.double(), list(stride), list(padding), list(dilation), groups
    )
    return found.round().to(torch.int32)


@integer_conv2d.register_fake
def _(
    codes: Tensor,
    weight: Tensor,
    bias: Tensor,
    zero: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    found = F.conv2d(codes.float(), weight.float(), bias.float(), list(stride), list(padding), list(dilation), groups)
    return found.to(torch.int32)


@torch.library.custom_op(f"{NAMESPACE}::integer_linear", mutates_args=())
def integer_linear(codes: Tensor, weight: Tensor, bias: Tensor, zero: int) -> Tensor:
    """Sums ``bias + weight * (codes - zero)`` as int32 ``(..., O)`` of int8 codes ``(..., C)`` and weights ``(O, C)``."""
    return F.linear(codes.double() - zero, weight.double(), bias.double()).round().to(torch.int32)


@integer_linear.register_fake
def _(codes: Tensor, weight: Tensor, bias: Tensor, zero: int) -> Tensor:
    return codes.new_empty((*codes.shape[:-1], weight.shape[0]), dtype=torch.int32)


@torch.library.custom_op(f"{NAMESPACE}::total", mutates_args=())
def total(codes: Tensor, keepdim: bool) -> Tensor:
    """The sum of all pixels of each channel as int32 ``(N, C)`` or ``(N, C, 1, 1)``."""
    return codes.sum((2, 3), keepdim, dtype=torch.int32)


@total.register_fake
def _(codes: Tensor, keepdim: bool) -> Tensor:
    return codes.new_empty((*codes.shape[:2], 1, 1) if keepdim else codes.shape[:2], dtype=torch.int32)


@torch.library.custom_op(f"{NAMESPACE}::window_total", mutates_args=())
def window_total(
    codes: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], zero: int
) -> Tensor:
    """The sum of the pixels of every window as int32 ``(N, C, H, W)``; padding counts as `zero`."""
    padded = F.pad(codes.double(), (padding[1], padding[1], padding[0], padding[0]), value=float(zero))
    found = F.avg_pool2d(padded, list(window), list(stride), divisor_override=1)
    return found.round().to(torch.int32)


@window_total.register_fake
def _(codes: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], zero: int) -> Tensor:
    return F.avg_pool2d(codes.float(), list(window), list(stride), list(padding)).to(torch.int32)


@torch.library.custom_op(f"{NAMESPACE}::requantize", mutates_args=())
def requantize(sums: Tensor, scale: Tensor, axis: int, offset: int, zero: int, low: int, high: int) -> Tensor:
    """Codes of ``sums + offset`` (int32), multiplied by `scale` (float32) along `axis`: one for each channel."""
    return _coded(_scaled(sums, scale, axis, offset), zero, low, high)


@requantize.register_fake
def _(sums: Tensor, scale: Tensor, axis: int, offset: int, zero: int, low: int, high: int) -> Tensor:
    return torch.empty_like(sums, dtype=torch.int8)


@torch.library.custom_op(f"{NAMESPACE}::rescale", mutates_args=())
def rescale(sums: Tensor, scale: Tensor, axis: int, offset: int) -> Tensor:
    """What ``sums + offset`` stand for, as float32."""
    return _scaled(sums, scale, axis, offset)


@rescale.register_fake
def _(sums: Tensor, scale: Tensor, axis: int, offset: int) -> Tensor:
    return torch.empty_like(sums, dtype=torch.float32)


@torch.library.custom_op(f"{NAMESPACE}::code_sum", mutates_args=())
def code_sum(
    first: Tensor, second: Tensor, factors: Sequence[int], offset: int, shift: int, low: int, high: int
) -> Tensor:
    """``clamp((first * factors[0] + second * factors[1] + offset) >> shift)`` in int32, which rounds half up.

    `offset` has the zeros of both and of the result, and half of a step. `second` is of the shape of `first`, or
    ``(N, C, 1, 1)``.
    """
    found = (first.int() * factors[0] + second.int() * factors[1] + offset) >> shift
    return found.clamp(low, high).to(torch.int8)


@code_sum.register_fake
def _(first: Tensor, second: Tensor, factors: Sequence[int], offset: int, shift: int, low: int, high: int) -> Tensor:
    return torch.empty_like(first)


@torch.library.custom_op(f"{NAMESPACE}::code_offset", mutates_args=())
def code_offset(codes: Tensor, offsets: Tensor, factor: int, offset: int, shift: int, low: int, high: int) -> Tensor:
    """``clamp((codes * factor + offsets + offset) >> shift)`` in int32: `code_sum` with known `offsets` (int32), which are
    spread to the shape of `codes`."""
    found = (codes.int() * factor + offsets + offset) >> shift
    return found.clamp(low, high).to(torch.int8)


@code_offset.register_fake
def _(codes: Tensor, offsets: Tensor, factor: int, offset: int, shift: int, low: int, high: int) -> Tensor:
    return torch.empty_like(codes)


@torch.library.custom_op(f"{NAMESPACE}::code_scale", mutates_args=())
def code_scale(codes: Tensor, scale: Tensor, offset: int, zero: int, low: int, high: int) -> Tensor:
    """Codes of ``codes + offset``, multiplied by `scale` (float32), which is spread to their shape."""
    return _coded((codes.int() + offset).float() * scale, zero, low, high)


@code_scale.register_fake
def _(codes: Tensor, scale: Tensor, offset: int, zero: int, low: int, high: int) -> Tensor:
    return torch.empty_like(codes)


@torch.library.custom_op(f"{NAMESPACE}::code_product", mutates_args=())
def code_product(first: Tensor, second: Tensor, zeros: Sequence[int], scale: float, codes: Sequence[int]) -> Tensor:
    """Codes of ``(first - zeros[0]) * (second - zeros[1])``, which are multiplied by `scale`, a float32.

    Args:
        second: of the shape of `first`, or ``(N, C, 1, 1)``.
        codes: the result's zero, and the least and the largest code.
    """
    sums = (first.int() - zeros[0]) * (second.int() - zeros[1])
    return _coded(sums.float() * scale, *codes)


@code_product.register_fake
def _(first: Tensor, second: Tensor, zeros: Sequence[int], scale: float, codes: Sequence[int]) -> Tensor:
    return torch.empty_like(first)


@torch.library.custom_op(f"{NAMESPACE}::code_table", mutates_args=())
def code_table(codes: Tensor, table: Tensor, axis: int) -> Tensor:
    """``table[codes - least]``, `least` of their type: any function of one value.

    Args:
        codes: int8 or uint8.
        table: int8 ``(256,)``, or ``(C, 256)``: one for each place along `axis`.
    """
    places = codes.long() + (128 if codes.dtype == torch.int8 else 0)
    if table.dim() == 1:
        return table[places]
    shape = [-1 if at == axis else 1 for at in range(codes.dim())]
    return table[torch.arange(len(table)).view(shape), places]


@code_table.register_fake
def _(codes: Tensor, table: Tensor, axis: int) -> Tensor:
    return torch.empty_like(codes, dtype=torch.int8)


@torch.library.custom_op(f"{NAMESPACE}::quantize", mutates_args=())
def quantize(value: Tensor, inverse: float, zero: int, low: int, high: int) -> Tensor:
    """Codes of float32 numbers; `inverse` of the scale is a float32, as in ``quantized_decomposed``. NaN gives `zero`."""
    return _coded(value * inverse, zero, low, high)


@quantize.register_fake
def _(value: Tensor, inverse: float, zero: int, low: int, high: int) -> Tensor:
    return torch.empty_like(value, dtype=torch.int8)


@torch.library.custom_op(f"{NAMESPACE}::dequantize", mutates_args=())
def dequantize(codes: Tensor, scale: float, zero: int) -> Tensor:
    """The float32 numbers that codes stand for."""
    return (codes.float() - zero) * scale


@dequantize.register_fake
def _(codes: Tensor, scale: float, zero: int) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


def _scaled(sums: Tensor, scale: Tensor, axis: int, offset: int) -> Tensor:
    shape = [1] * sums.dim()
    shape[axis] = -1
    return (sums + offset).float() * scale.view(shape)


def _coded(value: Tensor, zero: int, low: int, high: int) -> Tensor:
    whole = torch.nan_to_num(value.clamp(low - zero, high - zero).round(), nan=0.0)
    return (whole + zero).to(torch.int8)


OPERATORS = torch.ops.reconvene
"""Where they are found by name."""
NAMES = (
    "integer_conv2d", "integer_linear", "total", "window_total", "requantize", "rescale", "code_sum", "code_offset",
    "code_scale", "code_product", "code_table", "quantize", "dequantize",
)  # fmt: skip
"""Of all of them."""

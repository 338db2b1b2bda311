"""What range comes out of an operator when ranges go in. Operators without a function here may give anything."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from .intervals import ANYTHING, FINITE, Range, hull, inverse, negative, product, squared, total
from .values import Operation, is_static, is_tensor, shape_of

__all__ = ["TRANSFERS", "RangeOf", "Transfer", "unknown"]

_INF = math.inf

RangeOf = Callable[[Any], Range]
"""The range of an argument: a node, a number, or a list of them."""
Transfer = Callable[[Operation, RangeOf], Range]


def unknown(op: Operation, of: RangeOf) -> Range:
    """Of an operator that nothing is known about."""
    return ANYTHING


def _operands(op: Operation, of: RangeOf) -> Range:
    return hull([of(node) for node in op.node.all_input_nodes if is_tensor(node)])


def _picked(op: Operation, of: RangeOf) -> Range:
    """Entries of the first operand: index operands do not enter."""
    return of(op.node.all_input_nodes[0]) if "tensors" not in op.arguments else of(op["tensors"])


def _picked_or_zero(op: Operation, of: RangeOf) -> Range:
    return _picked(op, of).joined(Range(0, 0))


def _filled_or_picked(op: Operation, of: RangeOf) -> Range:
    return _picked(op, of).joined(of(op.get("value") or 0.0))


def _averaged(op: Operation, of: RangeOf) -> Range:
    given = _picked(op, of)
    return replace(given, nan=given.nan or (given.up and given.down))


def _mixed(op: Operation, of: RangeOf) -> Range:
    """Finite where everything that comes in is."""
    return FINITE if _operands(op, of).finite else ANYTHING


def _normalised(op: Operation, of: RangeOf) -> Range:
    eps = op.get("eps")
    return _mixed(op, of) if eps is None or eps > 0 else ANYTHING


def _made(op: Operation, of: RangeOf) -> Range:
    values = {"zeros": 0.0, "zeros_like": 0.0, "new_zeros": 0.0, "ones": 1.0, "ones_like": 1.0, "new_ones": 1.0}
    return of(values.get(op.name.removeprefix("aten."), op.get("fill_value", op.get("s"))))


def _sum(op: Operation, of: RangeOf) -> Range:
    given = _averaged(op, of)
    return replace(given, low=given.low if given.low >= 0 else -_INF, high=given.high if given.high <= 0 else _INF)


def _size(op: Operation, of: RangeOf) -> Range:
    """A norm, or the root of a variance."""
    return Range(0, _INF) if _operands(op, of).finite else ANYTHING


def _spread(op: Operation, of: RangeOf) -> Range:
    """Variances: NaN for as many entries as are subtracted from their number."""
    source = shape_of(op.node.all_input_nodes[0])
    dim = op.get("dim")
    chosen = range(len(source)) if dim in (None, []) else ([dim] if isinstance(dim, int) else dim)
    counted = [source[axis] for axis in chosen] if not isinstance(dim, bool) else []
    correction = op.get("correction", 1)
    enough = bool(counted) and all(is_static(size) for size in counted)
    enough = enough and math.prod(counted) > (1 if correction is None else correction)
    return _size(op, of) if enough else ANYTHING


def _into(low: float, high: float) -> Transfer:
    return lambda op, of: _picked(op, of).bounded(low, high)


def _truth(op: Operation, of: RangeOf) -> Range:
    return Range(0, 1)


def _position(op: Operation, of: RangeOf) -> Range:
    return Range(0, _INF)


def _clamped(op: Operation, of: RangeOf) -> Range:
    low, high = (op.get(name, op.get(other)) for name, other in (("min", "min_val"), ("max", "max_val")))
    given = _picked(op, of)
    if low is not None:
        limit = of(low)
        given = Range(
            max(given.low, limit.low), max(given.high, limit.high), given.up, given.down and limit.down, given.nan
        )
        given = given if limit.finite else ANYTHING
    if high is not None:
        limit = of(high)
        given = Range(
            min(given.low, limit.low), min(given.high, limit.high), given.up and limit.up, given.down, given.nan
        )
        given = given if limit.finite else ANYTHING
    return given


def _relu(op: Operation, of: RangeOf) -> Range:
    given = _picked(op, of)
    return Range(max(given.low, 0.0), max(given.high, 0.0), given.up, False, given.nan)


def _softplus(op: Operation, of: RangeOf) -> Range:
    given = _picked(op, of)
    return Range(0, _INF, given.up, False, given.nan)


def _wave(op: Operation, of: RangeOf) -> Range:
    return Range(-1, 1, nan=not _picked(op, of).finite)


def _dropped(op: Operation, of: RangeOf) -> Range:
    return _mixed(op, of) if op.draws else _picked(op, of)


def _monotone(function: Callable[[float], float], least: float = -_INF, strict: bool = False) -> Transfer:
    """A growing function that is defined from `least` on (`strict`: above it)."""

    def transfer(op: Operation, of: RangeOf) -> Range:
        given = _picked(op, of)
        if given.low < least or (strict and given.low <= least) or (given.down and least > -_INF):
            return ANYTHING
        low, high = (_applied(function, bound) for bound in (given.low, given.high))
        down = given.down and _applied(function, -_INF) == -_INF
        return Range(low, high, given.up and _applied(function, _INF) == _INF, down, given.nan)

    return transfer


def _applied(function: Callable[[float], float], number: float) -> float:
    try:
        return function(number)
    except OverflowError:
        return _INF


def _multiply(op: Operation, of: RangeOf) -> Range:
    first, second = op["self"], op["other"]
    return squared(of(first)) if first is second else product(of(first), of(second))


def _add(op: Operation, of: RangeOf) -> Range:
    other = product(of(op["other"]), of(op.get("alpha", 1)))
    return total(of(op["self"]), other if op.name == "aten.add" else negative(other))


def _rsub(op: Operation, of: RangeOf) -> Range:
    return total(of(op["other"]), negative(product(of(op["self"]), of(op.get("alpha", 1)))))


def _divide(op: Operation, of: RangeOf) -> Range:
    rounded = 0.0 if op.get("rounding_mode") is None and op.name != "aten.floor_divide" else 1.0
    found = product(of(op["self"]), inverse(of(op["other"])))
    return replace(found, low=found.low - rounded, high=found.high + rounded)


def _remainder(op: Operation, of: RangeOf) -> Range:
    given, divisor = of(op["self"]), of(op["other"])
    return FINITE if given.finite and divisor.finite and divisor.nonzero else ANYTHING


def _power(op: Operation, of: RangeOf) -> Range:
    base, exponent = of(op["self"]), of(op["exponent"])
    if not (base.finite and exponent.finite):
        return ANYTHING
    number = op["exponent"]
    if not isinstance(number, int | float):
        return Range(0, _INF) if base.low > 0 else ANYTHING
    if number == 2:
        return squared(base)
    if base.low > 0 or (base.low >= 0 and number >= 0):
        ends = [_applied(lambda bound: bound**number, bound) for bound in (base.low, base.high)]
        return Range(min(ends), max(ends))
    return FINITE if number >= 0 and float(number).is_integer() else ANYTHING


def _absolute(op: Operation, of: RangeOf) -> Range:
    given = _picked(op, of)
    ends = sorted((abs(given.low), abs(given.high)))
    return Range(0.0 if given.low <= 0 <= given.high else ends[0], ends[1], given.up or given.down, False, given.nan)


def _larger(op: Operation, of: RangeOf) -> Range:
    a, b = of(op["self"]), of(op["other"])
    both = a.joined(b)
    if not both.finite:
        return both
    pick = max if op.name in ("aten.maximum", "aten.fmax") else min
    return Range(pick(a.low, b.low), pick(a.high, b.high))


def _chosen(op: Operation, of: RangeOf) -> Range:
    if op.name == "aten.masked_fill":
        return of(op["self"]).joined(of(op["value"]))
    return of(op["self"]).joined(of(op["other"])) if "self" in op.arguments else ANYTHING


def _softmax(op: Operation, of: RangeOf) -> Range:
    given = _picked(op, of)  # A row of nothing but minus infinities gives NaN.
    return Range(0, 1, nan=not given.finite)


def _repaired(op: Operation, of: RangeOf) -> Range:
    given = _picked(op, of)
    return given.joined(Range(0, 0)) if given.finite else FINITE


def _cast(op: Operation, of: RangeOf) -> Range:
    given = of(op.node.all_input_nodes[0])
    return Range(0, 1) if op.example.dtype is torch.bool else given


def _attended(op: Operation, of: RangeOf) -> Range:
    mask = op.get("attn_mask")
    hides = of(mask) if isinstance(mask, fx.Node) else FINITE
    sound = all(of(op[name]).finite for name in ("query", "key", "value")) and not (hides.nan or hides.up)
    return of(op["value"]).joined(Range(0, 0)) if sound else ANYTHING


def _looked_up(op: Operation, of: RangeOf) -> Range:
    return of(op["weight"])


TRANSFERS: dict[str, Transfer] = {}


def _register(transfer: Transfer, names: str) -> None:
    TRANSFERS.update(dict.fromkeys(names.split(), transfer))


_register(
    _picked,
    "alias clone contiguous detach lift_fresh_copy positive view reshape _unsafe_view view_as "
    "reshape_as flatten unflatten _reshape_alias permute transpose swapaxes swapdims movedim moveaxis t mT mH numpy_T squeeze "
    "unsqueeze expand expand_as broadcast_to slice narrow select index index_select gather take_along_dim repeat tile "
    "repeat_interleave roll flip split split_with_sizes chunk tensor_split unbind cat concat concatenate stack unfold diagonal "
    "fft_fftshift fft_ifftshift "
    "amax amin max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d topk sort median cummax cummin pixel_shuffle pixel_unshuffle channel_shuffle "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d",
)
_register(_dropped, "dropout feature_dropout")
_register(_operands, "max min")
_register(_picked_or_zero, "tril triu im2col avg_pool1d avg_pool2d avg_pool3d")
_register(_filled_or_picked, "pad constant_pad_nd")
_register(
    _averaged, "mean adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d upsample_linear1d upsample_bilinear2d"
)
_register(
    _mixed,
    "linear conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d matmul bmm mm mv einsum addmm "
    "baddbmm dot cumprod prod gelu silu mish elu selu celu leaky_relu prelu _prelu_kernel hardswish hardshrink "
    "softshrink threshold exp2 expm1 sinh cosh tan log_sigmoid logsumexp log_softmax _log_softmax upsample_trilinear3d "
    "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa lerp addcmul glu gru lstm rnn_tanh rnn_relu gru_cell "
    "lstm_cell rnn_tanh_cell rnn_relu_cell asinh grid_sampler grid_sampler_2d grid_sampler_3d rrelu fft_fft fft_ifft fft_rfft "
    "fft_irfft fft_rfft2 fft_irfft2 fft_fft2 fft_ifft2 fft_hfft fft_ihfft fft_fftn fft_ifftn fft_rfftn fft_irfftn stft istft "
    "complex polar conj _conj conj_physical resolve_conj resolve_neg sgn view_as_real view_as_complex real imag alpha_dropout "
    "feature_alpha_dropout scatter scatter_add index_add index_put index_copy",
)
_register(
    _normalised,
    "batch_norm native_batch_norm _native_batch_norm_legit_no_training instance_norm group_norm layer_norm rms_norm "
    "native_layer_norm",
)
_register(_made, "zeros ones full new_zeros new_ones new_full zeros_like ones_like full_like scalar_tensor")
_register(_sum, "sum cumsum")
_register(_size, "linalg_vector_norm norm hypot frobenius_norm")
_register(_spread, "var std")
_register(_into(0, 1), "sigmoid hardsigmoid")
_register(_into(-1, 1), "tanh erf sign")
_register(_into(0, 2), "erfc")
_register(_into(-2, 2), "atan")
_register(_into(0, 6), "relu6")
_register(_clamped, "clamp clip clamp_min clamp_max hardtanh")
_register(_relu, "relu")
_register(_softplus, "softplus")
_register(_wave, "sin cos")
_register(
    _truth,
    "eq ne not_equal lt less le gt greater ge logical_and logical_or logical_xor logical_not isnan isinf isfinite any all",
)
_register(_position, "argmax argmin one_hot")
_register(lambda op, of: FINITE, "arange linspace eye")
_register(lambda op, of: FINITE, "rand randn rand_like randn_like randint randint_like randperm bernoulli normal")
_register(_monotone(math.exp), "exp")
_register(_monotone(lambda x: math.sqrt(x), 0), "sqrt")
_register(_monotone(math.log, 0, True), "log")
_register(_monotone(math.log2, 0, True), "log2")
_register(_monotone(math.log10, 0, True), "log10")
_register(_monotone(lambda x: math.log1p(x), -1, True), "log1p")
_register(_monotone(lambda x: x if math.isinf(x) else math.floor(x)), "floor")
_register(_monotone(lambda x: x if math.isinf(x) else math.ceil(x)), "ceil")
_register(_monotone(lambda x: x if math.isinf(x) else float(round(x))), "round")
_register(_monotone(lambda x: x if math.isinf(x) else float(math.trunc(x))), "trunc fix")
_register(lambda op, of: inverse(_picked(op, of)), "reciprocal")
_register(lambda op, of: inverse(_monotone(math.sqrt, 0)(op, of)) if _picked(op, of).low > 0 else ANYTHING, "rsqrt")
_register(lambda op, of: negative(_picked(op, of)), "neg negative")
_register(lambda op, of: squared(_picked(op, of)), "square")
_register(_multiply, "mul multiply")
_register(_add, "add sub subtract")
_register(_rsub, "rsub")
_register(_divide, "div divide true_divide floor_divide")
_register(_remainder, "fmod remainder")
_register(_power, "pow")
_register(_absolute, "abs")
_register(_larger, "maximum minimum fmax fmin")
_register(_chosen, "where masked_fill")
_register(_softmax, "softmax _softmax")
_register(_repaired, "nan_to_num")
_register(_cast, "to _to_copy type_as")
_register(_attended, "scaled_dot_product_attention")
_register(_looked_up, "embedding")

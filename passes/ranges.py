"""Between what bounds a value lies, and whether it can be infinite or NaN, for finite inputs of any size.

A zero stays zero only under a factor that is finite; attention weights sum to one only where some key is visible. Interval
arithmetic tells: ``x / (norm + 1e-6)`` is finite, ``x / mask.sum()`` may not be. Overflow is left out of account: ``exp`` is
finite. A range is worked out when a rule first asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from .values import WRITTEN, Operation, attribute, is_static, is_tensor, operator_name, shape_of

__all__ = ["Range", "Ranges"]

_INF = math.inf
_LARGE = 1 << 20
"""Parameters of more entries than this count as finite without bounds."""


@dataclass(frozen=True)
class Range:
    """What is known of every entry of a value.

    Attributes:
        low: no finite entry is below.
        high: no finite entry is above.
        up: an entry may be infinite.
        down: an entry may be minus infinity.
        nan: an entry may be no number.
    """

    low: float = -_INF
    high: float = _INF
    up: bool = False
    down: bool = False
    nan: bool = False

    @property
    def finite(self) -> bool:
        """Every entry is."""
        return not (self.up or self.down or self.nan)

    @property
    def nonzero(self) -> bool:
        """No entry is zero, or no number."""
        return (self.low > 0 or self.high < 0) and not self.nan

    def joined(self, other: Range) -> Range:
        """Entries of both."""
        return Range(
            min(self.low, other.low),
            max(self.high, other.high),
            self.up or other.up,
            self.down or other.down,
            self.nan or other.nan,
        )

    def bounded(self, low: float, high: float) -> Range:
        """Of a function that maps all numbers, infinite ones too, into these bounds."""
        return Range(low, high, nan=self.nan)


FINITE = Range()
ANYTHING = Range(up=True, down=True, nan=True)

_Of = Callable[[Any], Range]
_Transfer = Callable[[Operation, _Of], Range]


class Ranges:
    """The ranges of a graph's values, by node."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._known: dict[fx.Node, Range] = {}

    def __getitem__(self, node: fx.Node) -> Range:
        pending = [node]
        while pending:
            current = pending[-1]
            missing = [operand for operand in current.all_input_nodes if operand not in self._known]
            if missing and current not in self._known:
                pending.extend(missing)
                continue
            pending.pop()
            if current not in self._known:
                self._known[current] = self._worked_out(current)
        return self._known[node]

    def _worked_out(self, node: fx.Node) -> Range:
        if node.op == "placeholder" or node.meta.get(WRITTEN):
            return _by_type(node)
        if node.op == "get_attr":
            if node.meta.get(WRITTEN):
                return ANYTHING  # A forward pass before this one may have left anything.
            return _of_stored(attribute(self._module, str(node.target)))
        if node.op != "call_function":
            return ANYTHING
        name = operator_name(node)
        if name == "getitem" and isinstance(node.args[0], fx.Node):
            return FINITE if _is_whole(node) else self._known[node.args[0]]
        if isinstance(node.meta.get("val"), int | torch.SymInt):
            return Range(1, _INF) if name == "aten.sym_size" else FINITE
        found = _TRANSFERS.get(name.removeprefix("aten."), _unknown)(Operation(node, torch.nn.Module()), self._of)
        return _whole(found, node.meta["val"].dtype) if _is_whole(node) else found

    def _of(self, value: Any) -> Range:
        """Of an argument: a node, a number, or a list of them."""
        if isinstance(value, fx.Node):
            return self._known[value]
        if isinstance(value, list | tuple):
            return _hull([self._of(item) for item in value])
        if isinstance(value, bool | int | float):
            number = float(value)
            if math.isfinite(number):
                return Range(number, number)
            return Range(0, 0, up=number == _INF, down=number == -_INF, nan=number != number)
        return ANYTHING


def _is_whole(node: fx.Node) -> bool:
    return is_tensor(node) and not (node.meta["val"].is_floating_point() or node.meta["val"].is_complex())


def _whole(found: Range, kind: torch.dtype) -> Range:
    """Of whole numbers, which are never infinite, and start again where they leave their type."""
    if kind is torch.bool or not found.finite:
        return Range(0, 1) if kind is torch.bool else FINITE
    low, high = (bound if math.isinf(bound) else float(math.trunc(bound)) for bound in (found.low, found.high))
    limits = torch.iinfo(kind)
    narrow = limits.bits < 32 and (math.isinf(low) or math.isinf(high))
    leaves = (low < limits.min and low != -_INF) or (high > limits.max and high != _INF)
    return FINITE if narrow or leaves else Range(low, high)


def _by_type(node: fx.Node) -> Range:
    kind = node.meta["val"].dtype if is_tensor(node) else None
    return {torch.bool: Range(0, 1), torch.uint8: Range(0, 255)}.get(kind, FINITE) if kind is not None else FINITE


def _of_stored(value: Any) -> Range:
    if not isinstance(value, torch.Tensor):
        return ANYTHING
    value = value.detach()
    if value.is_complex() or not value.numel() or (isinstance(value, torch.nn.Parameter) and value.numel() > _LARGE):
        return FINITE if not value.is_complex() or bool(value.isfinite().all()) else ANYTHING
    value = value.double() if value.is_floating_point() else value
    finite = value[value.isfinite()]
    low, high = (float(bound) for bound in torch.aminmax(finite)) if finite.numel() else (0.0, 0.0)
    if not value.is_floating_point():
        return Range(low, high)
    up, down = (bool((value == sign).any()) for sign in (_INF, -_INF))
    return Range(low, high, up, down, bool(value.isnan().any()))


def _hull(ranges: list[Range]) -> Range:
    result = ranges[0] if ranges else FINITE
    for other in ranges[1:]:
        result = result.joined(other)
    return result


# Transfer functions -----------------------------------------------------------------------------------------------


def _unknown(op: Operation, of: _Of) -> Range:
    return ANYTHING


def _operands(op: Operation, of: _Of) -> Range:
    return _hull([of(node) for node in op.node.all_input_nodes if is_tensor(node)])


def _picked(op: Operation, of: _Of) -> Range:
    """Entries of the first operand: index operands do not enter."""
    return of(op.node.all_input_nodes[0]) if "tensors" not in op.arguments else of(op["tensors"])


def _picked_or_zero(op: Operation, of: _Of) -> Range:
    return _picked(op, of).joined(Range(0, 0))


def _filled_or_picked(op: Operation, of: _Of) -> Range:
    return _picked(op, of).joined(of(op.get("value") or 0.0))


def _averaged(op: Operation, of: _Of) -> Range:
    given = _picked(op, of)
    return replace(given, nan=given.nan or (given.up and given.down))


def _mixed(op: Operation, of: _Of) -> Range:
    """Finite where everything that comes in is."""
    return FINITE if _operands(op, of).finite else ANYTHING


def _normalised(op: Operation, of: _Of) -> Range:
    eps = op.get("eps")
    return _mixed(op, of) if eps is None or eps > 0 else ANYTHING


def _made(op: Operation, of: _Of) -> Range:
    values = {"zeros": 0.0, "zeros_like": 0.0, "new_zeros": 0.0, "ones": 1.0, "ones_like": 1.0, "new_ones": 1.0}
    return of(values.get(op.name.removeprefix("aten."), op.get("fill_value")))


def _sum(op: Operation, of: _Of) -> Range:
    given = _averaged(op, of)
    return replace(given, low=given.low if given.low >= 0 else -_INF, high=given.high if given.high <= 0 else _INF)


def _size(op: Operation, of: _Of) -> Range:
    """A norm, or the root of a variance."""
    return Range(0, _INF) if _operands(op, of).finite else ANYTHING


def _spread(op: Operation, of: _Of) -> Range:
    """Variances: NaN for as many entries as are subtracted from their number."""
    source = shape_of(op.node.all_input_nodes[0])
    dim = op.get("dim")
    chosen = range(len(source)) if dim in (None, []) else ([dim] if isinstance(dim, int) else dim)
    counted = [source[axis] for axis in chosen] if not isinstance(dim, bool) else []
    correction = op.get("correction", 1)
    enough = bool(counted) and all(is_static(size) for size in counted)
    enough = enough and math.prod(counted) > (1 if correction is None else correction)
    return _size(op, of) if enough else ANYTHING


def _into(low: float, high: float) -> _Transfer:
    return lambda op, of: _picked(op, of).bounded(low, high)


def _truth(op: Operation, of: _Of) -> Range:
    return Range(0, 1)


def _position(op: Operation, of: _Of) -> Range:
    return Range(0, _INF)


def _clamped(op: Operation, of: _Of) -> Range:
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


def _relu(op: Operation, of: _Of) -> Range:
    given = _picked(op, of)
    return Range(max(given.low, 0.0), max(given.high, 0.0), given.up, False, given.nan)


def _softplus(op: Operation, of: _Of) -> Range:
    given = _picked(op, of)
    return Range(0, _INF, given.up, False, given.nan)


def _wave(op: Operation, of: _Of) -> Range:
    return Range(-1, 1, nan=not _picked(op, of).finite)


def _dropped(op: Operation, of: _Of) -> Range:
    return _mixed(op, of) if op.draws else _picked(op, of)


def _monotone(function: Callable[[float], float], least: float = -_INF, strict: bool = False) -> _Transfer:
    """A growing function that is defined from `least` on (`strict`: above it)."""

    def transfer(op: Operation, of: _Of) -> Range:
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


def _product(a: Range, b: Range) -> Range:
    if not (a.finite and b.finite):
        for one, other in ((a, b), (b, a)):
            if one.finite and one.low > 0:
                return Range(*_corners(one, other), other.up, other.down, other.nan)
        return ANYTHING
    return Range(*_corners(a, b))


def _corners(a: Range, b: Range) -> tuple[float, float]:
    ends = [0.0 if 0.0 in (x, y) else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(ends), max(ends)


def _total(a: Range, b: Range) -> Range:
    nan = a.nan or b.nan or (a.up and b.down) or (a.down and b.up)
    return Range(a.low + b.low, a.high + b.high, a.up or b.up, a.down or b.down, nan)


def _negative(a: Range) -> Range:
    return Range(-a.high, -a.low, a.down, a.up, a.nan)


def _inverse(a: Range) -> Range:
    """One over it."""
    if not a.nonzero:
        return ANYTHING
    ends = [0.0 if math.isinf(bound) else 1 / bound for bound in (a.low, a.high)]
    ends += [0.0] if a.up or a.down else []
    return Range(min(ends), max(ends))


def _multiply(op: Operation, of: _Of) -> Range:
    first, second = op["self"], op["other"]
    return _squared(of(first)) if first is second else _product(of(first), of(second))


def _squared(a: Range) -> Range:
    ends = sorted((abs(a.low), abs(a.high)))
    least = 0.0 if a.low <= 0 <= a.high else ends[0]
    return Range(least**2, ends[1] ** 2, a.up or a.down, False, a.nan)


def _add(op: Operation, of: _Of) -> Range:
    other = _product(of(op["other"]), of(op.get("alpha", 1)))
    return _total(of(op["self"]), other if op.name == "aten.add" else _negative(other))


def _rsub(op: Operation, of: _Of) -> Range:
    return _total(of(op["other"]), _negative(_product(of(op["self"]), of(op.get("alpha", 1)))))


def _divide(op: Operation, of: _Of) -> Range:
    rounded = 0.0 if op.get("rounding_mode") is None and op.name != "aten.floor_divide" else 1.0
    found = _product(of(op["self"]), _inverse(of(op["other"])))
    return replace(found, low=found.low - rounded, high=found.high + rounded)


def _remainder(op: Operation, of: _Of) -> Range:
    given, divisor = of(op["self"]), of(op["other"])
    return FINITE if given.finite and divisor.finite and divisor.nonzero else ANYTHING


def _power(op: Operation, of: _Of) -> Range:
    base, exponent = of(op["self"]), of(op["exponent"])
    if not (base.finite and exponent.finite):
        return ANYTHING
    number = op["exponent"]
    if not isinstance(number, int | float):
        return Range(0, _INF) if base.low > 0 else ANYTHING
    if number == 2:
        return _squared(base)
    if base.low > 0 or (base.low >= 0 and number >= 0):
        ends = [_applied(lambda bound: bound**number, bound) for bound in (base.low, base.high)]
        return Range(min(ends), max(ends))
    return FINITE if number >= 0 and float(number).is_integer() else ANYTHING


def _absolute(op: Operation, of: _Of) -> Range:
    given = _picked(op, of)
    ends = sorted((abs(given.low), abs(given.high)))
    return Range(0.0 if given.low <= 0 <= given.high else ends[0], ends[1], given.up or given.down, False, given.nan)


def _larger(op: Operation, of: _Of) -> Range:
    a, b = of(op["self"]), of(op["other"])
    both = a.joined(b)
    if not both.finite:
        return both
    pick = max if op.name in ("aten.maximum", "aten.fmax") else min
    return Range(pick(a.low, b.low), pick(a.high, b.high))


def _chosen(op: Operation, of: _Of) -> Range:
    if op.name == "aten.masked_fill":
        return of(op["self"]).joined(of(op["value"]))
    return of(op["self"]).joined(of(op["other"])) if "self" in op.arguments else ANYTHING


def _softmax(op: Operation, of: _Of) -> Range:
    given = _picked(op, of)  # A row of nothing but minus infinities gives NaN.
    return Range(0, 1, nan=not given.finite)


def _repaired(op: Operation, of: _Of) -> Range:
    given = _picked(op, of)
    return given.joined(Range(0, 0)) if given.finite else FINITE


def _cast(op: Operation, of: _Of) -> Range:
    given = of(op.node.all_input_nodes[0])
    return Range(0, 1) if op.example.dtype is torch.bool else given


def _attended(op: Operation, of: _Of) -> Range:
    mask = op.get("attn_mask")
    hides = of(mask) if isinstance(mask, fx.Node) else FINITE
    sound = all(of(op[name]).finite for name in ("query", "key", "value")) and not (hides.nan or hides.up)
    return of(op["value"]).joined(Range(0, 0)) if sound else ANYTHING


def _looked_up(op: Operation, of: _Of) -> Range:
    return of(op["weight"])


_TRANSFERS: dict[str, _Transfer] = {}


def _register(transfer: _Transfer, names: str) -> None:
    _TRANSFERS.update(dict.fromkeys(names.split(), transfer))


_register(
    _picked,
    "alias clone contiguous detach lift_fresh_copy positive view reshape _unsafe_view view_as "
    "reshape_as flatten unflatten _reshape_alias permute transpose swapaxes swapdims movedim moveaxis t mT mH numpy_T squeeze "
    "unsqueeze expand expand_as broadcast_to slice narrow select index index_select gather take_along_dim repeat tile "
    "repeat_interleave roll flip split split_with_sizes chunk tensor_split unbind cat concat concatenate stack unfold diagonal "
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
    "fft_irfft fft_rfft2 fft_irfft2 fft_fft2 fft_ifft2 view_as_real view_as_complex real imag alpha_dropout "
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
_register(lambda op, of: _inverse(_picked(op, of)), "reciprocal")
_register(lambda op, of: _inverse(_monotone(math.sqrt, 0)(op, of)) if _picked(op, of).low > 0 else ANYTHING, "rsqrt")
_register(lambda op, of: _negative(_picked(op, of)), "neg negative")
_register(lambda op, of: _squared(_picked(op, of)), "square")
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

"""Functions that compiled code computes, the numbers they are tried on, and what counts as right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconvene.backends.compile import compile

Function = Callable[[Tensor], Tensor]

_SIZES = (
    0.0, 1e-42, 1e-38, 1e-30, 1e-10, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.3, 0.49, 0.5, 0.7, 0.9, 0.99, 1.0, 1.01, 1.5, 2.0,
    2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 9.0, 10.0, 15.0, 20.0, 21.0, 30.0, 50.0, 80.0, 87.0, 88.0, 88.7, 89.0, 100.0, 103.0,
    105.0, 120.0, 200.0, 1e3, 1e4, 1e5, 1e10, 1e19, 1e20, 1e38, 3.4e38, math.inf,
)  # fmt: skip
GRID = torch.tensor([*_SIZES, *(-size for size in _SIZES), *[math.nan] * 4])
"""Both signs of numbers from denormal ones to infinity, and NaN: 112 of them."""

UNARY: Mapping[str, Function] = {
    **{name: getattr(torch, name) for name in (
        "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cosh", "erf", "erfc", "exp", "exp2", "expm1",
        "floor", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "neg", "reciprocal", "relu", "round",
        "rsqrt", "sigmoid", "sign", "sinh", "sqrt", "square", "tanh", "trunc",
    )},
    **{name: getattr(F, name) for name in (
        "celu", "elu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish", "relu6",
        "rrelu", "selu", "silu", "softplus", "softshrink", "softsign",
    )},
    "elu of a half": lambda x: F.elu(x, 0.5),
    "elu of three numbers": lambda x: torch.ops.aten.elu.default(x, 0.7, 1.3, 0.9),
    "celu of two": lambda x: F.celu(x, 2.0),
    "celu below zero": lambda x: F.celu(x, -0.7),
    "softplus of two": lambda x: F.softplus(x, 2, 5),
    "threshold": lambda x: F.threshold(x, 0.5, -2.0),
    "prelu": lambda x: F.prelu(x, torch.full((1,), 0.25, dtype=x.dtype)),
    "between": lambda x: x.clamp(-1, 1),
    "at least": lambda x: x.clamp(min=-1),
    "at most": lambda x: x.clamp(max=1),
    "between NaN and one": lambda x: x.clamp(math.nan, 1),
    "between tensors": lambda x: x.clamp(torch.full_like(x, -1), torch.full_like(x, 2)),
    "root as a power": lambda x: x**0.5,
    "cube": lambda x: x**3,
    "inverse square": lambda x: x**-2,
    "power of two": lambda x: 2.0**x,
    "a third": lambda x: x / 3,
    "by a denormal number": lambda x: x / 1e-39,
    "times zero": lambda x: x * 0,
    "over zero": lambda x: x / 0,
    "zero over it": lambda x: 0 / x,
    "less itself": lambda x: x - x,
    "over itself": lambda x: x / x,
    "inverse of minus it": lambda x: 1 / (-x),
    "equal to itself": lambda x: x == x,
    "not equal to itself": lambda x: x != x,
    "at most itself": lambda x: x <= x,
    "not positive": lambda x: ~(x > 0),
    "not negative": lambda x: torch.logical_not(x < 0),
    "positive or else": lambda x: torch.where(~(x <= 0), 1.0, 2.0),
    "larger of both": lambda x: torch.maximum(x, x.flip(-1)),
    "smaller of both": lambda x: torch.minimum(x, x.flip(-1)),
    "larger that is a number": lambda x: torch.fmax(x, x.flip(-1)),
    "smaller that is a number": lambda x: torch.fmin(x, x.flip(-1)),
    "longest side": lambda x: torch.hypot(x, x.flip(-1)),
    "logarithm of a sum": lambda x: torch.logaddexp(x, x.flip(-1)),
}  # fmt: skip


class Several(nn.Module):
    """Functions of one tensor as a model with as many outputs."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        super().__init__()
        self.functions = list(functions.values())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions)


def wrong(functions: Mapping[str, Function], example: Tensor, inputs: Mapping[str, Tensor], each: bool) -> list[str]:
    """What compiled code computes wrongly, in words.

    A number may be 1e-5 off, as a share of itself or else of the largest, or ten times as far off as PyTorch's own. Where
    that is not a number, neither is this.
    """
    built = compile(Several(functions).eval(), (example,), choose="default", check=False)
    found = []
    for kind, x in inputs.items():
        for (name, function), got in zip(functions.items(), built.run(x), strict=True):
            reason = _difference(got, function(x), function(x.double()) if x.is_floating_point() else None, each)
            found += [f"{name} of {kind}: {reason}"] if reason else []
    return found


def _difference(got: Tensor, single: Tensor, double: Tensor | None, each: bool) -> str | None:
    if (got.shape, got.dtype) != (single.shape, single.dtype):
        return f"{got.dtype} {tuple(got.shape)}, not {single.dtype} {tuple(single.shape)}"
    same = (got == single) | (got != got) & (single != single)
    if bool(same.all()):
        return None
    if double is None or not got.is_floating_point():
        return f"{got[~same][0]}, not {single[~same][0]}"
    scale = double.abs() if each else double[double.isfinite()].abs().max() if double.isfinite().any() else 1.0
    scale = torch.as_tensor(scale).clamp_min(1e-38)
    errors, theirs = ((value.double() - double).abs() / scale for value in (got, single))
    theirs = theirs if each else theirs[theirs.isfinite()].max() if theirs.isfinite().any() else torch.zeros(())
    off = ~same & ~((errors <= 1e-5) | (errors <= 10 * theirs))
    return f"{got[off][0]:.7g}, not {double[off][0]:.7g}" if bool(off.any()) else None

"""Operators that work entry by entry, inside their domains."""

from __future__ import annotations

from typing import Any

import torch

from ..draft import Draft
from ..program import Ref
from .registry import recipe


def positive(draft: Draft, x: Ref) -> Ref:
    """Between 0.5 and 1.5."""
    return draft.call("add.Tensor", draft.call("sigmoid.default", x), 0.5)


def inside(draft: Draft, x: Ref) -> Ref:
    """Strictly between -0.9 and 0.9."""
    return draft.call("mul.Tensor", draft.call("tanh.default", x), 0.9)


def stepped(draft: Draft, x: Ref) -> Ref:
    """Away from the places where a step function jumps, which exact zeros would otherwise sit on."""
    return draft.call("add.Tensor", draft.call("mul.Tensor", x, 1.7), 0.1234)


def number(draft: Draft) -> float:
    """A literal."""
    return float(draft.pick((0.5, 0.3, -0.7, 1.5, 0.0, 2.0)))


def back(draft: Draft, x: Ref) -> Ref:
    """Whole numbers and truth values as floating-point ones."""
    if draft.value(x).dtype.is_floating_point:
        return x
    return draft.call("to.dtype", x, torch.float64)


def operand(draft: Draft) -> Ref:
    """A value, often after a layer."""
    x = draft.operand()
    return draft.fed(x, draft.pick((1, draft.rank(x) - 1)), 25) if draft.rank(x) > 1 else x


@recipe(
    "relu abs asinh atan celu cos elu erf erfc gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish "
    "nan_to_num neg negative relu6 selu sigmoid silu sin softplus softshrink square tanh rrelu positive contiguous clone "
    "detach alias lift_fresh_copy",
    weight=16,
)
def unary(draft: Draft, operator: str) -> Ref:
    return draft.call(f"{operator}.default", operand(draft), *_settings(draft, operator))


def _settings(draft: Draft, operator: str) -> tuple[Any, ...]:
    options: dict[str, tuple[tuple[Any, ...], ...]] = {
        "celu": ((), (0.6,)),
        "elu": ((), (0.7, 1.3, 0.9)),
        "hardshrink": ((), (0.2,)),
        "softshrink": ((), (0.3,)),
        "hardtanh": ((), (-0.4, 0.6), (0.2, 0.5)),
        "leaky_relu": ((), (0.3,)),
        "softplus": ((), (2.0, 1.0)),
        "rrelu": ((0.1, 0.3, False),),
        "nan_to_num": ((), (0.2,)),
    }
    chosen: tuple[Any, ...] = draft.pick(options.get(operator, ((),)))
    return chosen


@recipe("exp exp2 expm1 cosh sinh tan acos asin atanh", weight=3)
def unary_inside(draft: Draft, operator: str) -> Ref:
    return draft.call(f"{operator}.default", inside(draft, operand(draft)))


@recipe("log log10 log1p log2 reciprocal rsqrt sqrt acosh", weight=3)
def unary_positive(draft: Draft, operator: str) -> Ref:
    x = positive(draft, operand(draft))
    return draft.call(f"{operator}.default", draft.call("add.Tensor", x, 1.0) if operator == "acosh" else x)


@recipe("logit", weight=1)
def logit(draft: Draft, operator: str) -> Ref:
    x = draft.call("mul.Tensor", draft.call("sigmoid.default", operand(draft)), 0.9)
    return draft.call("logit.default", draft.call("add.Tensor", x, 0.05), draft.pick((None, 0.1)))


@recipe("ceil fix floor frac round sign trunc", weight=2)
def steps(draft: Draft, operator: str) -> Ref:
    return draft.call(f"{operator}.default", stepped(draft, operand(draft)))


@recipe("clamp clip clamp_max clamp_min threshold", weight=3)
def limits(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    if operator in ("clamp", "clip"):
        low, high = draft.pick(((-0.4, 0.6), (0.1, 0.7), (None, 0.3), (-0.2, None)))
        return draft.call(f"{operator}.default", x, low, high)
    if operator == "threshold":
        return draft.call("threshold.default", stepped(draft, x), 0.1, 0.7)
    if draft.chance(30):
        return draft.call(f"{operator}.Tensor", x, draft.like(x))
    return draft.call(f"{operator}.default", x, number(draft))


@recipe("logical_not bitwise_not to _to_copy type_as", weight=2)
def types(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    if operator in ("logical_not", "bitwise_not"):
        return back(draft, draft.call(f"{operator}.default", draft.call("gt.Scalar", stepped(draft, x), 0.1)))
    if operator == "type_as":
        return draft.call("type_as.default", x, draft.operand())
    if operator == "_to_copy":
        if draft.chance(50):
            return draft.call("_to_copy.default", x)
        return back(draft, draft.call("_to_copy.default", stepped(draft, x), dtype=torch.int64))
    kind = draft.integer(0, 3)
    if kind == 0:
        return draft.call("to.dtype", x, torch.float64)
    if kind == 1:
        return draft.call("to.other", x, draft.operand())
    if kind == 2:
        return back(draft, draft.call("to.dtype", stepped(draft, x), draft.pick((torch.int64, torch.int32))))
    return back(draft, draft.call("to.dtype", draft.call("relu.default", stepped(draft, x)), torch.bool))


@recipe("dropout feature_dropout alpha_dropout feature_alpha_dropout", weight=1)
def dropouts(draft: Draft, operator: str) -> Ref:
    return draft.call(f"{operator}.default", draft.of_rank(4, 3), 0.4, False)


@recipe("add sub subtract mul multiply maximum minimum fmax fmin hypot", weight=14)
def binary(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    literal = operator in ("add", "sub", "subtract", "mul", "multiply") and draft.chance(20)
    y: Any = number(draft) if literal else draft.like(x)
    if not literal and draft.chance(30):
        x, y = y, x
    overload = "default" if operator in ("maximum", "minimum", "fmax", "fmin", "hypot") else "Tensor"
    if operator in ("add", "sub") and draft.chance(15):
        return draft.call(f"{operator}.{overload}", x, y, alpha=draft.pick((-0.3, 2.0)))
    return draft.call(f"{operator}.{overload}", x, y)


@recipe("div divide true_divide fmod remainder xlogy floor_divide pow atan2", weight=5)
def guarded(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    y: Any = draft.pick((2.0, 1.5, 0.7)) if draft.chance(25) else positive(draft, draft.like(x))
    if operator == "pow":
        kind = draft.integer(0, 2)
        if kind == 0:
            return draft.call("pow.Tensor_Scalar", x, draft.pick((2, 3, 1)))
        if kind == 1:
            return draft.call("pow.Scalar", 2.0, inside(draft, x))
        return draft.call("pow.Tensor_Tensor", positive(draft, x), inside(draft, draft.like(x)))
    scalar = isinstance(y, float)
    if operator in ("fmod", "remainder", "floor_divide"):
        x = stepped(draft, x)
    if operator == "div" and draft.chance(30):
        mode = draft.pick(("floor", "trunc"))
        return draft.call("div.Tensor_mode", stepped(draft, x), y, rounding_mode=mode)
    if operator == "xlogy":
        return draft.call("xlogy.Scalar_Other" if scalar else "xlogy.Tensor", x, y)
    if operator == "atan2":
        return draft.call("atan2.default", x, positive(draft, x) if scalar else y)
    if operator == "floor_divide":
        return draft.call("floor_divide.Scalar" if scalar else "floor_divide.default", x, y)
    overload = "Scalar" if scalar and operator in ("fmod", "remainder") else "Tensor"
    return draft.call(f"{operator}.{overload}", x, y)


@recipe("rsub lerp addcmul addcdiv where masked_fill", weight=4)
def several(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    y = draft.like(x)
    if operator == "rsub":
        return draft.call("rsub.Scalar", x, number(draft)) if draft.chance(50) else draft.call("rsub.Tensor", x, y)
    if operator == "lerp":
        if draft.chance(50):
            return draft.call("lerp.Scalar", x, y, 0.3)
        return draft.call("lerp.Tensor", x, y, draft.call("sigmoid.default", draft.like(x)))
    if operator == "addcmul":
        return draft.call("addcmul.default", x, y, draft.like(x), value=draft.pick((1, 0.4)))
    if operator == "addcdiv":
        return draft.call("addcdiv.default", x, y, positive(draft, draft.like(x)), value=draft.pick((1, 0.4)))
    if draft.rank(x) > 1 and draft.chance(30):
        truth = draft.call("unsqueeze.default", draft.mask(*draft.shape(x)[:-1]), -1)
    else:
        truth = draft.call("gt.Scalar", stepped(draft, draft.like(x)), 0.2)
    if operator == "masked_fill":
        return draft.call("masked_fill.Scalar", x, truth, number(draft))
    if draft.chance(30):
        return draft.call("where.ScalarOther", truth, x, number(draft))
    return draft.call("where.self", truth, x, y)


@recipe("eq ne not_equal lt less le gt greater ge", weight=2)
def comparisons(draft: Draft, operator: str) -> Ref:
    x = stepped(draft, operand(draft))
    if operator in ("eq", "ne", "not_equal"):
        x = draft.call("round.default", x)
    if draft.chance(40):
        return back(draft, draft.call(f"{operator}.Scalar", x, draft.pick((0.2, 1.0, -0.3))))
    y = draft.call("sub.Tensor", draft.like(x), 0.3) if operator not in ("eq", "ne", "not_equal") else draft.like(x)
    return back(draft, draft.call(f"{operator}.Tensor", x, y))


@recipe("bitwise_and bitwise_or bitwise_xor logical_and logical_or logical_xor __and__ __or__ __xor__", weight=3)
def truths(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    a = draft.call("gt.Scalar", stepped(draft, x), 0.0)
    b = draft.call("lt.Scalar", stepped(draft, draft.like(x)), 0.2)
    overload = "default" if operator.startswith("logical") else "Tensor"
    return back(draft, draft.call(f"{operator}.{overload}", a, b))


@recipe("__lshift__ __rshift__ bitwise_left_shift bitwise_right_shift", weight=1)
def shifts(draft: Draft, operator: str) -> Ref:
    x = draft.call("to.dtype", stepped(draft, operand(draft)), torch.int64)
    if draft.chance(50):
        return back(draft, draft.call(f"{operator}.{'Scalar' if operator.startswith('__') else 'Tensor_Scalar'}", x, 2))
    y = draft.call("to.dtype", draft.call("gt.Scalar", stepped(draft, draft.like(x)), 0.0), torch.int64)
    return back(draft, draft.call(f"{operator}.Tensor", x, y))


@recipe("prelu _prelu_kernel", weight=2)
def parametric(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    channels = draft.shape(x)[1] if draft.rank(x) > 1 else 1
    if operator == "prelu":
        return draft.call("prelu.default", x, draft.store(draft.pick((channels, 1)), scale=0.5))
    ones = (1,) * (draft.rank(x) - 2)
    return draft.call("_prelu_kernel.default", x, draft.store(1, channels, *ones, scale=0.5))


@recipe("glu", weight=2)
def gated(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    return draft.call("glu.default", x, draft.axis(x, 2, lambda size: size % 2 == 0))

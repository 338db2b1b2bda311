"""Sums, moments and normalisations: summed in float64, in two passes, and centred before anything is squared.

The mean is subtracted as the sum of two float32 numbers, so that what is left of numbers far from zero is as exact as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx
from tvm.ir import Op

from .axes import over, reduced_axes

__all__ = ["STATISTICS", "moments", "normalized", "variance"]

Expression = Any
_WIDE = "float64"


def total(x: Any, axes: Sequence[int], of: Callable[..., Expression] | None = None) -> Any:
    """The sum along `axes`, which stay with extent 1, of ``of(index)``, by default `x`; float64.

    Along the innermost axis it is first that of every so many elements, which a vector holds.
    """
    of = of or (lambda index: x[index])
    inner = len(x.shape) - 1
    lanes = next((n for n in (16, 8, 4) if inner in axes and int(x.shape[inner]) % n == 0), 0)
    if not lanes or int(x.shape[inner]) == lanes:
        return over(x, axes, True, lambda at, loops: te.sum(of(at).astype(_WIDE), axis=loops), "total")
    outer = {axis: te.reduce_axis((0, x.shape[axis]), name=f"k{axis}") for axis in axes if axis != inner}
    steps = te.reduce_axis((0, int(x.shape[inner]) // lanes), name="steps")
    kept = [1 if axis in outer else extent for axis, extent in enumerate(x.shape[:-1])]

    def part(*place: Any) -> Expression:
        at = tuple(outer.get(axis, place[axis]) for axis in range(inner))
        return te.sum(of((*at, steps * lanes + place[inner])).astype(_WIDE), axis=[*outer.values(), steps])

    parts = te.compute([*kept, lanes], part, name="parts")
    return over(parts, [inner], True, lambda at, loops: te.sum(parts[at], axis=loops), "total")


def moments(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """Mean and sum of squared deviations along `axes`, which stay with extent 1; float64."""
    count = _count(x, axes)
    sums = total(x, axes)
    mean = te.compute(sums.shape, lambda *index: sums[index] / tirx.const(count, _WIDE), name="mean")

    def squared(index: tuple[Any, ...]) -> Expression:
        deviation = x[index].astype(_WIDE) - mean[_flattened(index, axes)]
        return deviation * deviation

    return mean, total(x, axes, squared)


def variance(x: Any, axes: Sequence[int], keepdims: bool, correction: float, root: bool) -> Any:
    """Divided by ``max(0, count - correction)``; its root if asked."""
    _, squares = moments(x, axes)
    divisor = tirx.const(max(0.0, _count(x, axes) - correction), _WIDE)

    def element(*index: Any) -> Expression:
        value = squares[index] / divisor
        return (tirx.sqrt(value) if root else value).astype(x.dtype)

    return _kept(te.compute(squares.shape, element, name="variance"), axes, keepdims)


def normalized(x: Any, gamma: Any, beta: Any, axes: Sequence[int], epsilon: float, weights: Callable[..., Any]) -> Any:
    """``(x - mean) / sqrt(variance + epsilon)`` times `gamma` and plus `beta` at ``weights(index)``."""
    mean, squares = moments(x, axes)
    count, one = tirx.const(_count(x, axes), _WIDE), tirx.const(1.0, _WIDE)
    working = "float32" if x.dtype == "float16" else x.dtype
    near = te.compute(mean.shape, lambda *index: mean[index].astype(working), name="near")
    rest = te.compute(mean.shape, lambda *index: (mean[index] - near[index].astype(_WIDE)).astype(working), name="rest")

    def inverse(*index: Any) -> Expression:
        return (one / tirx.sqrt(squares[index] / count + tirx.const(epsilon, _WIDE))).astype(working)

    scale = te.compute(mean.shape, inverse, name="scale")

    def element(*index: Any) -> Expression:
        at = _flattened(index, axes)
        value = ((x[index].astype(working) - near[at]) - rest[at]) * scale[at]
        place = weights(index)
        return (value * gamma[place].astype(working) + beta[place].astype(working)).astype(x.dtype)

    return te.compute(x.shape, element, name="normalized")


def _count(x: Any, axes: Sequence[int]) -> int:
    count = 1
    for axis in axes:
        count *= int(x.shape[axis])
    return count


def _flattened(index: Sequence[Any], axes: Sequence[int]) -> tuple[Any, ...]:
    return tuple(0 if axis in axes else at for axis, at in enumerate(index))


def _kept(x: Any, axes: Sequence[int], keepdims: bool) -> Any:
    """`x` without the axes of extent 1 that were reduced, unless they stay."""
    if keepdims:
        return x
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]

    def element(*place: Any) -> Expression:
        at = dict(zip(rest, place, strict=True))
        return x[tuple(at.get(axis, 0) for axis in range(len(x.shape)))]

    return te.compute([x.shape[axis] for axis in rest], element, name="squeezed")


def _summed(name: str, mean: bool) -> Callable[[Any, Any], Any]:
    def summed(x: Any, axes: Sequence[int], keepdims: bool) -> Any:
        sums = total(x, axes)
        divisor = tirx.const(float(_count(x, axes) if mean else 1), _WIDE)
        narrow = te.compute(sums.shape, lambda *index: (sums[index] / divisor).astype(x.dtype), name="narrow")
        return _kept(narrow, axes, keepdims)

    def legalize(builder: Any, call: Any) -> Any:
        kind = call.args[0].ty
        if not str(kind.dtype).startswith("float") or any(int(extent) == 0 for extent in kind.shape):
            return Op.get(f"relax.{name}").get_attr("FLegalize")(builder, call)
        axes = reduced_axes(kind, call.attrs.axis)
        return builder.call_te(summed, call.args[0], axes, call.attrs.keepdims, primfunc_name_hint=name)

    return legalize


def _varied(root: bool) -> Callable[[Any, Any], Any]:
    def legalize(builder: Any, call: Any) -> Any:
        axes = reduced_axes(call.args[0].ty, call.attrs.axis)
        return builder.call_te(
            variance, call.args[0], axes, call.attrs.keepdims, 0.0, root, primfunc_name_hint="variance"
        )

    return legalize


def _layer_norm(builder: Any, call: Any) -> Any:
    axes = reduced_axes(call.args[0].ty, call.attrs.axes)

    def layer_norm(x: Any, gamma: Any, beta: Any) -> Any:
        return normalized(x, gamma, beta, axes, call.attrs.epsilon, lambda index: tuple(index[axis] for axis in axes))

    return builder.call_te(layer_norm, *call.args, primfunc_name_hint="layer_norm")


def _instance_norm(builder: Any, call: Any) -> Any:
    axes = reduced_axes(call.args[0].ty, call.attrs.axes)
    channel = int(call.attrs.channel_axis) % len(call.args[0].ty.shape)

    def instance_norm(x: Any, gamma: Any, beta: Any) -> Any:
        return normalized(x, gamma, beta, axes, call.attrs.epsilon, lambda index: (index[channel],))

    return builder.call_te(instance_norm, *call.args, primfunc_name_hint="instance_norm")


def _group_norm(builder: Any, call: Any) -> Any:
    """Groups are an axis of their own while it is computed."""
    shape = [int(extent) for extent in call.args[0].ty.shape]
    groups, channel = int(call.attrs.num_groups), int(call.attrs.channel_axis) % len(shape)
    size = shape[channel] // groups
    opened = [*shape[:channel], groups, size, *shape[channel + 1 :]]
    # A matrix has none beside its channels, and no axes are not all of them here.
    beside = reduced_axes(call.args[0].ty, call.attrs.axes) if call.attrs.axes else []
    axes = [channel + 1, *(axis + (axis > channel) for axis in beside)]

    def group_norm(x: Any, gamma: Any, beta: Any) -> Any:
        def place(index: Sequence[Any]) -> tuple[Any, ...]:
            return (*index[:channel], index[channel] * size + index[channel + 1], *index[channel + 2 :])

        parted = te.compute(opened, lambda *index: x[place(index)], name="parted")
        found = normalized(
            parted, gamma, beta, axes, call.attrs.epsilon, lambda index: (index[channel] * size + index[channel + 1],)
        )

        def joined(*index: Any) -> Expression:
            at = index[channel]
            return found[(*index[:channel], at // size, at % size, *index[channel + 1 :])]

        return te.compute(shape, joined, name="joined")

    return builder.call_te(group_norm, *call.args, primfunc_name_hint="group_norm")


STATISTICS = {
    "relax.sum": _summed("sum", False),
    "relax.mean": _summed("mean", True),
    "relax.variance": _varied(False),
    "relax.std": _varied(True),
    "relax.nn.layer_norm": _layer_norm,
    "relax.nn.instance_norm": _instance_norm,
    "relax.nn.group_norm": _group_norm,
}

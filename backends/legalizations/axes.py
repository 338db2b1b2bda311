"""Reductions along some axes of a tensor, as tensor expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te

__all__ = ["over", "reduced_axes"]


def reduced_axes(x: Any, axes: Sequence[Any] | None) -> list[int]:
    """In order and from the start; all of them where none are named."""
    return list(range(len(x.shape))) if not axes else sorted(int(axis) % len(x.shape) for axis in axes)


def over(x: Any, axes: Sequence[int], keepdims: bool, reduce: Callable[..., Any], name: str) -> Any:
    """``reduce(index, loops)`` for every result, where `index` is complete: loops stand for the axes that are reduced."""
    loops = {axis: te.reduce_axis((0, x.shape[axis]), name=f"k{axis}") for axis in axes}
    kept = [axis for axis in range(len(x.shape)) if keepdims or axis not in loops]

    def element(*place: Any) -> Any:
        at = dict(zip(kept, place, strict=True)) | loops
        return reduce(tuple(at[axis] for axis in range(len(x.shape))), list(loops.values()))

    return te.compute([1 if axis in loops else x.shape[axis] for axis in kept], element, name=name)

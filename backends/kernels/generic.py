"""A sane schedule for operators that have no family here: outer loops over threads, the innermost
vectorised.
"""

from __future__ import annotations

from typing import Any

from tvm import IRModule, tirx
from tvm.s_tir import Schedule, ScheduleError

from .loops import SCHEDULED

__all__ = ["is_general", "schedule_foreign"]

_GENERAL = "reconvene.general"
"""Attribute of functions that are scheduled here."""


def is_general(function: Any) -> bool:
    """Whether a function was scheduled here, or by nobody, and is no kernel of a family."""
    attributes = function.attrs or {}
    return isinstance(function, tirx.PrimFunc) and (_GENERAL in attributes or SCHEDULED not in attributes)


def schedule_foreign(module: IRModule, lanes: int) -> IRModule:
    """Schedules every function of `module` that no family has finished."""
    for name, function in module.functions_items():
        if isinstance(function, tirx.PrimFunc) and not (function.attrs and SCHEDULED in function.attrs):
            module.update_func(name, _scheduled(function, lanes).with_attr(_GENERAL, True))
    return module


def _scheduled(function: tirx.PrimFunc, lanes: int) -> tirx.PrimFunc:
    """`function` with injective stages inlined and every remaining block parallel and vectorised where it
    allows.
    """
    schedule = Schedule(function.with_attr("global_symbol", "main"))
    try:
        root = schedule.get_sblock("root")
    except ScheduleError:
        return function.with_attr(SCHEDULED, True)  # Written out loop by loop, as TVM's searches are.
    for block in schedule.get_child_blocks(root)[:-1]:
        # Whether a stage can be inlined is TVM's to decide; a stage that cannot stays a loop of its own.
        try:
            schedule.compute_inline(block)
        except ScheduleError:
            continue
    for block in schedule.get_child_blocks(root):
        _schedule_block(schedule, block, lanes)
    result = schedule.mod["main"].with_attr(SCHEDULED, True)
    symbol = function.attrs["global_symbol"] if function.attrs and "global_symbol" in function.attrs else None
    return result.with_attr("global_symbol", symbol) if symbol else result.without_attr("global_symbol")


def _schedule_block(schedule: Any, block: Any, lanes: int) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
    if not loops or len(kinds) != len(loops) or any(kind not in (0, 2) for kind in kinds):
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 0]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == 2]
    if not spatial:
        return
    if not reduced:
        _schedule_map(schedule, spatial, lanes)
    elif len(spatial) > 1 and _extent(schedule, spatial[-1]) % lanes == 0 and len(schedule.get(block).writes) == 1:
        _schedule_wide_reduction(schedule, block, spatial, reduced, lanes)
    else:
        schedule.reorder(*spatial, *reduced)
        schedule.parallel(schedule.fuse(*spatial))


def _extent(schedule: Any, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _schedule_map(schedule: Any, spatial: list[Any], lanes: int) -> None:
    fused = schedule.fuse(*spatial)
    if _extent(schedule, fused) % lanes:
        schedule.parallel(fused)
        return
    outer, inner = schedule.split(fused, [None, lanes])
    schedule.parallel(outer)
    schedule.vectorize(inner)


def _schedule_wide_reduction(schedule: Any, block: Any, spatial: list[Any], reduced: list[Any], lanes: int) -> None:
    """Keeps a vector of neighbouring results through the reduction.

    Of one value: those of several, as of a maximum and its place, are bound to variables before they are stored, and TVM's
    vectorised loops keep but one lane of a variable.
    """
    outer, inner = schedule.split(spatial[-1], [None, lanes])
    schedule.reorder(*spatial[:-1], outer, *reduced, inner)
    schedule.parallel(schedule.fuse(*spatial[:-1], outer))
    schedule.vectorize(inner)
    start = schedule.decompose_reduction(block, reduced[0])
    schedule.vectorize(schedule.get_loops(start)[-1])

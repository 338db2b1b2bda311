"""A table of what a network's layers take on a target, dense and by structure and share of zeros; filled where it is asked.

Every entry is found once, for one call of a layer's form, and kept on disk with the versions of all that it depends on.
Between the shares of `GRID` times are linear in the share, and no share takes longer than a smaller one: whatever more zeros
there are can be stored as if they were weights.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tvm
from torch import fx

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...passes.structures import Structure, check_share
from ...passes.weight_views import WeightView, weight_views
from ..boards.place import Place
from ..choosing.kept_file import KeptFile
from ..code.code_version import code_version
from ..compile import imported_module
from ..judges import cost_unit, kernel_cost, winograd_for
from ..machines.targets import Target, find_target
from ..network_times import check_timed_by
from .forms import Form
from .measuring import Call, LayerTime, Measuring

__all__ = ["GRID", "Asked", "LatencyTable", "TableLayer", "latency_table"]

GRID = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Shares of zeros that are tried; 0 is the dense layer, and beyond the last one times are those of the last."""

Asked = tuple[str, Structure, float]
"""The name of a weight, a structure that fits it, and a share of zeros, which a structure that says it itself goes before."""


_Point = tuple[Structure, float] | None
"""What is tried: a structure with a share of zeros, or the dense layer."""


@dataclass(frozen=True)
class TableLayer:
    """A convolution or linear layer of the network.

    Attributes:
        name: of its weight.
        view: of the weight.
        forms: of every call.
    """

    name: str
    view: WeightView
    forms: tuple[Form, ...]


class LatencyTable:
    """Times of the layers of one network. What has no kernel of ours is not in it."""

    def __init__(self, views: Sequence[WeightView], measuring: Measuring, kept: KeptFile, unit: str) -> None:
        """`unit`: ``s`` where kernels are timed, else ``cycles``."""
        self.unit = unit
        self.layers = tuple(
            TableLayer(view.name, view, measuring.forms[view.name])
            for view in views
            if view.name in measuring.forms and not view.unlike
        )
        """In the order of the network."""
        self._by_name = {layer.name: layer for layer in self.layers}
        self._measuring, self._kept = measuring, kept
        (self._entries,) = kept.read("times")

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def dense(self, name: str) -> LayerTime:
        """What all calls of a layer take without zeros."""
        self.fill([], [name])
        return _together([self._found(form) for form in self._by_name[name].forms])

    def sparse(self, name: str, structure: Structure, share: float) -> LayerTime:
        """What all calls of a layer take with a share of zeros of a structure, which must fit it. The kernel is that of the
        next larger share that was tried.
        """
        self.fill([(name, structure, share)])
        return _together([self._between(form, structure, share) for form in self._by_name[name].forms])

    def fill(self, asked: Iterable[Asked], dense: Collection[str] = ()) -> None:
        """Finds all that is not known yet for these, and for these layers without zeros."""
        points: dict[_Point, dict[Form, Call]] = {}
        for name, structure, share in asked:
            for tried in _tried(structure, share):
                self._note(points, name, (structure, tried) if tried else None)
        for name in dense:
            self._note(points, name, None)
        for point, calls in points.items():
            if calls:
                self._measure(point, calls)

    def _note(self, points: dict[_Point, dict[Form, Call]], name: str, point: _Point) -> None:
        calls = points.setdefault(point, {})
        for number, form in enumerate(self._by_name[name].forms):
            if _read(self._entries.get(_key(form, point))) is None:
                calls.setdefault(form, (name, number))

    def _measure(self, point: _Point, calls: Mapping[Form, Call]) -> None:
        what = "without zeros" if point is None else f"with {point[1]:.0%} zeros of {point[0]}"
        with stage(f"times of {len(calls)} layer{'s' * (len(calls) > 1)} {what}"):
            if point is None:
                found = self._measuring.dense(calls)
            else:
                views = {name: self._by_name[name].view for name, _ in calls.values()}
                found = self._measuring.sparse(calls, views, *point)
        made = {_key(form, point): _written(form, entry) for form, entry in found.items()}
        self._entries.update(made)
        self._kept.write({"times": made})

    def _found(self, form: Form, point: _Point = None) -> LayerTime:
        entry = _read(self._entries[_key(form, point)])
        assert entry is not None
        return entry

    def _between(self, form: Form, structure: Structure, share: float) -> LayerTime:
        """By the line between the two shares around it, of the least that they or smaller ones take."""
        points = _tried(structure, share)
        entries = [self._found(form, (structure, point) if point else None) for point in points]
        least = entries[0]
        before = least
        for entry in entries[1:]:
            before, least = least, min(least, entry, key=lambda one: one.time)
        if structure.fixed_sparsity is not None or share >= points[-1] or len(points) == 1:
            return least
        part = (share - points[-2]) / (points[-1] - points[-2])
        return replace(least, time=before.time + part * (least.time - before.time))


def latency_table(
    module: fx.GraphModule,
    inputs: tuple[Any, ...],
    target: str | Target,
    timed_by: str = "model",
    on: Place | None = None,
    folder: Path | None = None,
) -> LatencyTable:
    """For a captured, canonical module that is called with `inputs`, on one core.

    Args:
        timed_by: ``model`` counts cycles by a formula, ``cycles`` takes what is modelled of the emulated code, ``time`` has
            this machine's clock.
        on: with ``time``, the board whose clock it is.
        folder: in place of the user's cache folder.

    Raises:
        CaptureError: it cannot be compiled.
        InputError: there is no such target, or nobody who could tell its times so.
    """
    found = find_target(target)
    if on is None:
        check_timed_by(found, timed_by)
    elif timed_by != "time":
        raise InputError(
            f"a board tells times by its clock, and '{timed_by}' needs none; take time, or leave the board out"
        )
    llvm = tvm.target.Target(found.llvm())
    cost, cache = (None, None) if timed_by == "model" else kernel_cost(timed_by, found, llvm, 1, on)
    measuring = Measuring(imported_module(module, inputs), found.machine, winograd_for(found), cost, cache)
    judge = f"{timed_by} on {on}" if on is not None else timed_by
    setting = (str(llvm), found.mca_cpu, repr(measuring.machine), winograd_for(found), judge, code_version())
    views = weight_views(module)
    return LatencyTable(views, measuring, KeptFile.of("layer-times", setting, folder), cost_unit(timed_by, found, on))


def _tried(structure: Structure, share: float) -> tuple[float, ...]:
    """The shares that tell a structure's time at this one: all of the grid from 0 up to the first that is not below."""
    check_share(share)
    if structure.fixed_sparsity is not None:
        return (0.0, structure.fixed_sparsity)
    return GRID[: min(bisect_left(GRID, share), len(GRID) - 1) + 1]


def _key(form: Form, point: _Point) -> str:
    return f"{form.key} dense" if point is None else f"{form.key} {point[0]}@{point[1]:g}"


def _together(times: Sequence[LayerTime]) -> LayerTime:
    """Of all calls of a weight; the kernel is the first one's."""
    return replace(times[0], time=math.fsum(time.time for time in times))


def _written(form: Form, entry: LayerTime) -> dict[str, Any]:
    """With the layer in words, for a person who reads the file."""
    return {"layer": str(form), "time": entry.time, "kernel": entry.kernel, "planes": entry.planes}


def _read(entry: object) -> LayerTime | None:
    """None for what is no entry."""
    if not isinstance(entry, dict):
        return None
    time, kernel, planes = (entry.get(name) for name in ("time", "kernel", "planes"))
    if isinstance(time, bool) or not isinstance(time, int | float) or not (math.isfinite(time) and time >= 0):
        return None
    return LayerTime(float(time), kernel, planes) if isinstance(kernel, str) and isinstance(planes, bool) else None

"""The differential check of one program: masked in float64 against compacted, and against what was saved and loaded."""

from __future__ import annotations

import re
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from reconvene.frontend.base.errors import CheckError, ReconveneError
from reconvene.frontend.program_file import load_program, save_program
from reconvene.passes.compaction import apply_plan, compact
from reconvene.passes.plan import Plan

from .building import ProgramModule, built, captured
from .program import Program, evaluate, input_values, mask_tensors, stored_values

__all__ = ["FAILURES", "TOLERANCE", "Outcome", "check"]

TOLERANCE = 1e-12
"""Largest difference allowed in float64, relative to the largest entry of each output."""

FAILURES = ("mismatch", "exception")

_UNSEEN = 1_000
_NOISE = 1e-15
_NOISY_RUNS = 6
_AMPLIFIED = 1_000.0
"""A difference this many times what rounding noise in the masked graph does to its own outputs is not rounding."""

Tensor = torch.Tensor


@dataclass(frozen=True)
class Outcome:
    """What the check found.

    Attributes:
        kind: ``exact``; ``refused`` (an error for a person, with its reason); ``unstable`` (the masked graph itself
            changes by as much when its values are rounded otherwise, or is not finite, so that nothing can be
            compared); ``mismatch``; ``exception``.
        stage: where: ``compact``, ``outputs``, ``plan``, ``file``.
        message: one line.
        relative: largest relative difference.
        removed: share of the parameters that went.
        refusals: removals that were asked for and not done, as reasons without names.
        barriers: operators that held channels in place.
    """

    kind: str
    stage: str = ""
    message: str = ""
    relative: float = 0.0
    removed: float = 0.0
    refusals: tuple[str, ...] = ()
    barriers: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Returns if this is a bug."""
        return self.kind in FAILURES


def check(program: Program, *, through_capture: bool = False, files: bool = False, plans: bool = True) -> Outcome:
    """Compacts the program under its masks and compares.

    Args:
        program: a program with masks.
        through_capture: capture an nn.Module with torch.export instead of making the graph directly.
        files: also save the compacted graph as a ``.pt2`` file, load it, and compare.
        plans: also save the plan, load it, apply it to a fresh copy of the graph, and compare.
    """
    masks = mask_tensors(program)
    inputs = input_values(program, _UNSEEN)
    with torch.no_grad():
        expected = _tensors(ProgramModule(program, masks)(*inputs))
    stage = "capture"
    try:
        graph = captured(program) if through_capture else built(program)
        example = input_values(program, 0)
        stage = "compact"
        try:
            result = compact(graph, example, masks)
        except CheckError as error:
            return _differing(program, masks, expected, float("inf"), "compact", str(error))
        result.module.graph.lint()
        stage = "outputs"
        relative = _difference(expected, _run(result.module, inputs))
        if _others(result.module(*inputs)) != list(program.extra):
            return Outcome("mismatch", stage, f"{_others(result.module(*inputs))} beside the tensors")
        if not relative <= TOLERANCE:
            return _differing(program, masks, expected, relative, stage, f"outputs differ by {relative:.1e}")
        if plans:
            stage = "plan"
            again = _replayed(result.plan, graph, example)
            if not _identical(_run(result.module, inputs), _run(again, inputs)):
                return Outcome("mismatch", stage, "the loaded plan gives other outputs")
        if files:
            stage = "file"
            loaded = _reloaded(result.module, example)
            found = _difference(_run(result.module, inputs), _run(loaded, inputs))
            if not found <= TOLERANCE:
                return Outcome("mismatch", stage, f"the loaded file's outputs differ by {found:.1e}", found)
    except ReconveneError as error:
        return Outcome("refused", stage, _nameless(str(error)))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = (str(error).strip().splitlines() or [""])[0]
        return Outcome(
            "exception", stage, f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {line}"
        )
    before = result.before.parameters
    return Outcome(
        "exact",
        relative=relative,
        removed=1.0 - result.after.parameters / before if before else 0.0,
        refusals=tuple(dict.fromkeys(_nameless(reason) for group in result.groups for reason in group.reasons)),
        barriers=tuple(sorted({barrier.operator for barrier in result.barriers})),
    )


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _others(values: Any) -> list[Any]:
    return [leaf for leaf in pytree.tree_leaves(values) if not isinstance(leaf, Tensor)]


def _run(module: fx.GraphModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    torch.manual_seed(0)  # As `evaluate` does.
    with torch.no_grad():
        return _tensors(module(*(value.clone() for value in inputs)))


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Largest difference relative to the largest entry of each output; infinite where shapes or types differ."""
    if [(a.shape, a.dtype) for a in expected] != [(b.shape, b.dtype) for b in found]:
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.numel() and not torch.equal(a, b):
            one, other = a.double(), b.double()
            same = (one == other) | (one.isnan() & other.isnan())
            gap, finite = torch.where(same, 0.0, (one - other).abs()), one[one.isfinite()]
            found_here = float(gap.max()) / ((float(finite.abs().max()) if finite.numel() else 0.0) or 1.0)
            worst = max(worst, found_here) if found_here == found_here else float("inf")
    return worst


def _identical(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return _difference(one, other) == 0.0


def _differing(
    program: Program, masks: dict[str, Tensor], expected: Sequence[Tensor], relative: float, stage: str, message: str
) -> Outcome:
    """A mismatch, unless the masked graph does not determine its own outputs any better."""
    named = re.search(r"masked one by ([0-9.e+-]+)", message)
    size = float(named.group(1)) if named and relative == float("inf") else relative
    noise = _sensitivity(program, masks, expected, (_UNSEEN, 0))
    if size <= _AMPLIFIED * noise:
        return Outcome("unstable", stage, f"{message}; rounding noise alone changes them by {noise:.1e}", relative)
    return Outcome("mismatch", stage, message, relative)


def _sensitivity(
    program: Program, masks: dict[str, Tensor], expected: Sequence[Tensor], seeds: tuple[int, ...]
) -> float:
    """How far the masked graph's outputs move when every value in it is rounded otherwise.

    Monte Carlo arithmetic (D. S. Parker, 1997): each entry of each intermediate result is multiplied by one plus a random
    number of the size of the machine's rounding error. Exact zeros stay zero.
    """
    stored = stored_values(program)
    for name, mask in masks.items():
        stored[name][~mask] = 0.0
    generator = torch.Generator().manual_seed(0)

    def noisy(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(noisy(item) for item in value) if type(value) in (tuple, list) else value
        if not isinstance(value, Tensor) or not value.is_floating_point() or value._is_view():
            return value
        return value * (1.0 + _NOISE * torch.randn(value.shape, generator=generator, dtype=value.dtype))

    worst = 0.0
    with torch.no_grad():
        for seed in seeds:
            inputs = input_values(program, seed)
            plain = _tensors(evaluate(program, inputs, _copies(stored)))
            for _ in range(_NOISY_RUNS):
                worst = max(worst, _difference(plain, _tensors(evaluate(program, inputs, _copies(stored), noisy))))
    return worst


def _copies(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in stored.items()}


def _replayed(plan: Plan, graph: fx.GraphModule, example: Sequence[Any]) -> fx.GraphModule:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        plan.save(path)
        return apply_plan(Plan.load(path), graph, example).module


def _reloaded(module: fx.GraphModule, example: Sequence[Any]) -> fx.GraphModule:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compacted.pt2"
        save_program(module, example, path)
        return load_program(path)[0]


def _nameless(reason: str) -> str:
    """A reason without the names and numbers of one graph, so that reasons can be counted."""
    reason = re.sub(r"'[^']*'", "'...'", reason)
    reason = re.sub(r" at \S*/", " at ", reason)  # The folder of the file.
    reason = re.sub(r"\b[a-z]+(_[a-z0-9]+)*_?\d+(_[a-z0-9]+)*\b", "...", reason)
    return re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", reason)

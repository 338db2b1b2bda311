"""Random masks of five kinds, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import fx

from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.dependency import dependency_view
from reconvene.passes.structures import Structure, find_structure
from reconvene.passes.weight_views import WeightView, weight_views

from .choices import Choices, chance, pick, sample
from .program import Mask, Program, Stored

__all__ = ["KINDS", "masked"]

KINDS = ("M1", "M2", "unstructured", "branches", "structures")
STRUCTURES = (
    "unstructured", "row-block:2", "row-block:4", "block-column:2", "block-row:2", "bcr:2x2", "block-punched:2x2",
    "pattern", "pattern:8:2", "connectivity", "connectivity:2", "1:2", "2:4", "1:4:2", "dot:2",
)  # fmt: skip
"""Small sizes of all families of zeros, so that some fit."""


def masked(program: Program, graph: fx.GraphModule, choices: Choices, kinds: Sequence[str] = KINDS) -> Program:
    """The program with random masks.

    M1 zeroes filters of whole channel groups, biases and normalisation stay; M2 zeroes all that makes a channel.
    ``unstructured`` zeroes single weights, rows and columns of each tensor by itself; ``branches`` zeroes filters of each
    tensor by itself, so that branches that meet do not agree. ``structures`` are those of `passes.structures`, another one for
    each weight.

    Args:
        program: a program without masks.
        graph: the same as a captured graph, which says what the channel groups are.
        choices: what decides.
        kinds: of masks that are drawn from.
    """
    kind = pick(choices, kinds)
    if kind in ("M1", "M2"):
        masks = _of_groups(program, graph, choices, kind)
    elif kind == "structures":
        shapes = {stored.name: stored.shape for stored in _parameters(program)}
        views = [view for view in weight_views(canonicalize(graph)) if view.name in shapes and not view.unlike]
        masks = [mask for view in views for mask in _of_structure(view, shapes[view.name], choices)]
    else:
        masks = [mask for stored in _parameters(program) for mask in _alone(stored, choices, kind)]
    return replace(program, masks=tuple(masks), kind=kind)


def _parameters(program: Program) -> list[Stored]:
    return [stored for stored in program.stored if stored.kind == "normal" and stored.shape]


def _of_groups(program: Program, graph: fx.GraphModule, choices: Choices, kind: str) -> list[Mask]:
    shapes = {stored.name: stored.shape for stored in _parameters(program)}
    masks: dict[tuple[str, int], set[int]] = {}
    for group in dependency_view(canonicalize(graph)).groups:
        if not group.prunable:
            continue
        each = group.size // group.blocks
        if each < 2 or chance(choices, 10):
            continue
        count = choices.integer(1, each - 1)
        dropped = np.zeros((group.blocks, each), bool)
        for block in dropped:
            block[list(sample(choices, each, count))] = True
        for part in group.slices:
            shape = shapes.get(part.parameter, ())
            if part.role != "producer" or not shape or (kind == "M1" and len(shape) == 1):
                continue
            positions = part.positions[dropped.reshape(-1)]
            masks.setdefault((part.parameter, part.axis), set()).update(positions[positions >= 0].tolist())
    return [
        Mask(name, axis, tuple(sorted(dropped)))
        for (name, axis), dropped in masks.items()
        if dropped and (len(shapes[name]) == 1 or len(dropped) < shapes[name][axis])
    ]


def _of_structure(view: WeightView, shape: tuple[int, ...], choices: Choices) -> list[Mask]:
    """The zeros of a structure that fits, if any does, by random scores."""
    fitting: list[Structure] = [one for one in map(find_structure, STRUCTURES) if not one.fits(view.shape)]
    if not fitting or chance(choices, 10):
        return []
    structure, share = pick(choices, fitting), pick(choices, (0.5, 0.8, 0.2))
    scores = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(choices.integer(0, 999)))
    kept = view.stored(structure.mask(view.seen(scores), share))
    dropped = tuple((~kept).reshape(-1).nonzero()[:, 0].tolist())
    return [Mask(view.name, None, dropped)] if dropped else []


def _alone(stored: Stored, choices: Choices, kind: str) -> list[Mask]:
    """Masks of one tensor that leave something of it."""
    shape = stored.shape
    if chance(choices, 25):
        return []
    masks = []
    rows = shape[0]
    if len(shape) > 1 and rows > 1 and (kind == "branches" or chance(choices, 70)):
        masks.append(Mask(stored.name, 0, sample(choices, rows, choices.integer(1, rows - 1))))
    if kind == "branches":
        return masks
    if len(shape) > 1 and shape[1] > 1 and chance(choices, 40):
        masks.append(Mask(stored.name, 1, sample(choices, shape[1], choices.integer(1, shape[1] - 1))))
    entries = math.prod(shape)
    if entries > 1 and chance(choices, 50):
        seed = choices.integer(0, 999)
        generator = np.random.default_rng(seed)
        kept = generator.random(entries) >= pick(choices, (0.3, 0.6, 0.1))
        kept[generator.integers(entries)] = True
        masks.append(Mask(stored.name, None, tuple(np.flatnonzero(~kept).tolist())))
    return [mask for mask in masks if mask.dropped] if _leaves_something(shape, masks) else []


def _leaves_something(shape: tuple[int, ...], masks: list[Mask]) -> bool:
    kept = np.ones(shape, bool)
    for mask in masks:
        if mask.axis is None:
            kept.reshape(-1)[list(mask.dropped)] = False
        else:
            kept[(slice(None),) * mask.axis + (list(mask.dropped),)] = False
    return bool(kept.any())

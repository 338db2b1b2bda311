"""What tests of exactness share: random weights, random masks, and a reference that uses none of the code under test."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import DependencyView, dependency_view
from reconvene.passes.outcome import Compaction

from .untouched import untouched

__all__ = [
    "EXACT",
    "Exactness",
    "assert_exact",
    "assert_same_outputs",
    "channel_masks",
    "fresh_like",
    "masked_copy",
    "randomise",
    "unstructured_masks",
    "view_of",
    "widths",
]

EXACT = 1e-12
"""Largest difference allowed in float64, relative to the largest output."""

Masks = dict[str, torch.Tensor]


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random values in every statistic, every bias and every parameter that starts as a constant; in inference mode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)

    for parameter in model.parameters():
        plain = parameter.dim() < 2 or bool((parameter == parameter.flatten()[0]).all())
        if plain:
            parameter.data = normal(parameter) * 0.5 + parameter.detach().mean()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.data = torch.rand(buffer.shape, generator=generator, dtype=torch.float64).to(buffer.dtype) + 0.5
        elif name.endswith("running_mean"):
            buffer.data = normal(buffer) * 0.5
    return model.eval()


def view_of(model: nn.Module, inputs: Sequence[Any], dynamic_shapes: Any = None) -> DependencyView:
    """The dependency view of a model."""
    return dependency_view(canonicalize(capture(model, tuple(inputs), dynamic_shapes)))


def channel_masks(view: DependencyView, kind: str, share: float = 0.5, seed: int = 0) -> Masks:
    """Masks that drop a random share of every prunable group's channels, equally many in every block.

    M1 zeroes filters only: biases and normalisation stay. M2 zeroes all that makes a channel.
    """
    assert kind in ("M1", "M2")
    generator = np.random.default_rng(seed)
    masks: Masks = {}
    for group in view.groups:
        if not group.prunable:
            continue
        each = group.size // group.blocks
        dropped = np.zeros((group.blocks, each), bool)
        for block in dropped:
            block[generator.permutation(each)[: int(each * share)]] = True
        for part in group.slices:
            shape = tuple(view.stored[part.parameter].meta["val"].shape)
            if part.role != "producer" or (kind == "M1" and len(shape) == 1):
                continue
            mask = masks.setdefault(part.parameter, torch.ones(shape, dtype=torch.bool))
            positions = part.positions[dropped.reshape(-1)]
            mask.index_fill_(part.axis, torch.from_numpy(positions[positions >= 0]), False)
    return masks


def unstructured_masks(model: nn.Module, share: float, seed: int) -> Masks:
    """Single weights at random, and whole filters of each weight at random: every layer by itself, nothing aligned."""
    generator = torch.Generator().manual_seed(seed)
    masks: Masks = {}
    for name, parameter in model.named_parameters():
        mask = torch.rand(parameter.shape, generator=generator) >= share / 2
        if parameter.dim() > 1:
            rows = torch.rand(parameter.shape[0], generator=generator) >= share
            rows[int(torch.randint(len(rows), (), generator=generator))] = True
            mask &= rows.reshape(-1, *(1,) * (parameter.dim() - 1))
            if not mask.any():
                mask.reshape(-1)[0] = True
        masks[name] = mask
    return masks


def masked_copy(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of `model` in float64 and inference mode with the masked entries set to zero by plain assignment."""
    reference = copy.deepcopy(model).double().eval()
    parameters = dict(reference.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name][~mask] = 0.0
    return reference


def fresh_like(inputs: Sequence[Any], seed: int) -> tuple[Any, ...]:
    """Random inputs of the same shapes; whole numbers and other values stay as they are."""
    generator = torch.Generator().manual_seed(seed)

    def fresh(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return torch.randn(value.shape, generator=generator, dtype=torch.float64)
        return value

    result: tuple[Any, ...] = pytree.tree_map(fresh, tuple(inputs))
    return result


def assert_same_outputs(expected: Any, found: Any, tolerance: float = EXACT) -> None:
    """Same structure, same shapes, and values equal relative to the largest one of each tensor."""
    left, left_spec = pytree.tree_flatten(expected)
    right, right_spec = pytree.tree_flatten(found)
    assert left_spec == right_spec
    for a, b in zip(left, right, strict=True):
        if not isinstance(a, torch.Tensor):
            assert a == b
            continue
        assert a.shape == b.shape
        assert a.isfinite().all(), "the reference itself is not finite: this comparison would show nothing"
        largest = float(a.double().abs().max()) if a.numel() else 0.0
        difference = float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
        assert difference <= tolerance * (largest or 1.0), f"differs by {difference:.2e} of {largest:.2e}"


def assert_exact(
    model: nn.Module,
    inputs: Sequence[Any],
    masks: Mapping[str, torch.Tensor] | str | None = None,
    *,
    share: float = 0.5,
    seed: int = 0,
    dynamic_shapes: Any = None,
    tolerance: float = EXACT,
) -> Compaction:
    """Compacts in float64 and compares with the masked original, run eagerly on inputs nobody has seen.

    `masks` may be ``M1`` or ``M2`` for `channel_masks` of that kind.
    """
    return Exactness(model, inputs, dynamic_shapes).check(masks, share=share, seed=seed, tolerance=tolerance)


class Exactness:
    """`assert_exact` for several masks of one model, which is captured once."""

    def __init__(self, model: nn.Module, inputs: Sequence[Any], dynamic_shapes: Any = None) -> None:
        self.model = copy.deepcopy(model).double().eval()
        self.example = fresh_like(inputs, 100)
        with untouched(self.model, self.example):
            self.graph = capture(self.model, self.example, dynamic_shapes)

    @cached_property
    def view(self) -> DependencyView:
        """What masks by groups of channels are made from."""
        return dependency_view(canonicalize(self.graph))

    def masks(self, kind: str, share: float = 0.5, seed: int = 0) -> Masks:
        """See `channel_masks`."""
        return channel_masks(self.view, kind, share, seed)

    def check(
        self,
        masks: Mapping[str, torch.Tensor] | str | None = None,
        *,
        share: float = 0.5,
        seed: int = 0,
        tolerance: float = EXACT,
    ) -> Compaction:
        """Compacts and compares; see `assert_exact`."""
        if isinstance(masks, str):
            masks = self.masks(masks, share, seed)
        result = compact(self.graph, self.example, masks)
        result.module.graph.lint()
        unseen = fresh_like(self.example, seed + 200)
        with torch.no_grad():
            assert_same_outputs(masked_copy(self.model, masks or {})(*unseen), result.module(*unseen), tolerance)
        return result


def widths(result: Compaction) -> dict[str, int]:
    """Output channels of every weighted layer after compaction."""
    return {layer.name: layer.channels_after for layer in result.layers}

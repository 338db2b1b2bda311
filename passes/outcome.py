"""What a compaction says about itself: sizes, layers, groups, barriers, and the certificate.

These are plain frozen records, so that reports, command line and tests read the same facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx

    from .plan import Plan

__all__ = ["Barrier", "Certificate", "Compaction", "GroupOutcome", "LayerWidth", "LayerZeros", "Size"]


@dataclass(frozen=True)
class Barrier:
    """An operator that holds channels in place, and why."""

    node: str
    operator: str
    reason: str
    source: str | None
    """Where in the model's code it was called, ``file.py:12``, if that was recorded."""
    blocks: tuple[str, ...] = ()
    """Parameters whose output channels it keeps from being removed."""


@dataclass(frozen=True)
class Size:
    """Parameters (trainable scalars), MACs (multiply-accumulates of one forward pass), bytes (parameters and buffers)."""

    parameters: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class LayerWidth:
    """One convolution, linear or other weighted operator before and after."""

    name: str
    operator: str
    channels_before: int
    channels_after: int
    size_before: Size
    size_after: Size


@dataclass(frozen=True)
class GroupOutcome:
    """What was asked of one channel group, what was got, and why not more."""

    name: str
    channels: int
    asked: int
    got: int
    reasons: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class LayerZeros:
    """The zeros of one weight of a convolution, a linear or a recurrent layer."""

    name: str
    """Of the weight."""
    shape: tuple[int, ...]
    weights: int
    zeros: int
    structure: str | None
    """What the zeros (or values) are, found from the weight alone; None where it has none."""
    storage: Mapping[str, int]
    """Bytes by format: ``dense``, and where zeros are worth it ``csr`` and the structure's own."""
    asked: str | None = None
    """The structure that it was given, with its own share of zeros where one was said: ``row-block:4@0.8``."""
    reason: str = ""
    """Why it was left dense, where structures were asked for."""


@dataclass(frozen=True)
class Certificate:
    """The check that compared the compacted graph with the masked one on generated inputs."""

    dtype: str
    """The floating type both ran in; the model's own where it does not run in a wider one."""
    inputs: tuple[tuple[str, ...], ...]
    """For every run, the shapes of its inputs as text, such as ``("1x3x224x224",)``."""
    seed: int
    max_absolute: float
    max_relative: float
    """Largest absolute difference divided by the largest absolute output of the masked graph."""
    tolerance: float
    seconds: float
    kinds: tuple[str, ...] = ()
    """For every run, the kind of its inputs (see `check_inputs`), such as ``one row false``."""


@dataclass(frozen=True)
class Compaction:
    """A compacted graph with everything that was found out on the way."""

    module: fx.GraphModule
    plan: Plan
    certificate: Certificate
    before: Size
    after: Size
    layers: tuple[LayerWidth, ...]
    groups: tuple[GroupOutcome, ...]
    barriers: tuple[Barrier, ...]
    refusals: tuple[str, ...]
    """Removals that were possible by the zeros but not done, each with its reason."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by phase: capture, analysis, rewrite, certificate."""
    zeros: tuple[LayerZeros, ...] = ()
    """Those that are left in the weights, layer by layer; none where no weight has any."""
    notes: tuple[str, ...] = ()
    """What else a reader must not miss, such as layers that lose what was said of others."""

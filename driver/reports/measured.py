"""What is measured before and after a pruning, as records."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fact", "Latency", "Speed"]


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass, measured side by side with the others of the same report."""

    engine: str
    """``reconvene``, ``tvm-default`` or ``eager``."""
    variant: str
    """``dense`` or ``compacted``."""
    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    threads: int
    batch: int


@dataclass(frozen=True)
class Speed:
    """Latency before and after, of one engine."""

    engine: str
    before: Latency
    after: Latency


@dataclass(frozen=True)
class Fact:
    """Something else that was measured before and after, written for a person: top-1 ``18/20``, ``3/20``."""

    label: str
    before: str
    after: str

"""What a network computes beside the dense one that it was made of; the model's file keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Compute", "compute_of", "keep_compute"]

_PLACE = "compute"
"""In the ``meta`` of a captured module, which everything that is made of it gets, too."""


@dataclass(frozen=True)
class Compute:
    """Multiply-accumulates of a network that was made smaller, and of the dense one that it was made of, on equal inputs."""

    dense_macs: int
    macs: int

    @classmethod
    def made(cls, before: int, after: int, known: Compute | None) -> Compute | None:
        """That of a network that was made smaller. None where nothing is counted.

        Args:
            before: its multiply-accumulates before.
            after: the same after.
            known: what was said of it before; None where it was the dense network.
        """
        dense = before if known is None else round(before * known.dense_macs / known.macs)
        return cls(dense, after) if dense and after else None


def compute_of(module: Any) -> Compute | None:
    """What a captured module says that it computes, None if it says nothing."""
    found = getattr(module, "meta", {}).get(_PLACE)
    return found if isinstance(found, Compute) else None


def keep_compute(module: Any, compute: Compute | None) -> None:
    """Has a captured module say this of what it computes; None: nothing."""
    if compute is None:
        module.meta.pop(_PLACE, None)
    else:
        module.meta[_PLACE] = compute

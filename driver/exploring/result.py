"""What an exploration found: its variants, which of them are on the front, and which budgets none of a kind reaches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .page import exploration_page
from .record import Refusal, Variant

__all__ = ["Exploration", "front"]


def front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Names of the points that no other beats: none is as fast and as accurate, and better in one of these.

    Args:
        points: time and accuracy by name.
    """

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] <= other[0] and one[1] >= other[1]

    return tuple(name for name, point in points.items() if not any(beats(other, point) for other in points.values()))


@dataclass(frozen=True)
class Exploration:
    """The result of `explore`.

    Attributes:
        title: of the model.
        folder: that has a folder for each variant, with ``model.pt2``, a ``bundle`` and the log of the training.
        target: that times are of.
        told_by: who told them: ``time`` was measured, ``estimate`` and ``model`` are modelled.
        unit: of times: ``ms`` or ``cycles``.
        metric: what accuracies are.
        variants: the dense network, and then all that were made, the largest budget first.
        refusals: budgets that were not reached.
        settings: what the exploration was told.
    """

    title: str
    folder: Path
    target: str
    told_by: str
    unit: str
    metric: str
    variants: tuple[Variant, ...]
    refusals: tuple[Refusal, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def dense(self) -> Variant:
        """The network as it came."""
        return self.variants[0]

    @property
    def front(self) -> tuple[str, ...]:
        """Names of the variants that no other beats in time and accuracy."""
        return front({one.name: (one.time or 0.0, one.accuracy) for one in self.variants})

    def model(self, name: str) -> Path:
        """The file of a variant's network."""
        return self.folder / name / "model.pt2"

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        best = self.front
        return {
            "model": self.title,
            "target": self.target,
            "told_by": self.told_by,
            "unit": self.unit,
            "metric": self.metric,
            "settings": dict(self.settings),
            "variants": [{**asdict(one), "front": one.name in best} for one in self.variants],
            "front": list(best),
            "refusals": [asdict(one) for one in self.refusals],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def to_html(self) -> str:
        """One page that loads nothing from elsewhere."""
        return exploration_page(self.title, self.to_dict())

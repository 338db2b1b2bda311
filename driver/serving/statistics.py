"""What the server tells clients of other servers: the configuration of the model, and counts and times of its requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...backends.signature import TensorSpec
from ..portfolio.manifest import Portfolio
from .protocol import tensor_metadata

__all__ = ["Spent", "Statistics", "configuration"]


@dataclass(frozen=True)
class Spent:
    """Seconds of one request: in the queue, reading its inputs, computing, and writing its outputs."""

    queue: float
    input: float
    infer: float
    output: float


@dataclass
class _Duration:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def plain(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(1e9 * self.seconds)}


@dataclass
class _Counters:
    """Of one variant."""

    last: int = 0
    """When it last answered, in milliseconds since 1970."""
    success: _Duration = field(default_factory=_Duration)
    fail: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    compute_input: _Duration = field(default_factory=_Duration)
    compute_infer: _Duration = field(default_factory=_Duration)
    compute_output: _Duration = field(default_factory=_Duration)


class Statistics:
    """Counts and times of the inference requests of one server."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._portfolio = portfolio
        self._counters = {variant.name: _Counters() for variant in portfolio.variants}

    def answered(self, variant: str, seconds: float, spent: Spent) -> None:
        """Notes an answer of `variant`, and what of its `seconds` was spent on what."""
        found = self._counters[variant]
        found.last = time.time_ns() // 1_000_000
        found.success.add(seconds)
        found.queue.add(spent.queue)
        found.compute_input.add(spent.input)
        found.compute_infer.add(spent.infer)
        found.compute_output.add(spent.output)

    def failed(self, variant: str, seconds: float) -> None:
        """Notes a request that `variant` would have answered, and that was refused or failed."""
        self._counters[variant].fail.add(seconds)

    def plain(self, variants: Sequence[str]) -> dict[str, Any]:
        """As the protocol's extension for statistics lists them."""
        return {"model_stats": [self._of(variant) for variant in variants]}

    def _of(self, variant: str) -> dict[str, Any]:
        found = self._counters[variant]
        computed = {
            "compute_input": found.compute_input.plain(),
            "compute_infer": found.compute_infer.plain(),
            "compute_output": found.compute_output.plain(),
        }
        times = {"success": found.success.plain(), "fail": found.fail.plain(), "queue": found.queue.plain(), **computed}
        return {
            "name": self._portfolio.name,
            "version": variant,
            "last_inference": found.last,
            "inference_count": found.success.count,
            "execution_count": found.success.count,
            "inference_stats": times,
            "batch_stats": [{"batch_size": 1, **computed}] if found.success.count else [],
        }


def configuration(portfolio: Portfolio, platform: str, variants: Sequence[str]) -> dict[str, Any]:
    """The model as the protocol's extension for configurations describes it; its shapes are whole, batches included."""
    return {
        "name": portfolio.name,
        "platform": platform,
        "backend": "reconvene",
        "version_policy": {"specific": {"versions": list(variants)}},
        "max_batch_size": 0,
        "input": _described(portfolio.inputs),
        "output": _described(portfolio.outputs),
        "instance_group": [{"name": portfolio.name, "kind": "KIND_CPU", "count": 1}],
    }


def _described(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {"name": spec["name"], "data_type": f"TYPE_{spec['datatype']}", "dims": spec["shape"]}
        for spec in tensor_metadata(specs)
    ]

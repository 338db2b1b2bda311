"""What the server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from ..portfolio.manifest import Portfolio
from .limits import COUNTED
from .switcher import Switch

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one server, apart from those of any other in the process.

    Args:
        queue: gives the number of requests that wait or are computed.
    """

    def __init__(self, portfolio: Portfolio, queue: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._portfolio = portfolio
        self._requests = self._counter("requests", "Inference requests by HTTP status", "status")
        self._latency = Histogram(
            "reconvene_request_seconds",
            "Time in the queue and computation of answered requests",
            ["variant"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._switches = self._counter("switches", "Switches to a variant, done or failed", "variant", "outcome")
        self._switching = Histogram(
            "reconvene_switch_seconds",
            "Time of a switch by step",
            ["step"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._active = self._gauge("active_variant", "1 for the variant that answers", "variant")
        self._bytes = self._gauge("resident_bytes", "Bytes of weights of the variant that answers")
        self._gauge("queue_length", "Requests that wait or are computed").set_function(queue)
        self._connections = self._gauge("connections", "Connections that are open")
        self._limits = self._counter("limits", "Times that a limit was met, see the documentation", "limit")
        for limit in COUNTED:
            self._limits.labels(limit)

    def limit(self, name: str) -> None:
        """Counts a limit that was met, see `limits.COUNTED`."""
        assert name in COUNTED, name
        self._limits.labels(name).inc()

    def connections(self, count: Callable[[], int]) -> None:
        """From now on `count` tells how many connections are open."""
        self._connections.set_function(count)

    def request(self, status: int) -> None:
        self._requests.labels(str(status)).inc()

    def answered(self, variant: str, seconds: float) -> None:
        self._latency.labels(variant).observe(seconds)

    def switch(self, switch: Switch) -> None:
        done = switch.error is None
        # A name that a client made up must not become a label.
        known = any(variant.name == switch.wanted for variant in self._portfolio.variants)
        self._switches.labels(switch.wanted if known else "", "done" if done else "failed").inc()
        if done:
            for step in ("load", "warm", "swap", "free"):
                self._switching.labels(step).observe(getattr(switch, f"{step}_ms") / 1e3)
            self.active(switch.wanted)

    def active(self, name: str) -> None:
        for variant in self._portfolio.variants:
            self._active.labels(variant.name).set(variant.name == name)
        self._bytes.set(self._portfolio.variant(name).bytes)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"reconvene_{name}", help, labels, registry=self._registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"reconvene_{name}", help, labels, registry=self._registry)

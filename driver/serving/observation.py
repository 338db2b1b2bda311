"""What a policy is told of the server and its machine."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import psutil

__all__ = ["Choice", "Observation", "Power", "Window", "read_power"]


@dataclass(frozen=True)
class Choice:
    """A variant as a policy sees it.

    Attributes:
        cost: what one call costs beside the other variants: milliseconds, or multiply-accumulates if not all of them
            have been timed.
        memory: bytes it needs while it is loaded.
    """

    name: str
    cost: float
    memory: int


@dataclass(frozen=True)
class Power:
    """The battery and the warmest sensor; None where the machine has none.

    Attributes:
        charge: of the battery, 0..1.
        plugged: whether it is being charged, or need not be.
        celsius: of the warmest sensor.
    """

    charge: float | None = None
    plugged: bool | None = None
    celsius: float | None = None


@dataclass(frozen=True)
class Observation:
    """One look at the server.

    Attributes:
        seconds: a clock that never goes back.
        active: index of the variant that answers, in `choices`.
        choices: from the largest to the smallest.
        requests: answered by this variant within the window.
        p95_ms: of their times in the queue and the computation; None without requests.
        queue: requests that wait or are computed, the mean over the window's looks.
        busy: share of the window's time that was spent computing, 0..1.
        memory: bytes that can still be taken.
    """

    seconds: float
    active: int
    choices: tuple[Choice, ...]
    requests: int = 0
    p95_ms: float | None = None
    queue: float = 0.0
    busy: float = 0.0
    memory: int | None = None
    power: Power = Power()


class Window:
    """The last seconds of requests. It begins anew when another variant answers.

    Args:
        seconds: how far it goes back.
        clock: a clock that never goes back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._variant: str | None = None
        self._began = clock()
        self._rows: deque[tuple[float, float, float]] = deque()
        self._queues: deque[tuple[float, int]] = deque()

    def begin(self, variant: str) -> None:
        """From now on `variant` answers. Nothing happens if it did before."""
        if variant != self._variant:
            self._rows.clear()
            self._queues.clear()
            self._variant, self._began = variant, self._clock()

    def add(self, variant: str, seconds: float, busy: float) -> None:
        """A request that `variant` answered after `seconds`, `busy` of which were computation."""
        self.begin(variant)
        self._rows.append((self._clock(), seconds, busy))

    def look(self, queue: int) -> None:
        """Notes the queue's length."""
        self._queues.append((self._clock(), queue))

    def requests(self) -> int:
        """How many the window holds."""
        self._trim()
        return len(self._rows)

    def p95_ms(self) -> float | None:
        """The time that 95 of 100 requests stayed below or at; of the nearest rank."""
        count = self.requests()
        if not count:
            return None
        times = sorted(seconds for _, seconds, _ in self._rows)
        return 1e3 * times[math.ceil(0.95 * count) - 1]

    def mean_seconds(self) -> float:
        """Of a computation; 0 without any."""
        self._trim()
        return sum(busy for *_, busy in self._rows) / len(self._rows) if self._rows else 0.0

    def busy(self) -> float:
        """Share of the window's time that was spent computing."""
        self._trim()
        length = min(self._seconds, self._clock() - self._began)
        return min(1.0, sum(busy for *_, busy in self._rows) / length) if length > 0 else 0.0

    def queue(self) -> float:
        """The mean of the lengths that `look` noted."""
        self._trim()
        return sum(length for _, length in self._queues) / len(self._queues) if self._queues else 0.0

    def _trim(self) -> None:
        oldest = self._clock() - self._seconds
        while self._rows and self._rows[0][0] < oldest:
            self._rows.popleft()
        while self._queues and self._queues[0][0] < oldest:
            self._queues.popleft()


def read_power() -> Power:
    """What this machine says of its battery and its temperature."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    celsius = [entry.current for entries in sensors.values() for entry in entries if entry.current is not None]
    return Power(
        charge=None if battery is None else battery.percent / 100,
        plugged=None if battery is None else battery.power_plugged,
        celsius=max(celsius, default=None),
    )

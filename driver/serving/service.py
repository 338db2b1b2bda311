"""A portfolio being served: the switcher, the queue, the policy, and what they tell the world."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from ...frontend.errors import InputError
from ..portfolio.manifest import Portfolio
from .engine import Engine
from .governor import Governor, Stance
from .memory import available_memory
from .metrics import Metrics
from .observation import Choice, Observation, Power, Window, read_power
from .policies import ByHand, Policy
from .state import commit, committed, default_state_file
from .statistics import Statistics
from .switcher import Switch, Switcher

__all__ = ["Service", "Settings"]

_REMEMBERED = 20
"""Switches that the status names."""


@dataclass(frozen=True)
class Settings:
    """How a portfolio is served.

    Attributes:
        target: whose bundles are loaded.
        variant: what answers first; None for the one that was served last, or else the largest that can be loaded.
        threads: of one computation.
        policy: which variant is best now.
        governor: when its wishes are granted.
        interval: seconds from one look of the policy to the next.
        window: seconds of requests that it sees.
        queue: requests that may wait or be computed.
        timeout: seconds that a request may take.
        body: bytes that a request may have.
        control: whether clients may switch variants.
        state: where the variant that is served is noted; None for the user's state folder.
    """

    target: str = "host"
    variant: str | None = None
    threads: int = 1
    policy: Policy = field(default_factory=ByHand)
    governor: Governor = field(default_factory=Governor)
    interval: float = 0.5
    window: float = 10.0
    queue: int = 64
    timeout: float = 30.0
    body: int = 64 << 20
    control: bool = True
    state: Path | None = None


class Service:
    """Answers requests and exchanges variants, without a network.

    Args:
        say: takes lines for whoever runs the server.
    """

    def __init__(self, portfolio: Portfolio, settings: Settings, say: Callable[[str], None]) -> None:
        self.portfolio, self.settings = portfolio, settings
        self._say = say
        self._state = settings.state or default_state_file(portfolio)
        self._window = Window(settings.window)
        self._choices = _choices(portfolio, settings.target)
        self._names = tuple(choice.name for choice in self._choices)
        self._stance = Stance()
        self._reason = "variants are chosen by hand"
        self._last = ""
        self._background: asyncio.Task[None] | None = None
        self.switches: deque[Switch] = deque(maxlen=_REMEMBERED)
        self.requests: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter(done=0, failed=0)
        self.switcher = Switcher(portfolio, target=settings.target, threads=settings.threads, changed=self._commit)
        self.engine = Engine(self.switcher, settings.queue, self._window)
        self.metrics = Metrics(portfolio, lambda: self.engine.pending)
        self.statistics = Statistics(portfolio)

    # What was done so far is in `switches` (the last few), `requests` (by HTTP status) and `outcomes` (of switches).

    @property
    def active(self) -> str:
        """The variant that answers, or was the last that did."""
        return self.switcher.active or self._last

    @property
    def reason(self) -> str:
        """What the policy last said."""
        return self._reason

    def counted(self, status: int) -> None:
        """Notes that an inference request got this HTTP status."""
        self.requests[status] += 1
        self.metrics.request(status)

    def fault(self, error: Exception) -> None:
        """Tells whoever runs the server of a fault of ours."""
        self._say(f"internal error: {type(error).__name__}: {' '.join(str(error).split())[:300]}; please report it")

    def load(self) -> None:
        """Loads the first variant.

        Raises:
            InputError: the variant that was asked for, or every one, cannot be loaded.
        """
        for switch in self.switcher.start(self._first()):
            self._note(switch)

    def open(self) -> None:
        """Begins to answer. The event loop must run."""
        self.engine.start()
        if not isinstance(self.settings.policy, ByHand):
            self._background = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Answers what waits, and unloads the variant."""
        if self._background is not None:
            self._background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._background
        await asyncio.to_thread(self.engine.close)
        await asyncio.to_thread(self.switcher.close)

    async def switch(self, name: str, why: str) -> Switch:
        """Exchanges the variant for `name`; what came of it."""
        found = await asyncio.wrap_future(self.switcher.switch(name, why))
        self._note(found)
        return found

    def _note(self, switch: Switch) -> None:
        if switch.wanted == switch.before:
            return
        self.switches.append(switch)
        self.metrics.switch(switch)
        self.outcomes["done" if switch.error is None else "failed"] += 1
        if switch.error is not None:
            self._say(f"cannot switch to '{switch.wanted}' ({switch.why}): {switch.error}")
            return
        self._last = switch.wanted
        self._window.begin(switch.wanted)
        before = 0 if switch.before is None else self._names.index(switch.before)
        after = self._names.index(switch.wanted)
        self._stance = self.settings.governor.switched(self._stance, before, after, monotonic())
        took = f"loaded in {switch.load_ms + switch.warm_ms:.0f} ms"
        self._say(f"'{switch.wanted}' answers ({switch.why}), {took}")

    def _commit(self, name: str) -> None:
        try:
            commit(self._state, self.portfolio, name)
        except InputError as error:
            # The switch stands; only a restart will not know of it.
            self._say(str(error))

    def _first(self) -> list[str]:
        """Variants to start with, in the order in which they are tried."""
        if self.settings.variant is not None:
            return [self.portfolio.variant(self.settings.variant).name]
        last = committed(self._state, self.portfolio)
        return [name for name in (last,) if name is not None] + [name for name in self._names if name != last]

    async def _watch(self) -> None:
        """Looks at the server, asks the policy, and grants its wishes."""
        while True:
            await asyncio.sleep(self.settings.interval)
            self._window.look(self.engine.pending)
            # Some sensors take their time, which is not to be that of requests.
            memory, power = await asyncio.to_thread(lambda: (available_memory(), read_power()))
            seen = self._observation(memory, power)
            wish = self.settings.policy.wish(seen)
            self._reason = wish.reason
            chosen = self.settings.governor.decided(self._stance, wish, seen)
            if chosen != seen.active:
                found = await self.switch(self._names[chosen], wish.reason)
                if found.error is not None:
                    self._stance = self.settings.governor.failed(self._stance, chosen, monotonic())

    def _observation(self, memory: int, power: Power) -> Observation:
        window = self._window
        return Observation(
            seconds=monotonic(),
            active=self._names.index(self.active),
            choices=self._choices,
            requests=window.requests(),
            p95_ms=window.p95_ms(),
            queue=window.queue(),
            busy=window.busy(),
            memory=memory,
            power=power,
        )


def _choices(portfolio: Portfolio, target: str) -> tuple[Choice, ...]:
    timed = all(target in variant.latency_ms for variant in portfolio.variants)
    return tuple(
        Choice(
            variant.name,
            variant.latency_ms[target] if timed else float(variant.macs),
            max(variant.bytes, variant.peak_memory_bytes),
        )
        for variant in portfolio.variants
    )

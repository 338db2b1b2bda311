"""A portfolio being served: the switcher, the queue, the policy, and what they tell the world."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from ...frontend.base.errors import InputError
from ..portfolio.manifest import Portfolio
from .bodies import Bodies
from .codec import Codec
from .control import Control
from .engine import BusyError, Engine
from .governor import Governor, Stance
from .limits import Limits
from .memory import available_memory
from .metrics import Metrics
from .observation import Choice, Observation, Power, Window, read_power
from .policies import ByHand, Policy
from .protocol import RequestError
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
        private: whether a variant's files are copied into sealed memory, as `load_bundle` says.
        policy: which variant is best now.
        governor: when its wishes are granted.
        interval: seconds from one look of the policy to the next.
        window: seconds of requests that it sees.
        limits: what clients may take.
        control: whether clients may switch variants.
        token: what they must know to switch, but over a Unix socket; None if nothing.
        hosts: names under which clients reach the server, beside addresses and the machine's own.
        state: where the variant that is served is noted; None for the user's state folder.
    """

    target: str = "host"
    variant: str | None = None
    threads: int = 1
    private: bool = False
    policy: Policy = field(default_factory=ByHand)
    governor: Governor = field(default_factory=Governor)
    interval: float = 0.5
    window: float = 10.0
    limits: Limits = field(default_factory=Limits)
    control: bool = True
    token: str | None = field(default=None, repr=False)
    hosts: Sequence[str] = ()
    state: Path | None = None


class Service:
    """Answers requests and exchanges variants, without a network.

    Args:
        say: takes lines for whoever runs the server.
    """

    def __init__(self, portfolio: Portfolio, settings: Settings, say: Callable[[str], None]) -> None:
        self.portfolio, self.settings = portfolio, settings
        self.say = say
        self._state = settings.state or default_state_file(portfolio)
        self._window = Window(settings.window)
        self._choices = _choices(portfolio, settings.target)
        self._names = tuple(choice.name for choice in self._choices)
        self._stance = Stance()
        self._reason = "variants are chosen by hand"
        self._last = ""
        self._told = -math.inf
        self._wishes = 0
        self._background: asyncio.Task[None] | None = None
        self.switches: deque[Switch] = deque(maxlen=_REMEMBERED)
        self.requests: Counter[int] = Counter()
        self.outcomes: Counter[str] = Counter(done=0, failed=0)
        self.switcher = Switcher(
            portfolio,
            target=settings.target,
            threads=settings.threads,
            changed=self._commit,
            private=settings.private,
        )
        self.engine = Engine(self.switcher, settings.limits.queue, self._window)
        self.metrics = Metrics(portfolio, lambda: self.engine.pending)
        self.statistics = Statistics(portfolio)
        self.bodies = Bodies(settings.limits)
        self.codec = Codec(portfolio.inputs, portfolio.outputs, settings.limits.inline)
        self.control = Control(settings.hosts, settings.token)

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

    def met(self, limit: str) -> None:
        """Notes that a limit was met, see `limits.COUNTED`."""
        self.metrics.limit(limit)

    def fault(self, error: BaseException) -> None:
        """Tells whoever runs the server of a fault of ours: not more than once in a second, so that nobody fills the log."""
        if monotonic() - self._told < 1:
            return
        self._told = monotonic()
        text = " ".join(str(error).split())[:300].encode("ascii", "backslashreplace").decode()
        self.say(f"internal error: {type(error).__name__}: {text}; please report it")

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
        self.codec.close()
        await asyncio.to_thread(self.engine.close)
        await asyncio.to_thread(self.switcher.close)

    async def wish(self, name: str) -> Switch:
        """As `switch`, for a client: its turn must come in time.

        Raises:
            BusyError: too many wishes wait.
            RequestError: its turn did not come.
        """
        limits = self.settings.limits
        if self._wishes >= limits.switches:
            self.met("switches")
            raise BusyError(1, "too many wishes for a variant wait")
        self._wishes += 1
        try:
            return await self.switch(name, "by hand", limits.timeout)
        finally:
            self._wishes -= 1

    async def switch(self, name: str, why: str, patience: float | None = None) -> Switch:
        """Exchanges the variant for `name`; what came of it. If it is cancelled, a switch that has begun is carried out.

        Args:
            patience: seconds in which it must begin; None for as long as it takes.

        Raises:
            RequestError: it did not, and is forgotten.
        """
        future = self.switcher.switch(name, why)
        noted = asyncio.ensure_future(self._noted(future))
        try:
            done, _ = await asyncio.wait((noted,), timeout=patience)
            if not done and future.cancel():
                raise RequestError(f"the turn of the switch did not come within {patience:g} s", 504, "timeout")
            return await asyncio.shield(noted)
        except asyncio.CancelledError:
            future.cancel()
            raise

    async def _noted(self, future: Future[Switch]) -> Switch:
        found = await asyncio.wrap_future(future)
        self._note(found)
        return found

    def _note(self, switch: Switch) -> None:
        if switch.wanted == switch.before:
            return
        self.switches.append(switch)
        self.metrics.switch(switch)
        self.outcomes["done" if switch.error is None else "failed"] += 1
        if switch.error is not None:
            self.say(f"cannot switch to '{switch.wanted}' ({switch.why}): {switch.error}")
            return
        self._last = switch.wanted
        self._window.begin(switch.wanted)
        before = 0 if switch.before is None else self._names.index(switch.before)
        after = self._names.index(switch.wanted)
        self._stance = self.settings.governor.switched(self._stance, before, after, monotonic())
        took = f"loaded in {switch.load_ms + switch.warm_ms:.0f} ms"
        self.say(f"'{switch.wanted}' answers ({switch.why}), {took}")

    def _commit(self, name: str) -> None:
        try:
            commit(self._state, self.portfolio, name)
        except InputError as error:
            # The switch stands; only a restart will not know of it.
            self.say(str(error))

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

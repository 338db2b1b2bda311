"""Exchanging the variant that answers, between two requests and without a gap.

One thread of its own loads the next variant, checks and warms it, puts it in the place of the one that answers, waits for
the requests that began with the old one, and unloads that. A variant that cannot be loaded changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from ...frontend.base.errors import InputError
from ..portfolio.manifest import Portfolio
from .memory import available_memory, release_memory
from .resident import Resident, load_variant

__all__ = ["Switch", "Switcher"]

_OUT_OF_MEMORY = ("bad_alloc", "failed to map segment", "annot allocate memory")
"""What TVM and the loader of libraries say when there is none left."""


@dataclass(frozen=True)
class Switch:
    """What became of one wish to switch.

    Attributes:
        wanted, before: names of variants; there is none before the first one.
        why: who wished for it.
        error: why `before` still answers; None if `wanted` does.
        load_ms: reading, checking and mapping the files.
        warm_ms: the runs on generated inputs.
        swap_ms: what a request could have had to wait for.
        free_ms: from the swap until the old variant was unloaded, the requests it was still answering included.
    """

    wanted: str
    before: str | None
    why: str
    error: str | None = None
    load_ms: float = 0.0
    warm_ms: float = 0.0
    swap_ms: float = 0.0
    free_ms: float = 0.0


class _Slot:
    """A resident variant and how many requests it is answering."""

    def __init__(self, resident: Resident) -> None:
        self.resident = resident
        self.users = 0
        self.retired = False
        self.idle = threading.Event()


class Switcher:
    """Holds the variant that answers, and exchanges it.

    Args:
        portfolio: where the variants are.
        target: whose bundles are loaded.
        threads: what a variant runs with.
        changed: called by the loading thread as soon as another variant answers; it must not raise.
        room: gives the bytes that a variant may take.
        private: whether its files are copied into sealed memory, as `load_bundle` says.
    """

    def __init__(
        self,
        portfolio: Portfolio,
        *,
        target: str = "host",
        threads: int = 1,
        changed: Callable[[str], None] = lambda name: None,
        room: Callable[[], int] = available_memory,
        private: bool = False,
    ) -> None:
        self.portfolio = portfolio
        self._target, self._threads, self._room, self._private = target, threads, room, private
        self._changed = changed
        self._lock = threading.Lock()
        self._slot: _Slot | None = None
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")

    @property
    def active(self) -> str | None:
        """The variant that the next request is answered by."""
        slot = self._slot
        return None if slot is None else slot.resident.variant.name

    def start(self, names: Sequence[str]) -> list[Switch]:
        """Loads the first of `names` that can be loaded, and gives what became of each that was tried.

        Raises:
            InputError: there was none; with the reason of the first.
        """
        tried: list[Switch] = []
        for name in names:
            tried.append(self.switch(name, "start").result())
            if tried[-1].error is None:
                return tried
        raise InputError(f"no variant can be served: {tried[0].error if tried else 'none was named'}")

    def switch(self, name: str, why: str) -> Future[Switch]:
        """Asks for the variant `name`. Its errors are in the result; the future itself raises none.

        Wishes are granted one after the other.
        """
        return self._loader.submit(self._switched, name, why)

    @contextmanager
    def lease(self) -> Iterator[Resident]:
        """The variant that answers, which stays loaded as long as the block runs."""
        with self._lock:
            slot = self._slot
            assert slot is not None, "the switcher has not been started"
            slot.users += 1
        try:
            yield slot.resident
        finally:
            with self._lock:
                slot.users -= 1
                if slot.retired and not slot.users:
                    slot.idle.set()

    def close(self) -> None:
        """Lets a switch that is under way end, forgets those that are not, and unloads the variant."""
        self._loader.shutdown(wait=True, cancel_futures=True)
        self._retire(self._exchange(None))

    def _switched(self, name: str, why: str) -> Switch:
        before = self.active
        if name == before:
            return Switch(name, before, why)
        error = None
        try:
            variant = self.portfolio.variant(name)
            resident = load_variant(self.portfolio, variant, self._target, self._threads, self._room, self._private)
        except Exception as fault:
            # Whatever a broken variant does, the one that answers goes on.
            error = _reason(name, fault)
        if error is not None:
            release_memory()
            return Switch(name, before, why, error)
        started = perf_counter()
        old = self._exchange(_Slot(resident))
        swapped = perf_counter()
        self._changed(name)
        self._retire(old)
        return Switch(
            name,
            before,
            why,
            load_ms=1e3 * resident.load_seconds,
            warm_ms=1e3 * resident.warm_seconds,
            swap_ms=1e3 * (swapped - started),
            free_ms=1e3 * (perf_counter() - swapped),
        )

    def _exchange(self, slot: _Slot | None) -> _Slot | None:
        """Puts `slot` in its place and gives the one that was there, which gets no new requests."""
        with self._lock:
            old, self._slot = self._slot, slot
            if old is not None:
                old.retired = True
                if not old.users:
                    old.idle.set()
        return old

    def _retire(self, old: _Slot | None) -> None:
        if old is not None:
            old.idle.wait()
            old.resident.unload()


def _reason(name: str, fault: Exception) -> str:
    """One line about `fault`, which holds no memory as the exception and its frames do."""
    if isinstance(fault, InputError):
        return str(fault)
    if isinstance(fault, MemoryError) or any(mark in str(fault) for mark in _OUT_OF_MEMORY):
        return f"variant '{name}' does not fit into memory; free some, or choose a smaller variant"
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    return f"variant '{name}' cannot be loaded: {lines[-1]}; build the portfolio again"

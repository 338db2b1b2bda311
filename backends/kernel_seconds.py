"""What each kernel of a compiled model takes in one pass on this machine, and which of them are general code."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .kernels.generic import is_general

if TYPE_CHECKING:
    from .built import Built

__all__ = ["KernelSeconds", "general_share", "kernel_seconds"]


@dataclass(frozen=True)
class KernelSeconds:
    """A kernel.

    Attributes:
        name: of its function; of general code those of the operators that it computes.
        seconds: of all its calls in one pass, each the least of several.
        calls: how many these are.
        general: whether it is TVM's operators with a schedule for anything, not one of our kernels.
    """

    name: str
    seconds: float
    calls: int
    general: bool


def kernel_seconds(built: Built, *inputs: Any, rounds: int = 10) -> tuple[KernelSeconds, ...]:
    """The kernels of `built`, the dearest first, on inputs as `Built.run` takes them. It must have been compiled in this
    process, for this machine.
    """
    watch, watched = _Watch(), built.clone()
    watched._machine().watch(watch)
    least: dict[tuple[str, int], float] = {}
    for _ in range(max(1, rounds)):
        watch.seconds.clear()
        watched.run(*inputs)
        for call, seconds in watch.seconds.items():
            least[call] = min(least.get(call, seconds), seconds)
    total: defaultdict[str, float] = defaultdict(float)
    for (name, _), seconds in least.items():
        total[name] += seconds
    calls = Counter(name for name, _ in least)
    functions = built.artifact.scheduled.functions_items()
    general = {variable.name_hint for variable, function in functions if is_general(function)}
    found = (KernelSeconds(name, seconds, calls[name], name in general) for name, seconds in total.items())
    return tuple(sorted(found, key=lambda kernel: -kernel.seconds))


def general_share(built: Built, *inputs: Any, rounds: int = 10) -> float:
    """The share of general code in the time of one pass, 0 to 1."""
    kernels = kernel_seconds(built, *inputs, rounds=rounds)
    whole = sum(kernel.seconds for kernel in kernels)
    return sum(kernel.seconds for kernel in kernels if kernel.general) / whole if whole else 0.0


class _Watch:
    """Called by TVM's virtual machine before and after each call of a kernel."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, int], float] = {}
        """Of every call of one pass, by its kernel and its number among that kernel's."""
        self._begun = 0.0

    def __call__(self, function: Any, name: str, before: bool, *_: Any) -> int:
        now = time.perf_counter()
        if not before and not name.startswith("vm."):
            number = sum(1 for known, _ in self.seconds if known == name)
            self.seconds[name, number] = now - self._begun
        self._begun = time.perf_counter()
        return 0

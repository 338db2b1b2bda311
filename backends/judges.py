"""Who decides between kernels: this machine's clock, a board's, modelled cycles, or a formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tvm

from .boards.place import Place, parse_place
from .choosing.cache import ChoiceCache
from .choosing.choice import Winograd
from .choosing.cost import AnalyticCost, Costs, Judged
from .choosing.kernel_times import HereTimes
from .machines.targets import Target

if TYPE_CHECKING:
    from .boards.kernels import BoardTimes
    from .choosing.tuning import Tuner

__all__ = ["cost_unit", "kernel_cost", "make_tuner", "winograd_for"]


def kernel_cost(
    choose: str, target: Target, llvm: tvm.target.Target, threads: int, on: str | Place | None
) -> tuple[Costs | None, ChoiceCache | None]:
    """What decides between kernels, and where decisions that took time are kept."""
    if choose == "default":
        return None, None
    if on is not None:
        times = _board_times(target, threads, on)
        return Judged(times), ChoiceCache(llvm, threads, f"time on {times.place}")
    if choose == "cycles":
        from .estimate.choice import KernelCycles

        # Weights are read once in a pass of a network, so they are not in a cache when their layer begins.
        stream = target.machine.stream_bytes
        judged = Judged(KernelCycles(target), lambda spec: getattr(spec, "weight_bytes", 0) / stream)
        return judged, ChoiceCache(llvm, 1, f"cycles of {target.mca_cpu}")
    if choose == "model" or not target.runs_here:
        return AnalyticCost(target.machine), None
    return Judged(HereTimes(llvm, threads)), ChoiceCache(llvm, threads, "time")


def cost_unit(choose: str, target: Target, on: str | Place | None) -> str:
    """What `kernel_cost` counts in: ``s`` or ``cycles``."""
    return "s" if choose == "time" and (target.runs_here or on is not None) else "cycles"


def winograd_for(target: Target, asked: Winograd = "auto") -> Winograd:
    """Winograd's algorithm as `asked`, by itself not on a microcontroller: its workspace is many times an image."""
    return "off" if asked == "auto" and target.bare else asked


def make_tuner(
    trials: int, target: Target, llvm: tvm.target.Target, threads: int, choose: str, on: str | Place | None
) -> Tuner:
    """Tunes foreign kernels by who decides between ours, or by this machine's clock where that is a formula."""
    # MetaSchedule takes a second to import, and only those who tune should wait for it.
    from .choosing.tuning import Tuner

    if on is not None:
        times = _board_times(target, threads, on)
        return Tuner(llvm, times, f"{threads} threads on {times.place}", "s", trials, target.lanes)
    if choose == "cycles":
        from .estimate.choice import KernelCycles

        return Tuner(llvm, KernelCycles(target), f"cycles of {target.mca_cpu}", "cycles", trials, target.lanes)
    return Tuner(llvm, HereTimes(llvm, threads), f"{threads} threads", "s", trials, target.lanes)


def _board_times(target: Target, threads: int, on: str | Place) -> BoardTimes:
    from .boards.kernels import BoardTimes

    return BoardTimes(target, threads, parse_place(on) if isinstance(on, str) else on)

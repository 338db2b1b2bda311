"""An estimate as a table for a person."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from ...backends.estimate.cost import Cost, Estimate
from ..answer import table
from ..wording import count, kept, milliseconds

__all__ = ["estimate_table", "show_estimate"]

_SHOWN_KERNELS = 24
"""Kernels with a line of their own; the rest of a large network share one."""


_LEGEND = (
    "bound: cycles of the busiest unit alone; fma: share of the cycles that vector multiply-adds need; L2 miss: of the last"
    " cache; MB: read from memory."
)


def show_estimate(
    console: Console, estimate: Estimate, *, everything: bool = False, assembly: str | None = None
) -> None:
    """Writes the table, the limits, and the hot code of the kernel called `assembly`."""
    console.print(estimate_table(estimate, everything=everything))
    console.print(_LEGEND, markup=False, highlight=False)
    for line in (*estimate.limits, *kept(estimate.state)):
        console.print(line, markup=False, highlight=False)
    for kernel in estimate.kernels:
        if kernel.name == assembly and kernel.hottest is not None:
            block = kernel.hottest
            title = f"{kernel.name}: hottest code, {block.count:,} times {block.cycles.steady:.1f} cycles"
            console.print(
                "\n".join(["", title, *(f"    {line}" for line in block.assembly)]), markup=False, highlight=False
            )


def estimate_table(estimate: Estimate, *, everything: bool = False) -> Table:
    """Kernels by cycles, then all else, then the sum. The headings are short, for terminals of 80 columns."""
    numbers = ("instr.", "cycles", "bound", "fma", "L1 miss", "L2 miss", "MB", "ms")
    made = table("kernel", *numbers, right=numbers, title=f"One pass on {estimate.target}, one thread")
    made.box, made.padding = box.SIMPLE_HEAD, 0
    shown = (
        estimate.kernels if everything or len(estimate.kernels) <= _SHOWN_KERNELS else estimate.kernels[:_SHOWN_KERNELS]
    )
    for kernel in shown:
        made.add_row(*_cells(kernel))
    rest = estimate.kernels[len(shown) :]
    if rest:
        made.add_row(f"{len(rest)} more (--all)", *_cells(estimate.sum_of(rest))[1:])
    made.add_row(*_cells(estimate.other))
    made.add_section()
    made.add_row(*_cells(estimate.total))
    return made


def _cells(cost: Cost) -> tuple[str, ...]:
    share = "" if cost.efficiency is None else f"{100 * cost.efficiency:.0f} %"
    return (
        cost.name,
        count(cost.instructions),
        count(round(cost.cycles)),
        count(round(cost.throughput_cycles)),
        share,
        count(cost.l1_misses),
        count(cost.last_misses),
        f"{cost.memory_bytes / 1e6:.2f}",
        "" if cost.milliseconds is None else milliseconds(cost.milliseconds).removesuffix(" ms"),
    )

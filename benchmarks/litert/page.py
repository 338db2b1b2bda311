"""The page of LiteRT beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["OURS", "RESULTS", "by_kind", "page", "summary", "table"]

OURS = "reconvene"
"""The name of our engine in rows."""

PAGE = """# LiteRT on ARM boards, counted as our code is

Made by `benchmarks/arm_peers.py`. Dense networks, batch 1, one thread. LiteRT runs from its AArch64 wheel in an emulator whose
processor says that it is the board's, so that XNNPACK, whose kernels LiteRT runs, takes those for that core: with `sdot` on the
Cortex-A76, with products of 16 bits on the Cortex-A72 and A53. Both engines compute the same network: in int8 the codes of
weights and biases, and all scales and zeros, are those that `reconvene.quantize` chose, untrained, with every bias and
statistic random. *Difference* is the largest between LiteRT's result and PyTorch's: for int8 in steps of the result's codes,
of which there are 255, for float32 as a share of the largest number. (LiteRT gives its last layer as codes, which alone is
half of a step; ours gives numbers.)

Instructions and cycles are in millions, of one call after the first, from float32 to float32: counted by QEMU's plugin and
modelled by LLVM for blocks that repeat, every load a hit, [in the same way and with the same limits](../estimate.md). LiteRT's
are of its own library, without what Python and the C library do beside it; ours are of the whole program. *Busiest unit alone*
and *multiply-adds alone* are lower bounds of the cycles. Memory is what the caches of the board miss, in MB. Neither engine was
timed on a board.

In int8 ours computes layers in float32, by Winograd's algorithm, where that takes fewer cycles by its formula; *in float32*
says how many of its layers. That reads more memory, which cycles leave out: see *memory*. LLVM's model of the Cortex-A53, which
does not reorder instructions, is the least sound of the three.
"""

KINDS = """## By kind of layer

Cycles in millions. LiteRT's are of files with the layers of one kind alone, each on an input of its own, so that they add up to
a little more or less than the whole; ours are of kernels by name. *Everything else* is sums, means, pooling, conversions to
codes and back, and what runs between layers; ours also brings the image, which lies in planes as PyTorch's do, to where
channels lie together, as LiteRT's image does from the start.
"""

RESULTS = """## LiteRT on ARM boards

Dense networks in LiteRT, whose kernels are XNNPACK's, and in ours, in millions of modelled cycles: [the same networks, counted
in the same way](results/arm_peers.md).
"""


def page(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    rows = record["rows"]
    setting = [f"{name} {value}" for name, value in record["environment"].items()]
    engines = sorted({row["engine"] for row in rows} - {OURS})
    tools = sorted({tool for row in rows for tool in row["tools"].values()})
    models = sorted({f"{row['target']} by LLVM's model of {row['core_model']}" for row in rows})
    parts = [PAGE, f"{'; '.join([*setting, *engines, *models, *tools])}.\n", table(rows)]
    kinds = by_kind(rows)
    return "\n".join([*parts, "", KINDS, kinds, ""] if kinds else [*parts, ""])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Both engines, a line for each network, board and type that both have."""
    lines = [
        "| network | type | board | LiteRT: instructions | Mcycles | busiest unit alone | multiply-adds alone | memory MB |"
        " difference | ours: instructions | Mcycles | busiest unit alone | multiply-adds alone | memory MB | in float32 |"
        " ours / LiteRT, cycles |",
        f"|{'---|' * 16}",
    ]
    for theirs, ours in _pairs(rows):
        cells = [
            theirs["network"], theirs["dtype"], theirs["target"],
            *_figures(theirs), f"{theirs['difference']:.1f}" if theirs["dtype"] == "int8" else f"{theirs['difference']:.0e}",
            *_figures(ours), f"{ours['float_layers']} of {ours['layers']}",
            f"{ours['cycles'] / theirs['cycles']:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(record: dict[str, Any]) -> str:
    """What the page of all results shows."""
    lines = ["| network | type | board | LiteRT | ours | ours / LiteRT |", f"|{'---|' * 6}"]
    for theirs, ours in _pairs(record["rows"]):
        figures = f"{theirs['cycles'] / 1e6:.1f} | {ours['cycles'] / 1e6:.1f} | {ours['cycles'] / theirs['cycles']:.2f}"
        lines.append(f"| {theirs['network']} | {theirs['dtype']} | {theirs['target']} | {figures} |")
    return "\n".join(lines)


def by_kind(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each kind of layer; empty where no row has kinds."""
    lines = []
    for theirs, ours in _pairs(rows):
        for kind, cycles in theirs.get("kinds", {}).items():
            mine = ours["kinds"].get(kind, 0)
            figures = f"{cycles / 1e6:.2f} | {mine / 1e6:.2f} | {mine / cycles:.2f}"
            lines.append(f"| {theirs['network']} | {theirs['dtype']} | {theirs['target']} | {kind} | {figures} |")
    head = ["| network | type | board | layers | LiteRT | ours | ours / LiteRT |", f"|{'---|' * 7}"]
    return "\n".join(head + lines) if lines else ""


def _pairs(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """LiteRT's row and ours of the same network, type and board."""
    ours = {_key(row): row for row in rows if row["engine"] == OURS}
    theirs = [row for row in rows if row["engine"] != OURS and _key(row) in ours]
    return [(row, ours[_key(row)]) for row in sorted(theirs, key=_key)]


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["dtype"], row["network"], row["target"]


def _figures(row: dict[str, Any]) -> list[str]:
    names = ("instructions", "cycles", "throughput_cycles", "multiply_add_cycles", "memory_mb")
    return [f"{row[name] / (1 if name == 'memory_mb' else 1e6):.1f}" for name in names]

"""The load, and the alternatives beside each other, as Markdown."""

from __future__ import annotations

from typing import Any

from .memory import MIB

__all__ = ["table"]


def table(record: dict[str, Any]) -> str:
    """The load, and the alternatives beside each other."""
    first, last = (
        f"{row['name']} ({row['bytes'] / MIB:.2f} MiB)" for row in (record["variants"][0], record["variants"][-1])
    )
    lines = [f"Portfolio '{record['portfolio']}', {len(record['variants'])} variants, {first} to {last}.", ""]
    if "load" in record:
        lines += [*load_table(record["load"]), ""]
    texts = {
        "switcher": "one resident variant (ours)",
        "program": "the program of a bundle, in C++",
        "resident": "all variants resident",
        "dense": "dense model pruned and compiled at the switch",
        "restart": "restart of the process",
    }
    lines += [
        "| without load | switch ms | longest | of which nobody answers | memory MiB | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, text in texts.items():
        if row := record["alternatives"].get(name):
            numbers = (row[key] for key in ("switch_ms", "switch_longest_ms", "gap_ms", "steady_mib", "peak_mib"))
            lines.append(f"| {text} | " + " | ".join(f"{number:,.3g}" for number in numbers) + " |")
    return "\n".join(lines)


def load_table(load: dict[str, Any]) -> list[str]:
    lines = [
        "| load | requests | per second | p50 ms | p99 ms | longest ms | longest gap ms | dropped | wrong |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    switching = f"{load['switches']} switches in {load['seconds']:.0f} s"
    for what, row in (("no switches", load["still"]), (switching, load)):
        numbers = (row[key] for key in ("p50_ms", "p99_ms", "longest_ms", "longest_gap_ms"))
        shown = " | ".join(f"{number:.2f}" for number in numbers)
        lines.append(
            f"| {what} | {row['requests']:,} | {row['per_second']:,.0f} | {shown} | {row['dropped']} | {row['wrong']} |"
        )
    lines += [
        "",
        f"Of the switches under load (medians, longest in brackets): load {pair(load, 'load')}, warm {pair(load, 'warm')},"
        f" swap {pair(load, 'swap')} ms; the old variant was gone {pair(load, 'free')} ms later.",
    ]
    return lines


def pair(row: dict[str, Any], step: str) -> str:
    return f"{row[f'{step}_median_ms']:.3g} ({row[f'{step}_longest_ms']:.3g})"

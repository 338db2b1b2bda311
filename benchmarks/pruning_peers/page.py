"""A record of the comparison as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .recipes import RECIPES

__all__ = ["is_exact", "page", "summary"]

EXACT = 1e-12
"""Largest difference, relative to the largest output, that counts as equal in float64."""

HEAD = """# Beside Torch-Pruning

Torch-Pruning removes half of the channels of each of its groups, by group magnitude; what it removed is then zeroed in the
original network, and both results are compared with that, in float64, relative to the largest output. M1 zeroes the
filters of a removed channel and leaves its biases and normalisation, so that it is a constant; M2 zeroes them too.
Torch-Pruning drops a channel together with its constant, which is what M2 asks for; it does not claim more. Networks are
untrained, with every bias, statistic and constant randomised. Seconds are processor time of one thread: its own for the
graph, the groups and the pruning; ours for capture + analysis and rewriting (M1), without the check. Where Torch-Pruning
does not get through, ours removes half of the channels of each of its own groups at random. Ours may keep more under M1:
a constant that is not zero needs a channel to carry it where a convolution pads.

Made by `benchmarks/peers.py`.
"""


def page(record: Mapping[str, Any]) -> str:
    """A record as Markdown: what was done, the setting, a row for each network, and how Torch-Pruning was used."""
    rows: list[dict[str, Any]] = record["rows"]
    used = {attempt["recipe"] for row in rows for attempt in row["attempts"]}
    helped = [row for row in rows if len(row["attempts"]) > 1 or not works(row)]
    lines = [
        HEAD,
        "; ".join(f"{key} {value}" for key, value in record["setting"].items()),
        "",
        summary(record),
        "",
        "| network | input | Torch-Pruning | its difference M1 / M2 | its seconds | its parameters left "
        "| our difference M1 / M2 | our seconds | our parameters left M1 / M2 |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_table_row(row) for row in rows),
        "",
        "## How Torch-Pruning was used",
        "",
        "Tried in this order until one gave a network that runs:",
        "",
        *(f"- **{recipe.name}**: {recipe.done}." for recipe in RECIPES if recipe.name in used),
        "",
        "Where the plain call does not get through:",
        "",
    ]
    for row in helped:
        lines.append(f"- {row['network']}")
        lines += [f"  - {attempt['recipe']}: {_outcome(attempt)}" for attempt in row["attempts"]]
    return "\n".join(lines) + "\n"


def summary(record: Mapping[str, Any]) -> str:
    """How many networks get through, and how many of them are equal to the masked network."""
    rows: list[dict[str, Any]] = record["rows"]
    last = [row["attempts"][-1] for row in rows if works(row)]
    plain = sum(attempt["recipe"] == "plain" for attempt in last)
    exact = {kind: sum(attempt[kind] <= EXACT for attempt in last) for kind in ("M1", "M2")}
    return (
        f"Torch-Pruning: of {len(rows)} networks {plain} get through with the plain call and {len(last)} with what it "
        f"offers besides; {exact['M2']} of these equal the masked network under M2, {exact['M1']} under M1. "
        f"Ours: {sum(is_exact(row) for row in rows)} of {len(rows)} get through and are equal under both."
    )


def works(row: Mapping[str, Any]) -> bool:
    return bool(row["attempts"][-1]["outcome"] == "works")


def is_exact(row: Mapping[str, Any]) -> bool:
    """Returns if ours got through and equals the masked network under both kinds of mask."""
    return all(kind in row["ours"] and row["ours"][kind]["relative_difference"] <= EXACT for kind in ("M1", "M2"))


def _outcome(attempt: Mapping[str, Any]) -> str:
    return attempt["outcome"] + (f" (`{attempt['error']}`)" if "error" in attempt else "")


def _table_row(row: Mapping[str, Any]) -> str:
    last, ours = row["attempts"][-1], row["ours"]
    if works(row):
        how = "works" if last["recipe"] == "plain" else f"works ({last['recipe']})"
        theirs = f"{how} | {last['M1']:.1e} / {last['M2']:.1e} | {last['seconds']:.2f} | {last['parameters_left']:.1%}"
    else:
        theirs = f"{row['attempts'][0]['outcome']} | | |"
    if "M1" not in ours:
        return f"| {row['network']} | | {theirs} | {_outcome(ours)} | | |"
    first, second = ours["M1"], ours["M2"]
    return (
        f"| {row['network']} | {ours['input']} | {theirs} "
        f"| {first['relative_difference']:.1e} / {second['relative_difference']:.1e} "
        f"| {ours['capture_seconds']:.2f} + {first['seconds']:.2f} "
        f"| {first['parameters_left']:.1%} / {second['parameters_left']:.1%} |"
    )

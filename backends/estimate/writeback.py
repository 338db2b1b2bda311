"""Loads and stores that also move their address register, as two instructions."""

from __future__ import annotations

import re

__all__ = ["split_writeback"]

# Post-indexed: a register or a literal behind the bracket. Pre-indexed: an exclamation mark.
_POST = re.compile(r"^((?:ld|st)\S* .*\[(\w+))\], (#-?\d+|x\d+)$")
_PRE = re.compile(r"^((?:ld|st)\S* .*\[(\w+)), #(-?\d+)\]!$")


def split_writeback(line: str) -> list[str]:
    """A load or store and the addition that moves its address register; `line` alone if it moves none."""
    found = _POST.match(line)
    if found:
        access, register, step = found.groups()
        return [f"{access}]", _moved(register, step)]
    found = _PRE.match(line)
    if found:
        access, register, step = found.groups()
        return [_moved(register, f"#{step}"), f"{access}]"]
    return [line]


def _moved(register: str, step: str) -> str:
    name, amount = ("sub", step.replace("#-", "#")) if step.startswith("#-") else ("add", step)
    return f"{name} {register}, {register}, {amount}"

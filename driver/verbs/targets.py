"""``reconvene targets``."""

from __future__ import annotations

import dataclasses

from rich.console import Console

from ..answer import Answer, table

__all__ = ["run"]


def run() -> Answer:
    from ...backends.machines.targets import told_targets

    found = [dataclasses.asdict(target) for target in told_targets()]

    def show(console: Console) -> None:
        columns = ("name", "triple", "cpu", "cores", "lanes", "channel_multiple")
        made = table(*columns, right=columns[3:])
        for entry in found:
            made.add_row(*(str(entry.get(column, "")) for column in columns))
        console.print(made)

    return Answer({"targets": found}, show)

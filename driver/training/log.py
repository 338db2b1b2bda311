"""The log of a training: one row an epoch, as CSV, JSON, and curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...frontend.base.files import write_text

__all__ = ["curves", "figures_in", "write_log"]

Row = Mapping[str, Any]

_COLUMNS = {"epoch", "rate", "seconds"}
_PANEL_HEIGHT = 450
"""Pixels."""


def write_log(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Writes ``log.csv`` and ``log.json``, each whole. Raises InputError if that cannot be done."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(folder / "log.csv", text.getvalue())
    write_text(folder / "log.json", json.dumps({"settings": dict(settings), "rows": list(rows)}, indent=1) + "\n")


def curves(rows: Sequence[Row], title: str, metric: str = "accuracy") -> str:
    """Loss, metric and the figures of a method over epochs, as a page that needs no network."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = {what: {f"{split} {what}": f"{split}_{what}" for split in ("train", "test")} for what in ("loss", metric)}
    panels |= {name.replace("_", " "): {name.replace("_", " "): name} for name in figures_in(rows)}
    figure = make_subplots(-(-len(panels) // 2), 2, subplot_titles=list(panels))
    epochs = [row["epoch"] for row in rows]
    for place, lines in enumerate(panels.values()):
        where = {"row": place // 2 + 1, "col": place % 2 + 1}
        for label, column in lines.items():
            figure.add_trace(
                go.Scatter(x=epochs, y=[row[column] for row in rows], name=label, mode="lines+markers"), **where
            )
        figure.update_xaxes(title_text="epoch", **where)
    figure.update_layout(title=title, height=_PANEL_HEIGHT * -(-len(panels) // 2))
    page: str = figure.to_html(include_plotlyjs=True)
    return page


def figures_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """The names of what a method says of itself in every row."""
    first = rows[0] if rows else {}
    return tuple(name for name in first if name not in _COLUMNS and not name.startswith(("train_", "test_")))

"""The log of a training: one row an epoch, as CSV, JSON, and curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...frontend.base.files import write_text

__all__ = ["curves", "write_log"]

Row = Mapping[str, Any]


def write_log(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Writes ``log.csv`` and ``log.json``, each whole. Raises InputError if that cannot be done."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(folder / "log.csv", text.getvalue())
    write_text(folder / "log.json", json.dumps({"settings": dict(settings), "rows": list(rows)}, indent=1) + "\n")


def curves(rows: Sequence[Row], title: str) -> str:
    """Loss and accuracy over epochs, as a page that needs no network."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, subplot_titles=("loss", "accuracy"))
    epochs = [row["epoch"] for row in rows]
    for column, what in enumerate(("loss", "accuracy"), 1):
        for split in ("train", "test"):
            values = [row[f"{split}_{what}"] for row in rows]
            figure.add_trace(go.Scatter(x=epochs, y=values, name=f"{split} {what}", mode="lines+markers"), 1, column)
        figure.update_xaxes(title_text="epoch", row=1, col=column)
    figure.update_layout(title=title)
    page: str = figure.to_html(include_plotlyjs=True)
    return page

"""What a shrinking did, step by step: rows, CSV, JSON, and a page with pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...frontend.base.files import write_text
from .steps import Step

__all__ = ["page", "rows", "write_log"]

_PANEL_HEIGHT = 450
"""Pixels."""


def rows(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """One for each step: numbers, and shares of what there was at first."""
    first = steps[0]
    found = []
    for step in steps:
        row = {
            "step": step.number,
            "filters": step.filters,
            "macs": step.macs,
            "parameters": step.parameters,
            "before": step.before,
            "pruned": step.pruned,
            "after": step.after,
            "candidates": step.asked,
            "reset": step.reset,
            "teacher": step.teacher,
            **{f"{phase}_seconds": step.seconds.get(phase, 0.0) for phase in ("search", "removal", "training")},
        }
        if first.latency:
            row["latency"] = (step.latency or 0.0) / first.latency
        found.append(row)
    return found


def write_log(folder: Path, steps: Sequence[Step], settings: Mapping[str, Any]) -> None:
    """Writes ``log.csv``, ``log.json`` (with widths and distributions) and ``steps.html``, each whole.

    Raises:
        InputError: that cannot be done.
    """
    text = io.StringIO()
    lines = rows(steps)
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(folder / "log.csv", text.getvalue())
    whole = {"settings": dict(settings), "steps": [asdict(step) for step in steps]}
    write_text(folder / "log.json", json.dumps(whole, indent=1) + "\n")
    write_text(folder / "steps.html", page(steps))


def page(steps: Sequence[Step]) -> str:
    """Accuracy, sizes, and the width and probability of every group over the steps, as a page that needs no network."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = ("on images held out", "share of the network at first", "share of channels that is left", "distribution")
    figure = make_subplots(2, 2, subplot_titles=titles)
    numbers, lines = [step.number for step in steps], rows(steps)
    for name in ("pruned", "after"):
        figure.add_trace(go.Scatter(x=numbers, y=[line[name] for line in lines], name=name), row=1, col=1)
    for name in ("filters", "macs", "parameters"):
        shares = [line[name] / max(1, lines[0][name]) for line in lines]
        figure.add_trace(go.Scatter(x=numbers, y=shares, name=name), row=1, col=2)
    if "latency" in lines[0]:
        figure.add_trace(go.Scatter(x=numbers, y=[line["latency"] for line in lines], name="latency"), row=1, col=2)
    groups = list(steps[0].widths)
    left = [[step.widths.get(group, 0) / steps[0].widths[group] for step in steps] for group in groups]
    figure.add_trace(_map(go, numbers, groups, left), row=2, col=1)
    searched = [step for step in steps if step.distribution]
    over = [[step.distribution.get(group, 0.0) for step in searched] for group in groups]
    figure.add_trace(_map(go, [step.number for step in searched], groups, over), row=2, col=2)
    for place in range(4):
        figure.update_xaxes(title_text="step", row=place // 2 + 1, col=place % 2 + 1)
    figure.update_layout(title="A network made smaller step by step", height=2 * _PANEL_HEIGHT)
    text: str = figure.to_html(include_plotlyjs=True)
    return text


def _map(go: Any, steps: Sequence[int], groups: Sequence[str], values: Sequence[Sequence[float]]) -> Any:
    return go.Heatmap(
        x=list(steps), y=list(groups), z=[list(row) for row in values], colorscale="Blues", showscale=False
    )

"""An exploration as a page: accuracy against time, with the front, and a table of all variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from ..reports.figures import DENSE, INK, KEPT, figure_html, layout
from ..reports.page import render

__all__ = ["CLOCKS", "exploration_page"]

CLOCKS = {
    "time": "measured, as medians",
    "estimate": "modelled of the compiled code (reconvene estimate), a lower bound",
    "model": "modelled by the formula that kernels are chosen by",
}
"""By who tells them, what times are."""
_COLOURS = (KEPT, "#9a4a00", "#3b5bdb", "#862e9c", "#2b8a3e", "#c2255c", "#5c940d")
_HEIGHT = 420


def exploration_page(title: str, found: Mapping[str, Any]) -> str:
    """The page of what `Exploration.to_dict` says."""
    return render(
        "exploration.html.j2",
        title=f"{title} explored",
        found=found,
        clock=CLOCKS[found["told_by"]],
        dense=found["variants"][0],
        settings=_said(found["settings"]),
        plot=Markup(figure_html(_scatter(found))),
    )


def _scatter(found: Mapping[str, Any]) -> go.Figure:
    """A colour for each kind; those on the front are filled, and joined by a line."""
    figure, variants = go.Figure(), found["variants"]
    best = sorted((one for one in variants if one["front"]), key=lambda one: float(one["time"]))
    figure.add_scatter(
        x=[one["time"] for one in best], y=[one["accuracy"] for one in best], name="front", mode="lines",
        line={"color": INK, "width": 1, "dash": "dot"}, hoverinfo="skip",
    )  # fmt: skip
    kinds = list(dict.fromkeys(one["kind"] for one in variants))
    for place, kind in enumerate(kinds):
        points = [one for one in variants if one["kind"] == kind]
        colour = DENSE if kind == "dense" else _COLOURS[(place - 1) % len(_COLOURS)]
        figure.add_scatter(
            x=[one["time"] for one in points],
            y=[one["accuracy"] for one in points],
            text=["" if one["budget"] is None else f"{one['budget']:g}" for one in points],
            customdata=[one["told"] for one in points],
            name=kind,
            mode="markers+text",
            textposition="top center",
            marker={
                "color": colour,
                "size": 11,
                "symbol": ["circle" if one["front"] else "circle-open" for one in points],
                "line": {"width": 2, "color": colour},
            },
            hovertemplate="%{y:.4g}, %{x:,.4g}<br>%{customdata}<extra>" + kind + "</extra>",
        )
    figure.update_layout(**layout(height=_HEIGHT))
    figure.update_xaxes(title_text=f"{found['unit']} an example, {found['target']}", rangemode="tozero")
    figure.update_yaxes(title_text=f"{found['metric']} on test images", gridcolor="#e7ebef")
    return figure


def _said(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Settings with those of their parts, as names and texts."""
    lines: list[tuple[str, str]] = []
    for name, value in settings.items():
        parts = value.items() if isinstance(value, dict) else [(None, value)]
        for part, said in parts:
            text = ", ".join(map(str, said)) if isinstance(said, list) else str(said)
            lines.append((name if part is None else f"{name}: {part}", text))
    return lines

"""A drawing of channel axes and the index maps between them, as a plotly figure."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import networkx as nx
import plotly.graph_objects as go

from .figures import DENSE, INK, KEPT, layout

__all__ = ["MOST_AXES", "drawing"]

MOST_AXES = 600
"""Above this many the drawing is no help to anybody; Graphviz and GraphML are for those."""


def drawing(graph: nx.MultiDiGraph) -> go.Figure:
    """Axes from left to right in the order of the data, one dot each."""
    places = positions(graph)
    figure = go.Figure()
    xs: list[float | None] = []
    ys: list[float | None] = []
    for source, target in graph.edges():
        xs += [places[source][0], places[target][0], None]
        ys += [places[source][1], places[target][1], None]
    figure.add_scatter(
        x=xs, y=ys, mode="lines", line={"color": "#b8c2cc", "width": 1}, hoverinfo="skip", showlegend=False
    )
    for name, frozen, colour in (("can be pruned", False, KEPT), ("cannot", True, DENSE)):
        nodes = [(node, data) for node, data in graph.nodes(data=True) if bool(data.get("frozen")) == frozen]
        figure.add_scatter(
            x=[places[node][0] for node, _ in nodes],
            y=[places[node][1] for node, _ in nodes],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 11, "line": {"color": INK, "width": 0.5}},
            text=[hover(data) for _, data in nodes],
            hovertemplate="%{text}<extra></extra>",
        )
    tallest = max(abs(y) for _, y in places.values())
    figure.update_layout(**layout(height=int(min(900, 240 + 50 * tallest))))
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def hover(data: dict[str, object]) -> str:
    parameters = str(data.get("parameters", ""))
    shown = parameters if len(parameters) < 200 else parameters[:200] + "…"
    lines = [f"<b>{data.get('label', '')}</b>", f"{data.get('size', '?')} channels", shown]
    return "<br>".join(line for line in lines if line)


def positions(graph: nx.MultiDiGraph) -> dict[Any, tuple[float, float]]:
    """Column = longest way from an input; rows are spread evenly about the middle.

    Axes are numbered in the order of the data. A way back, as from a residual branch to its sum, does not count.
    """
    column: dict[Any, int] = {}
    for node in graph:
        # Predecessors that have a column are those that come earlier in the data.
        column[node] = max((column[before] + 1 for before in graph.predecessors(node) if before in column), default=0)
    members: dict[int, list[Any]] = defaultdict(list)
    for node, x in column.items():
        members[x].append(node)
    return {
        node: (float(x), row - (len(nodes) - 1) / 2) for x, nodes in members.items() for row, node in enumerate(nodes)
    }

"""What can be pruned in a model and what cannot, for a person (HTML), for Graphviz, for GraphML tools, and as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from ...passes.outcome import Barrier

if TYPE_CHECKING:
    from ...passes.dependency import DependencyView

__all__ = ["SCHEMA", "Explanation", "Group", "explain"]

SCHEMA = "reconvene.explanation/1"


@dataclass(frozen=True)
class Group:
    """Channels that can only go together."""

    name: str
    channels: int
    prunable: bool
    reason: str | None
    """Why it cannot be pruned."""
    cost: int
    """Parameters that go with one channel."""
    parameters: tuple[str, ...]
    values: tuple[str, ...]
    """Nodes of the graph that carry the channels."""


@dataclass(frozen=True)
class Explanation:
    """The dependency view of one model, ready to be shown."""

    title: str
    graph: nx.MultiDiGraph
    """Channel axes and the index maps between them; every attribute is a string, a number or a bool."""
    groups: tuple[Group, ...]
    barriers: tuple[Barrier, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON's types only: groups, barriers, axes (nodes) and index maps (edges)."""
        return {
            "schema": SCHEMA,
            "title": self.title,
            "groups": [dataclasses.asdict(group) for group in self.groups],
            "barriers": [dataclasses.asdict(barrier) for barrier in self.barriers],
            "axes": [{"id": str(node), **data} for node, data in self.graph.nodes(data=True)],
            "maps": [
                {"source": str(source), "target": str(target), **data}
                for source, target, data in self.graph.edges(data=True)
            ],
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_html(self) -> str:
        """One page that needs no network."""
        # Plotly takes its time, and the command line's table needs none of it.
        from markupsafe import Markup

        from .axes_drawing import MOST_AXES, drawing
        from .figures import figure_html
        from .page import render

        prunable = [group for group in self.groups if group.prunable]
        drawn = 0 < self.graph.number_of_nodes() <= MOST_AXES
        return render(
            "explanation.html.j2",
            title=f"What can go in {self.title}",
            explanation=self,
            prunable=prunable,
            channels=sum(group.channels for group in self.groups),
            prunable_channels=sum(group.channels for group in prunable),
            widest=max((group.channels for group in self.groups), default=1),
            drawing=Markup(figure_html(drawing(self.graph))) if drawn else None,
        )

    def to_graphml(self) -> str:
        """GraphML, for Gephi, yEd, Cytoscape and networkx."""
        buffer = io.BytesIO()
        # Nodes get their names as text: GraphML has no other identifiers.
        nx.write_graphml(nx.relabel_nodes(self.graph, str), buffer)
        return buffer.getvalue().decode("utf-8")

    def to_dot(self) -> str:
        """Graphviz: boxes are channel axes, grey ones cannot be pruned; arrows are index maps."""
        names = {node: f"n{index}" for index, node in enumerate(self.graph)}
        lines = [
            "digraph channels {",
            "  rankdir=LR;",
            '  node [shape=box, style="rounded,filled", fillcolor="#d7efe9", fontname="sans-serif"];',
            '  edge [fontname="sans-serif", fontsize=10];',
        ]
        for node, data in self.graph.nodes(data=True):
            colour = ', fillcolor="#e4e7eb"' if data.get("frozen") else ""
            text = f"{data.get('label', node)}\n{data.get('size', '?')} channels"
            lines.append(f"  {names[node]} [label={quoted(text)}{colour}];")
        for source, target, data in self.graph.edges(data=True):
            label = " ".join(str(data[key]) for key in ("kind", "operator") if data.get(key))
            lines.append(f"  {names[source]} -> {names[target]} [label={quoted(label)}];")
        return "\n".join([*lines, "}", ""])


def explain(view: DependencyView, title: str) -> Explanation:
    """Makes the explanation of a model called `title` from its dependency view."""
    groups = tuple(
        Group(
            name=group.name,
            channels=int(group.size),
            prunable=bool(group.prunable),
            reason=group.reason,
            cost=int(group.cost),
            parameters=tuple(str(parameter) for parameter in group.parameters),
            values=tuple(str(value) for value in group.values),
        )
        for group in view.groups
    )
    return Explanation(title, plain(view.graph), groups, tuple(view.barriers))


def plain(graph: nx.MultiDiGraph) -> nx.MultiDiGraph:
    """A copy whose attributes are strings, numbers and bools, as files want them."""
    copy = nx.MultiDiGraph()
    for node, data in graph.nodes(data=True):
        copy.add_node(node, **scalars(data))
    for source, target, data in graph.edges(data=True):
        copy.add_edge(source, target, **scalars(data))
    return copy


def scalars(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: scalar(value) for key, value in data.items() if value is not None}


def scalar(value: Any) -> str | int | float | bool:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, Sequence | set | frozenset):
        return ", ".join(str(item) for item in value)
    return str(value)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

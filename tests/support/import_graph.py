"""Who imports whom in this package's sources, read from their text: in functions and for types alone, too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx as nx

__all__ = ["LAYERS", "TOP", "circles", "files", "import_graph", "room_graph"]

TOP = Path(__file__).parents[2]

LAYERS = ("frontend", "passes", "backends", "driver", "reconvene")
"""The folders with code that is imported, the lowest first: each imports from itself and from what stands before it."""


@cache
def files() -> dict[str, Path]:
    """The file of every module, by the name it is imported under."""
    found = {}
    for layer in LAYERS:
        for path in sorted((TOP / layer).rglob("*.py")):
            parts = path.relative_to(TOP).with_suffix("").parts
            parts = parts if parts[0] == "reconvene" else ("reconvene", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def import_graph() -> nx.DiGraph:
    """An edge from each module to each one that a statement of it imports, wherever the statement stands."""
    graph = nx.DiGraph()
    graph.add_nodes_from(files())
    for name, path in files().items():
        graph.add_edges_from((name, other) for other in _imported(name, path) if other in files() and other != name)
    return graph


def room_graph() -> nx.DiGraph:
    """The same of rooms: a folder that has no folders is one node; other modules are nodes of their own."""
    packages = {name for name, path in files().items() if path.name == "__init__.py"}
    leaves = {name for name in packages if not any(other.startswith(f"{name}.") for other in packages)}

    def room(name: str) -> str:
        home = name if name in packages else name.rpartition(".")[0]
        return home if home in leaves else name

    graph = nx.DiGraph()
    graph.add_edges_from((room(one), room(other)) for one, other in import_graph().edges if room(one) != room(other))
    return graph


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """The groups of nodes that reach each other."""
    return [sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1]


def _imported(name: str, path: Path) -> Iterator[str]:
    home = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = home.split(".")[: len(home.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            # What is imported from a package may be a module of it.
            yield from (found if (found := f"{base}.{alias.name}") in files() else base for alias in node.names)

"""The folders are the architecture: nothing is imported upward or in a circle, and a file has one subject and an end."""

from __future__ import annotations

import networkx as nx

from .support.import_graph import LAYERS, TOP, circles, files, import_graph, room_graph

FOLDERS = (*LAYERS, "tests", "benchmarks", "docs", "requirements")
MOST_LINES = 400
TABLES = {"tests/support/operators.py"}
"""Tables of cases, which may be as long as there are cases."""


def layer(module: str) -> int:
    return LAYERS.index(
        module.split(".")[1] if module.split(".")[1:2] and module.split(".")[1] in LAYERS else "reconvene"
    )


def test_every_folder_of_code_has_its_layer() -> None:
    """So that no folder is passed over below."""
    folders = {path.parent.name for path in TOP.glob("*/__init__.py")}
    assert folders - {"tests", "benchmarks"} == set(LAYERS)
    assert len(files()) > 300 and import_graph().number_of_edges() > len(files())


def test_nothing_is_imported_upward() -> None:
    assert [edge for edge in import_graph().edges if layer(edge[0]) < layer(edge[1])] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports in functions and for types alone are counted."""
    assert circles(import_graph()) == []


def test_no_folders_import_each_other_in_a_circle() -> None:
    assert circles(room_graph()) == []


def test_circles_are_found() -> None:
    graph = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")])
    assert circles(graph) == [["a", "b", "c"]]


def test_no_file_is_long() -> None:
    paths = [path for folder in FOLDERS for path in (TOP / folder).rglob("*.py")]
    lines = {str(path.relative_to(TOP)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name for name, count in lines.items() if count > MOST_LINES} == TABLES

"""Explanations in every format hold the same groups, axes and barriers."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any, cast

import networkx as nx
import pytest

from reconvene.driver.reports.axes_drawing import positions
from reconvene.driver.reports.explanation import SCHEMA, Explanation, explain, quoted
from reconvene.passes.outcome import Barrier


@pytest.fixture
def explanation() -> Explanation:
    graph = nx.MultiDiGraph()
    graph.add_node(("x", 1), label="x[1]", size=3, frozen=True, values=("x",), parameters=())
    graph.add_node(
        ("conv", 1), label='conv "a"[1]', size=64, frozen=False, values=("conv", "relu"), parameters=("w[0]",)
    )
    graph.add_node(("cat", 1), label="cat[1]", size=128, frozen=False, values=("cat",), parameters=None)
    graph.add_edge(("x", 1), ("conv", 1), kind="mixes", operator="conv2d", node="conv")
    graph.add_edge(("conv", 1), ("cat", 1), kind="gather", operator="cat", node="cat")
    graph.add_edge(("conv", 1), ("cat", 1), kind="gather", operator="cat", node="cat")
    view = SimpleNamespace(
        graph=graph,
        groups=(
            SimpleNamespace(
                name="conv", size=64, parameters=("w",), values=("conv",), prunable=True, reason=None, cost=27
            ),
            SimpleNamespace(
                name="x", size=3, parameters=(), values=("x",), prunable=False, reason="an <input>", cost=0
            ),
        ),
        barriers=(Barrier("fft", "aten.fft_rfft", "no exact rule", "model.py:12", ("w",)),),
    )
    return explain(cast(Any, view), "Small & <neat>")


def test_json(explanation: Explanation) -> None:
    data = json.loads(explanation.to_json())
    assert data["schema"] == SCHEMA
    assert [group["name"] for group in data["groups"]] == ["conv", "x"]
    assert data["axes"][1]["values"] == "conv, relu"
    assert [edge["kind"] for edge in data["maps"]] == ["mixes", "gather", "gather"]
    assert data["barriers"][0]["source"] == "model.py:12"


def test_graphml_can_be_read_back(explanation: Explanation) -> None:
    graph = nx.read_graphml(io.BytesIO(explanation.to_graphml().encode()), force_multigraph=True)
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (3, 3)
    sizes = sorted(size for _, size in graph.nodes(data="size"))
    assert sizes == [3, 64, 128]


def test_dot_names_every_axis_and_map(explanation: Explanation) -> None:
    dot = explanation.to_dot()
    assert dot.startswith("digraph") and dot.rstrip().endswith("}")
    assert dot.count(" -> ") == 3
    assert '"conv \\"a\\"[1]\\n64 channels"' in dot


def test_dot_strings_are_escaped() -> None:
    assert quoted('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'


def test_page_shows_groups_barriers_and_a_drawing(explanation: Explanation) -> None:
    page = explanation.to_html()
    assert "Small &amp; &lt;neat&gt;" in page and "an &lt;input&gt;" in page
    assert "model.py:12" in page and "Plotly.newPlot" in page


def test_page_of_a_huge_or_empty_graph_has_no_drawing() -> None:
    graph = nx.MultiDiGraph()
    for index in range(700):
        graph.add_node(index, label=str(index), size=1, frozen=False)
    page = Explanation("huge", graph, (), ()).to_html()
    assert "too many for a drawing" in page
    assert "too many" not in Explanation("none", nx.MultiDiGraph(), (), ()).to_html().split("<body>")[1]


def test_axes_are_drawn_in_the_order_of_the_data() -> None:
    graph = nx.MultiDiGraph([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("d", "c")])
    columns = {node: x for node, (x, _) in positions(graph).items()}
    assert columns == {"a": 0, "b": 1, "c": 2, "d": 3}

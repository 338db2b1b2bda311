"""Networks in full before and after they are read, folded and fused: names, shapes, types, details."""

from __future__ import annotations

import pytest

from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.read import read_relax
from reconvene.backends.graph.text import fused_text, graph_text, runs

from ...support.golden import Golden
from ...support.stages import NETWORKS, folded, imported

network = pytest.mark.parametrize("name", NETWORKS)


@network
def test_read(name: str, golden: Golden) -> None:
    module = imported(name)
    golden(before=module["main"].script(show_meta=False), after=graph_text(read_relax(module)))


@network
def test_folded(name: str, golden: Golden) -> None:
    graph = read_relax(imported(name))
    before = graph_text(graph)
    fold_channels(graph)
    fold_margins(graph)
    golden(before=before, after=graph_text(graph))


@network
def test_fused(name: str, golden: Golden) -> None:
    graph = folded(name)
    golden(before=graph_text(graph), after=fused_text(graph))


def test_a_text_changes_nothing_and_is_the_same_again() -> None:
    for name in NETWORKS:
        first, second = folded(name), folded(name)
        nodes = list(first.nodes)
        assert fused_text(first) == fused_text(first) == fused_text(second)
        assert first.nodes == nodes


def test_numbers_in_a_row_are_written_as_runs() -> None:
    assert runs([0, 1, 2, 5, 4, 7, 8]) == "0-2 5 4 7-8"
    assert runs([]) == ""

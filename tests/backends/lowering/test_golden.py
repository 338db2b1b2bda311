"""Networks in full before and after they are planned: kernels, layouts, and the order of steps."""

from __future__ import annotations

import pytest

from reconvene.backends.graph.text import fused_text
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.plan import make_plan
from reconvene.backends.lowering.text import plan_text

from ...support.golden import Golden
from ...support.stages import NETWORKS, folded


@pytest.mark.parametrize("name", NETWORKS)
def test_planned(name: str, golden: Golden) -> None:
    graph = folded(name)
    golden(before=fused_text(graph), after=plan_text(make_plan(graph, Machine(32, 16, 2**20))))

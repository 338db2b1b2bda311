"""Whether rules know of all operands that share an axis: each operand of each operator loses channels on each of its axes."""

from __future__ import annotations

import pytest

from reconvene.frontend.errors import ReconveneError
from reconvene.passes.compaction import compact
from reconvene.passes.rules import registered

from ..support.models import Exactness, randomise
from ..support.operators import CASES
from ..support.probes import Call, calls_of, probe, probes_of

FAMILIES = sorted({type(registered()[name]).__name__ for name in CASES})
WEIGHTED = ("Convolution", "Recurrent", "RecurrentCell", "TransposedConvolution")
"""They keep all channels where a weight is computed."""


def calls_of_family(family: str) -> list[Call]:
    """One call of each kind, of all cases of the operators that share a rule."""
    found: dict[object, Call] = {}
    for name, cases in CASES.items():
        if type(registered()[name]).__name__ == family:
            for case in cases[:1] if family == "Elementwise" else cases:
                exactness = Exactness(randomise(case.build()), case.example())
                for call in calls_of(exactness.graph, exactness.example, name):
                    found.setdefault(call.kind, call)
    return list(found.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_operands_lose_together_what_they_share(family: str) -> None:
    wrong = []
    for call in calls_of_family(family):
        for asked in probes_of(call, computed=family in WEIGHTED):
            module, inputs, masks = probe(call, *asked)
            try:
                compact(module, inputs, masks)
            except ReconveneError as error:
                wrong.append(f"{call.node.format_node()} {asked}: {error}")
    assert not wrong, "\n".join(wrong[:5])

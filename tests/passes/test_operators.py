"""Every operator with a rule: exact against the eager model, and channels really go where the rule says they may."""

from __future__ import annotations

import pytest

from reconvene.passes.values import operator_name

from ..support.models import Exactness, randomise
from ..support.operators import CASES, Case, own_operators

ALL = [pytest.param(name, case, id=f"{name}-{case.label}") for name, cases in CASES.items() for case in cases]


def test_every_registered_operator_has_a_case() -> None:
    assert sorted(own_operators() - set(CASES)) == []


def test_every_case_is_about_a_registered_operator() -> None:
    assert sorted(set(CASES) - own_operators()) == []


@pytest.mark.parametrize(("name", "case"), ALL)
def test_compacted_equals_masked(name: str, case: Case) -> None:
    model = randomise(case.build())
    exactness = Exactness(model, case.example())
    assert name in {operator_name(node) for node in exactness.graph.graph.nodes if node.op == "call_function"}
    before = dict(model.named_parameters())[case.observed].shape[case.axis]
    for kind in ("M1", "M2"):
        result = exactness.check(kind)
        after = dict(result.module.named_parameters())[case.observed].shape[case.axis]
        assert (after < before) == (kind in case.prunes), f"{kind}: {after} of {before} channels stay"

"""Every operator with a rule: exact against the eager model, and channels really go where the rule says they may."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from ..support.crowds import Crowd, Member, Network
from ..support.operators import CASES, Case, own_operators

ALL = [(name, case) for name, cases in CASES.items() for case in cases]
NETWORKS: dict[Any, Case] = {}
for _, _case in ALL:
    NETWORKS.setdefault((_case.build, _case.shape, _case.inputs), _case)
PLACES = {network: place for place, network in enumerate(NETWORKS)}
"""Some cases look at other weights of one network."""

TOGETHER = 24
"""Networks in one graph."""


def test_every_registered_operator_has_a_case() -> None:
    assert sorted(own_operators() - set(CASES)) == []


def test_every_case_is_about_a_registered_operator() -> None:
    assert sorted(set(CASES) - own_operators()) == []


@lru_cache(maxsize=1)
def crowd(number: int) -> Crowd:
    """Networks that follow each other, as one model."""
    chosen = list(NETWORKS.values())[number * TOGETHER : (number + 1) * TOGETHER]
    return Crowd([Network(case.build, case.example) for case in chosen])


def misfits(case: Case, found: Member) -> list[str]:
    """Kinds of mask that leave more or fewer channels than they should."""
    before = found.before[case.observed][case.axis]
    after = {kind: shapes[case.observed][case.axis] for kind, shapes in found.after.items()}
    return [
        f"{kind}: {n} of {before} channels stay" for kind, n in after.items() if (n < before) != (kind in case.prunes)
    ]


@pytest.mark.parametrize(("name", "case"), [pytest.param(*pair, id=f"{pair[0]}-{pair[1].label}") for pair in ALL])
def test_compacted_equals_masked(name: str, case: Case) -> None:
    number, within = divmod(PLACES[case.build, case.shape, case.inputs], TOGETHER)
    found = crowd(number).member(within)
    assert name in found.operators
    assert not misfits(case, found) or not misfits(case, crowd(number).alone(within))

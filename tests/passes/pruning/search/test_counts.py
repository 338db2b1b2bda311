"""Whole units from a distribution: they use up the budget, and leave some of every part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene.passes.pruning.search.counts import counts
from reconvene.passes.pruning.search.distribution import initial
from reconvene.passes.pruning.search.parts import Part, capacity, total


@st.composite
def cases(draw: st.DrawFn, most_price: int = 1) -> tuple[np.ndarray, list[Part], int]:
    """Parts of which one can lose something, a distribution over these, and a budget."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    parts = [
        Part(str(place), size, draw(st.integers(0, size - 1)), draw(st.integers(1, most_price)))
        for place, size in enumerate(sizes)
    ]
    raw = np.array([draw(st.floats(1e-4, 1)) if part.most else 0.0 for part in parts])
    return raw / raw.sum() if raw.any() else raw, parts, draw(st.integers(0, total(parts)))


@given(cases())
def test_they_add_up_to_the_budget_and_empty_no_part(case: tuple[np.ndarray, list[Part], int]) -> None:
    distribution, parts, budget = case
    found = counts(distribution, parts, budget)
    assert sum(found) == min(budget, capacity(parts))
    assert all(0 <= count <= part.most < part.size for count, part in zip(found, parts, strict=True))


@given(cases())
def test_where_all_have_units_each_is_within_one_of_its_share(case: tuple[np.ndarray, list[Part], int]) -> None:
    distribution, parts, budget = case
    wanted = distribution * budget
    if all(share <= part.most for share, part in zip(wanted, parts, strict=True)):
        assert np.abs(np.array(counts(distribution, parts, budget)) - wanted).max() < 1


@given(cases(most_price=5))
def test_of_units_with_prices_no_more_would_fit(case: tuple[np.ndarray, list[Part], int]) -> None:
    distribution, parts, budget = case
    found = counts(distribution, parts, budget)
    left = budget - sum(count * part.price for count, part in zip(found, parts, strict=True))
    assert left >= 0
    assert all(part.price > left for count, part in zip(found, parts, strict=True) if count < part.most)


def test_by_hand() -> None:
    parts = [Part("a", 10, 9), Part("b", 10, 9), Part("c", 4, 3), Part("held", 50, 0)]
    assert counts(np.array([0.5, 0.25, 0.25, 0.0]), parts, 8) == (4, 2, 2, 0)
    # 8 for c, which has 3; the other 5 are two to one for a and b: 8 + 3.33 and 4 + 1.67.
    assert counts(np.array([0.4, 0.2, 0.4, 0.0]), parts, 18) == (9, 6, 3, 0)
    assert counts(np.array([0.4, 0.2, 0.4, 0.0]), parts, 100) == (9, 9, 3, 0)
    # Remainders .5, .3 and .2 of 5: the first gets what is left.
    assert counts(np.array([0.5, 0.3, 0.2, 0.0]), parts, 1) == (1, 0, 0, 0)


def test_a_unit_stands_for_as_many_filters_as_its_price() -> None:
    parts = [Part("one", 20, 19), Part("four", 10, 9, price=4)]
    assert initial(parts) == pytest.approx([1 / 3, 2 / 3])
    assert counts(initial(parts), parts, 12) == (4, 2)
    assert counts(initial(parts), parts, 3) == (3, 0)


def test_a_part_of_which_nothing_would_stay_is_none() -> None:
    for size, most, price in ((3, 3, 1), (0, 0, 0), (4, -1, 1)):
        with pytest.raises(ValueError, match="no part"):
            Part("x", size, most, price)

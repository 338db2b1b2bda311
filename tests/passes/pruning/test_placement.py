"""The search that places methods: what it tries, and when it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene.passes.pruning.placement import Placed, halvings


def test_halvings_by_hand() -> None:
    tried = list(halvings(lambda share: share, lambda share: round(100 * (1 - share)), 30, most=4))
    assert tried == [(0.5, 0.5, 50), (0.75, 0.75, 25), (0.625, 0.625, 38), (0.6875, 0.6875, 31)]


def test_a_size_that_is_near_enough_ends_it() -> None:
    tried = halvings(lambda share: share, lambda share: round(1000 * (1 - share)), 100, first=0.8, tolerance=0.01)
    assert [size for _, _, size in tried] == [200, 100]


@given(st.integers(0, 10_000), st.floats(0.01, 0.99), st.floats(0.3, 3.0))
def test_the_nearest_is_as_near_as_the_last_halving_allows(wanted: int, first: float, power: float) -> None:
    def size(share: float) -> int:
        return round(10_000 * (1 - share) ** power)

    shares = [share for share, _, _ in halvings(lambda share: share, size, wanted, first=first, most=20)]
    assert all(0 <= share < 1 for share in shares) and len(shares) == 20
    last = shares[-1]
    around = size(max(last - 2**-19, 0.0)), size(min(last + 2**-19, 1.0))
    assert around[1] <= wanted <= around[0]


def test_a_miss_has_a_sign() -> None:
    assert Placed("weights", 200, 190, 0.9).miss == pytest.approx(-0.05)
    assert Placed("weights", 0, 0, 0.9).miss == -1

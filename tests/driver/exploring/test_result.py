"""The front of points, by hand and by its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconvene.driver.exploring.result import front


def test_a_front_by_hand() -> None:
    points = {"dense": (10.0, 0.9), "slow": (8.0, 0.7), "good": (5.0, 0.8), "same": (5.0, 0.8), "fast": (2.0, 0.5)}
    assert front(points) == ("dense", "good", "same", "fast")
    assert front({**points, "best": (2.0, 0.9)}) == ("best",)
    assert front({}) == ()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_everything_else_is_beaten_by_the_front(pairs: list[tuple[int, int]]) -> None:
    points = {str(place): (float(time), float(accuracy)) for place, (time, accuracy) in enumerate(pairs)}
    best = front(points)
    assert best
    for name, (time, accuracy) in points.items():
        better = [
            one for one in best if points[one][0] <= time and points[one][1] >= accuracy and points[one] != points[name]
        ]
        assert bool(better) == (name not in best)

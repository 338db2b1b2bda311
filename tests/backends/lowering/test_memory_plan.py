"""Values in one block of memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconvene.backends.lowering.memory_plan import Interval, largest_live_set, plan_memory


def test_a_chain_takes_its_widest_pair() -> None:
    """Each value lives from its own step to the next, so two are alive at a time."""
    chain = [Interval(size, step, step + 1) for step, size in enumerate((100, 40, 70, 30))]
    offsets, total = plan_memory(chain, 1)
    assert total == 140
    assert offsets == (0, 100, 0, 70)


def test_what_never_meets_shares() -> None:
    assert plan_memory([Interval(8, 0, 1), Interval(8, 2, 3)], 8) == ((0, 0), 8)
    assert plan_memory([], 8) == ((), 0)


intervals = st.builds(
    lambda size, first, length: Interval(size, first, first + length),
    st.integers(0, 300),
    st.integers(0, 12),
    st.integers(0, 6),
)


@given(st.lists(intervals, max_size=14), st.sampled_from([1, 8, 64]))
def test_no_two_overlap(values: list[Interval], alignment: int) -> None:
    offsets, total = plan_memory(values, alignment)
    for i, (a, start) in enumerate(zip(values, offsets, strict=True)):
        assert start % alignment == 0 and start + a.size <= total
        for b, other in list(zip(values, offsets, strict=True))[i + 1 :]:
            if a.meets(b) and a.size and b.size:
                assert start + a.size <= other or other + b.size <= start
    # No better than what is alive at once, no worse than everything side by side.
    alive = [sum(v.size for v in values if v.first <= step <= v.last) for step in range(20)]
    assert largest_live_set(values) == max(alive)
    assert max(alive) <= total <= sum(-(-v.size // alignment) * alignment for v in values)

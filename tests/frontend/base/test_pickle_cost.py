"""Pickles whose keys cannot be hashed in time are told from all others without being unpickled."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from reconvene.frontend.base.pickle_cost import check_pickle_cost


def doubled(levels: int, width: int = 2) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = (value,) * width
    return value


def as_key(levels: int) -> bytes:
    """A dict with such a key, written as no pickler can: it would have to be hashed for it."""
    return b"\x80\x02}(" + b"K\x01q\x00" + b"0h\x00h\x00\x86q\x00" * levels + b"K\x01u."


def nested(levels: int) -> bytes:
    return b"\x80\x02" + b")" + b"\x85" * levels + b"."


@pytest.mark.parametrize("protocol", range(5))
def test_doubling_tuples_are_refused(protocol: int) -> None:
    with pytest.raises(ValueError, match="tuples in tuples"):
        check_pickle_cost(pickle.dumps(doubled(34), protocol))
    with pytest.raises(ValueError, match="tuples in tuples"):
        check_pickle_cost(pickle.dumps(1, 2) + pickle.dumps(doubled(12, width=5), protocol))


def test_keys_and_depth_are_counted_together() -> None:
    check_pickle_cost(as_key(10))
    assert pickle.loads(as_key(3)) == {(((1, 1), (1, 1)), ((1, 1), (1, 1))): 1}
    for content in (as_key(34), nested(10_000), b"\x80\x02}" + as_key(20)[3:-2] + b"u(" + b"h\x00K\x01" * 100 + b"u."):
        with pytest.raises(ValueError, match="tuples in tuples"):
            check_pickle_cost(content)


@pytest.mark.parametrize("protocol", range(5))
def test_all_others_pass(protocol: int) -> None:
    shared = (0.9, 0.999)
    values = {
        "groups": [{"betas": shared, "of": shared} for _ in range(1000)],
        "sizes": {(3, 3): 1},
        "set": {1, (2, 3)},
    }
    check_pickle_cost(pickle.dumps(values, protocol) + b"numbers")


@pytest.mark.parametrize("content", [b"", b"weights", b"\x80\x02h\x05.", b"\x80\x02\x86.", pickle.dumps([1, 2])[:-2]])
def test_what_is_no_pickle_passes(content: bytes) -> None:
    check_pickle_cost(content)


def test_values_are_not_hashed_and_items_may_be() -> None:
    losses = tuple(range(100_000))
    check_pickle_cost(pickle.dumps({name: {"losses": losses} for name in range(200)}))
    with pytest.raises(ValueError, match="tuples in tuples"):
        check_pickle_cost(pickle.dumps([(losses, name) for name in range(200)]))

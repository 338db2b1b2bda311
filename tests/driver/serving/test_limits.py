"""Limits that make no sense, and systems that allow less."""

from __future__ import annotations

import pytest

from reconvene.driver.serving.gate import most_connections
from reconvene.driver.serving.limits import Limits
from reconvene.frontend.base.errors import InputError


def test_limits_have_sense() -> None:
    with pytest.raises(InputError, match="the limit headers is 0; give more than 0"):
        Limits(headers=0)
    with pytest.raises(InputError, match="the limit idle is nan; give more than 0"):
        Limits(idle=float("nan"))
    with pytest.raises(InputError, match="less than the 8 MiB of a single one"):
        Limits(body=8 << 20, bodies=7 << 20)


def test_there_are_no_more_connections_than_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = 5
    monkeypatch.setattr("resource.getrlimit", lambda which: (allowed, allowed))
    with pytest.raises(InputError, match="may open 5 files, too few to serve"):
        most_connections(Limits())
    allowed = 1 << 20
    assert most_connections(Limits()) == 1024
    allowed = 500
    assert 1 <= most_connections(Limits()) < 500
    allowed = -1  # As many as one likes.
    assert most_connections(Limits(connections=7)) == 7

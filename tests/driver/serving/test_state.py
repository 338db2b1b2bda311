"""The note of what was served last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconvene.backends.signature import TensorSpec
from reconvene.driver.portfolio.manifest import Portfolio, Variant
from reconvene.driver.serving.state import commit, committed, default_state_file
from reconvene.frontend.base.errors import InputError

SPECS = (TensorSpec("x", (1,), "float32"),)
PORTFOLIO = Portfolio(
    Path("net"), "net", SPECS, SPECS, tuple(Variant(name, None, 1, 1, 4, 1, {}, 4, {}) for name in ("large", "small"))
)


def test_out_and_in_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    assert committed(path, PORTFOLIO) is None
    for name in ("small", "large"):
        commit(path, PORTFOLIO, name)
        assert committed(path, PORTFOLIO) == name
    assert [found.name for found in path.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "\0", "[" * 100_000, "{}"]
    + [
        json.dumps({"format": 1, "portfolio": "net", "variant": "small", **other})
        for other in (
            {"format": 2},
            {"portfolio": "other"},
            {"variant": "../small"},
            {"variant": ["small"]},
            {"variant": None},
        )
    ],
)
def test_what_cannot_be_used_counts_as_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    assert committed(path, PORTFOLIO) is None


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        commit(tmp_path / "file" / "state.json", PORTFOLIO, "small")


def test_the_users_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = default_state_file(PORTFOLIO)
    assert path.parent == tmp_path / "reconvene" / "serving" and path.name.startswith("net-")

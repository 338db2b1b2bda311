"""What a person may write for a place."""

from __future__ import annotations

import pytest

from reconvene.backends.boards.place import Place, parse_place
from reconvene.frontend.base.errors import InputError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("rpc://pi:9090", Place("rpc", "pi", 9090)),
        ("rpc://10.0.0.7:1/kitchen", Place("rpc", "10.0.0.7", 1, "kitchen")),
        ("rpc://[::1]:9090", Place("rpc", "::1", 9090)),
        ("tracker://lab:9190/rpi4", Place("tracker", "lab", 9190, "rpi4")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place
    assert str(place) == text


@pytest.mark.parametrize(
    "text",
    ["rpc://", "rpc://pi", "rpc://pi:none", "rpc://pi:99999", "http://pi:80", "tracker://lab:9190", "rpc://pi:1/a/b"],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(InputError, match=r"write rpc://HOST:PORT|add their key") as caught:
        parse_place(text)
    assert "\n" not in str(caught.value)

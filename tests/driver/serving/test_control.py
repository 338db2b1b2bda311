"""Who may switch variants: pages in browsers, names that lead here, and tokens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from reconvene.driver.serving.control import TOKEN_VARIABLE, Control, read_token
from reconvene.driver.serving.protocol import RequestError
from reconvene.frontend.base.errors import InputError

JSON = {"content-type": "application/json"}
TOKEN = "0123456789abcdef"


def answer(control: Control, headers: dict[str, str], unix: bool = False) -> int:
    """The status with which it is refused; 200 if it is not."""
    try:
        control.check(Headers(headers), unix)
    except RequestError as error:
        assert error.limit == "control" and "\n" not in str(error) and str(error).isascii()
        return error.status
    return 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.5", 200),
        ("pi.local:80", 200),
        ("PI.local.", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example#localhost", 403),
        ("localhost@evil.example", 403),
        ("[::1", 403),
        ("", 403),
        ("\xff", 403),
    ],
)
def test_names_that_were_made_to_lead_here(host: str, status: int) -> None:
    control = Control(["pi.local"])
    assert answer(control, {"host": host, **JSON}) == status
    assert answer(control, {"host": host, **JSON}, unix=True) == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("https://LOCALHOST:8000", 200),
        ("http://localhost:3000", 403),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://localhost:8000", 403),
        ("http://[", 403),
    ],
)
def test_pages_from_elsewhere(origin: str, status: int) -> None:
    assert answer(Control(), {"host": "localhost:8000", "origin": origin, **JSON}) == status


def test_forms_cannot_switch() -> None:
    """What a page may send without being asked, and what programs send that name no type."""
    host = {"host": "localhost"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonp"):
        assert answer(Control(), {**host, "content-type": kind}) == 415
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        assert answer(Control(), {**host, "content-type": kind}) == 200
    assert answer(Control(), host) == 200
    for name in ("referer", "cookie", "sec-fetch-site", "sec-fetch-mode"):
        assert answer(Control(), {**host, name: "x"}) == 415


def test_tokens() -> None:
    control, told = Control(token=TOKEN), {"host": "localhost", **JSON}
    assert answer(control, told) == 401
    for given in (TOKEN, f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}0", f"Bearer {TOKEN[:-1]}", "Bearer \xff"):
        assert answer(control, {**told, "authorization": given}) == 401
    for given in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert answer(control, {**told, "authorization": given}) == 200
    # The right token makes no page welcome; a Unix socket needs none.
    known = {"host": "evil.example", "authorization": f"Bearer {TOKEN}", **JSON}
    assert (answer(control, known), answer(control, told, unix=True)) == (403, 200)


def test_where_tokens_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-the-environment")
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    for mode in (0o604, 0o640, 0o660):
        file.chmod(mode)
        with pytest.raises(InputError, match=r"others may read the control token '.*'; chmod 600 it"):
            read_token(file)
    file.chmod(0o600)
    assert (read_token(None), read_token(file)) == ("from-the-environment", TOKEN)
    os.mkfifo(tmp_path / "fifo")
    for name, message in (("fifo", "it is no regular file"), ("none", "No such file"), (".", "Is a directory")):
        with pytest.raises(InputError, match=message):
            read_token(tmp_path / name)
    for text in ("", "short", "0123456789 abcdef", "0123456789abcdef\nsecond", "0123456789abcde\xe9", "x" * 5000):
        file.write_text(text)
        with pytest.raises(InputError, match="openssl rand -hex 32") as caught:
            read_token(file)
        assert text[:5] == "" or text[:5] not in str(caught.value)
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    with pytest.raises(InputError, match=f"in {TOKEN_VARIABLE} is not"):
        read_token(None)

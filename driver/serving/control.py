"""Who may switch variants: no page in a browser that came from elsewhere, and whoever knows the token if there is one."""

from __future__ import annotations

import hmac
import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from ...frontend.base.errors import InputError
from ...frontend.base.secret_files import read_secret
from .protocol import RequestError

__all__ = ["TOKEN_VARIABLE", "Control", "read_token"]

TOKEN_VARIABLE = "RECONVENE_CONTROL_TOKEN"
"""Environment variable with the token."""

_MIN_CHARACTERS, _MAX_CHARACTERS = 16, 4096
"""Characters of a token."""

_ADVICE = "make one with: openssl rand -hex 32"

_BROWSER = ("origin", "referer", "cookie", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")
"""Headers that browsers send; any of them tells that a page may be behind the request."""


class Control:
    """Decides on requests to switch.

    Args:
        hosts: names under which clients reach the server, beside addresses, ``localhost`` and this machine's own.
        token: what they must know; None if nothing.
    """

    def __init__(self, hosts: Sequence[str] = (), token: str | None = None) -> None:
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, own.partition(".")[0], *(host.lower().rstrip(".") for host in hosts)}
        self._token = None if token is None else token.encode()

    def check(self, headers: Headers, unix: bool) -> None:
        """Raises RequestError if a request with these headers may not switch.

        Args:
            unix: whether it came over a Unix socket, which only this user's programs reach and no browser.
        """
        if unix:
            return
        host = headers.get("host", "")
        if not self._known(_hostname(host)):
            raise _refused(403, f"the host '{_shown(host)}' is not one of this server; name it with --allow-host")
        origin = headers.get("origin")
        if origin is not None and _authority(origin) != host.lower():
            raise _refused(403, f"a page of '{_shown(origin)}' may not switch variants")
        kind = headers.get("content-type")
        if kind is None:
            named = not any(name in headers for name in _BROWSER)
        else:
            named = kind.partition(";")[0].strip().lower() == "application/json"
        if not named:
            raise _refused(415, "a request to switch must have the content type application/json")
        if self._token is not None and not self._knows(headers.get("authorization", "")):
            raise _refused(401, "a request to switch needs the control token, as in 'Authorization: Bearer TOKEN'")

    def _known(self, host: str) -> bool:
        """A page that made its own name lead here (DNS rebinding) has that name in its requests, and not an address."""
        return host in self._hosts or _is_address(host)

    def _knows(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        assert self._token is not None
        same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        return scheme.lower() == "bearer" and same


def read_token(path: Path | None) -> str | None:
    """The token in a file, or in the environment variable `TOKEN_VARIABLE`; None without either.

    Raises:
        InputError: the file cannot be read, others may read it, or it holds no token of 16 printable characters or more.
    """
    if path is None:
        found, where = os.environ.get(TOKEN_VARIABLE), f"in {TOKEN_VARIABLE}"
        if found is None:
            return None
    else:
        contents = read_secret(path, "the control token", _MIN_CHARACTERS, _MAX_CHARACTERS, _ADVICE)
        found, where = contents.decode("ascii", "replace"), f"in '{path}'"
    token = found.strip()
    if not _MIN_CHARACTERS <= len(token) <= _MAX_CHARACTERS or not all("!" <= letter <= "~" for letter in token):
        raise InputError(
            f"the control token {where} is not {_MIN_CHARACTERS} to {_MAX_CHARACTERS} printable characters without spaces;"
            f" {_ADVICE}"
        )
    return token


def _hostname(host: str) -> str:
    """The host of ``host:port``, in small letters; nothing if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _authority(origin: str) -> str | None:
    """The ``host:port`` of an origin; None of one that has none, such as ``null``."""
    try:
        found = urlsplit(origin)
    except ValueError:
        return None
    return found.netloc.lower() if found.scheme in ("http", "https") else None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refused(status: int, message: str) -> RequestError:
    return RequestError(message, status, "control")


def _shown(text: str) -> str:
    return text[:80].encode("ascii", "backslashreplace").decode()

"""What a request's head must be, beyond what the parser demands: said once, and read in one way by whoever reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["head_fault"]

_ONCE = (b"host", b"origin", b"content-type", b"authorization", b"inference-header-content-length")
"""Headers of which readers take the first or the last, if there are several."""

_AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(?:[/?].*)?", re.IGNORECASE)


def head_fault(target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """What is wrong with a request's head; None if nothing is.

    Args:
        target: of the request line. If it is a whole URL, its host is what counts (RFC 9112, 3.2.2), and has to be ``Host``.
        version: of HTTP.
        headers: names in small letters.
    """
    found = {name: [value for key, value in headers if key == name] for name in _ONCE}
    hosts = found[b"host"]
    if not hosts and version == "1.1":
        return "the request has 0 Host headers instead of one"
    for name, values in found.items():
        if len(values) > 1:
            return f"the request has {len(values)} {name.decode().title()} headers instead of one"
    host = hosts[0] if hosts else b""
    if not _AUTHORITY.fullmatch(host):
        return "the request has a Host that is no name with a port"
    if version != "1.1" and any(name == b"transfer-encoding" for name, _ in headers):
        return "the request has a Transfer-Encoding, which HTTP/1.0 does not have"
    return _target_fault(target, host)


def _target_fault(target: bytes, host: bytes) -> str | None:
    if b"#" in target:
        return "the request has a target with a fragment, which clients keep to themselves"
    if target.startswith(b"/") or target == b"*":
        return None
    whole = _ABSOLUTE.fullmatch(target)
    if whole is None:
        return "the request has a target that is no path"
    return None if whole[1].lower() == host.lower() else "the request has a target of another host than its Host header"

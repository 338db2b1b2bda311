"""Heads of requests that two readers would read in two ways."""

from __future__ import annotations

import pytest

from reconvene.driver.serving.heads import head_fault

HOST = (b"host", b"localhost:8000")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/v2?x=1",
        b"*",
        b"//a/b",
        b"http://localhost:8000/v2",
        b"HTTP://LocalHost:8000",
        b"https://localhost:8000?x",
    ],
)
def test_targets(target: bytes, version: str) -> None:
    assert head_fault(target, version, [HOST, (b"x", b"1"), (b"x", b"2")]) is None


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a",
        b"a.b-c_d",
        b"127.0.0.1",
        b"[::1]",
        b"[::1]:80",
        b"a:",
        b"xn--nxasmq6b.example:65535",
        b"%2Ftmp%2Fsocket",
    ],
)
def test_hosts(host: bytes) -> None:
    assert head_fault(b"/", "1.1", [(b"host", host)]) is None


@pytest.mark.parametrize(
    ("target", "headers", "fault"),
    [
        (b"/", [], "0 Host headers instead of one"),
        (b"/", [HOST, HOST], "2 Host headers instead of one"),
        (b"/", [HOST, *[(b"origin", b"http://localhost:8000")] * 3], "3 Origin headers instead of one"),
        (b"/", [HOST, *[(b"content-type", b"application/json")] * 2], "2 Content-Type headers"),
        (b"/", [HOST, *[(b"authorization", b"Bearer x")] * 2], "2 Authorization headers"),
        (b"/", [HOST, *[(b"inference-header-content-length", b"1")] * 2], "2 Inference-Header-Content-Length headers"),
        *[
            (b"/", [(b"host", host)], "no name with a port")
            for host in (b"evil@localhost", b"localhost/evil", b"localhost, evil", b"a b", b"a:b", b"a:123456",
                         b"[::1", b"\xff",
                         b"localhost?x", b"localhost#x", b"localhost\\evil")
        ],
        (b"http://evil/v2", [HOST], "another host than its Host header"),
        (b"http://localhost/v2", [HOST], "another host than its Host header"),
        (b"http://localhost:8000@evil/v2", [HOST], "another host than its Host header"),
        (b"http:///v2", [HOST], "another host than its Host header"),
        (b"ftp://localhost:8000/v2", [HOST], "no path"),
        (b"localhost:8000", [HOST], "no path"),
        (b"http:v2", [HOST], "no path"),
        (b"v2", [HOST], "no path"),
        (b"", [HOST], "no path"),
        (b"/v2#x", [HOST], "with a fragment"),
        (b"http://localhost:8000/v2#x", [HOST], "with a fragment"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways(target: bytes, headers: list[tuple[bytes, bytes]], fault: str) -> None:
    found = head_fault(target, "1.1", headers)
    assert found is not None and fault in found


def test_an_older_version() -> None:
    assert head_fault(b"/", "1.0", []) is None
    found = head_fault(b"/", "1.0", [(b"transfer-encoding", b"chunked")])
    assert found == "the request has a Transfer-Encoding, which HTTP/1.0 does not have"
    assert head_fault(b"/", "1.1", [HOST, (b"transfer-encoding", b"chunked")]) is None

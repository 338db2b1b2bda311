"""A real server process beside hostile clients: every way to ask for what is not there, and what is no request."""

from __future__ import annotations

import contextlib
import json
import random
import socket

import pytest

from .servers import JSON_REQUEST, Server, answered, healthy, parsed

PATHS = [
    "/etc/passwd",
    "/v2/models/../../../../etc/passwd",
    "/v2/models/..%2f..%2f..%2fetc%2fpasswd",
    "/v2/models/%2e%2e/infer",
    "/v2/models/tiny/versions/../../../portfolio.json",
    "/v2/models/tiny/versions/..%2f..%2fportfolio.json/ready",
    "/v2/models/tiny/versions/%2e%2e%2flarge/infer",
    "/v2/models/tiny%00/ready",
    "/v2/models//etc/passwd",
    "/v2/repository/models/..%2ftiny/load",
    "/portfolio.json",
    "/variants/large/model.pt2",
]
NAMES = [
    "..",
    "../large",
    "/etc/passwd",
    "large/../large",
    "large\0",
    "%2e%2e%2flarge",
    "variants/large/host",
    "",
    "\ud800",
]


def exchanged(server: Server, data: bytes, seconds: float = 5) -> bytes:
    """What the server answers to these very bytes. We close our side behind them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
        found.settimeout(seconds)
        found.connect(str(server.unix))
        answer = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            found.sendall(data)
            found.shutdown(socket.SHUT_WR)
            while part := found.recv(1 << 16):
                answer += part
        return answer


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere(server: Server, method: str, path: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    status, body = parsed(exchanged(server, head.encode()))
    assert status in (400, 404, 405)
    assert set(json.loads(body)) == {"error"}
    assert b"root:" not in body and b"format" not in body


def test_names_lead_nowhere(server: Server) -> None:
    with server.client() as client:
        for name in NAMES:
            wish = json.dumps({"parameters": {"variant": name}})
            answer = client.post("/v2/repository/models/tiny/load", content=wish)
            assert answer.status_code == 404 and "has no variant" in answer.json()["error"]
            tensor = {**JSON_REQUEST["inputs"][0], "name": name}
            answer = client.post("/v2/models/tiny/infer", content=json.dumps({"inputs": [tensor]}))
            assert answer.status_code == 400 and "has no input" in answer.json()["error"]
            asked = json.dumps({**JSON_REQUEST, "outputs": [{"name": name}]})
            answer = client.post("/v2/models/tiny/infer", content=asked)
            assert answer.status_code == 400 and "has no output" in answer.json()["error"]
        for wish in ({}, [], {"parameters": {"variant": 3}}, {"parameters": {"config": "{"}}, {"parameters": []}):
            answer = client.post("/v2/repository/models/tiny/load", json=wish)
            assert answer.status_code == 400 and answer.json()["error"]
    healthy(server)


def spoilt(generator: random.Random) -> bytes:
    """An HTTP request with one thing or another wrong: in its bytes, its JSON, its lengths, or its headers."""
    text = json.dumps(JSON_REQUEST).encode()
    kind = generator.randrange(6)
    headers = {"Host": "x", "Connection": "close", "Content-Type": "application/json"}
    if kind == 0:  # Bytes of the JSON.
        data = bytearray(text)
        for _ in range(generator.randrange(1, 9)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        text = bytes(data)
    elif kind == 1:  # A part of it.
        text = text[: generator.randrange(len(text))]
    elif kind == 2:  # Another value in the place of one.
        value = json.loads(text)
        value["inputs"][0][generator.choice(["name", "shape", "datatype", "data"])] = generator.choice(
            [None, -1, 1e300, [], {}, "x", [[1]], [1, 3, 8, 8.5], ["a"] * 192, [[]] * 192, True, [2**70] * 192]
        )
        text = json.dumps(value).encode()
    elif kind == 3:  # Lengths of binary data.
        value = json.loads(text)
        del value["inputs"][0]["data"]
        value["inputs"][0]["parameters"] = {"binary_data_size": generator.choice([768, 767, -1, 1e9, "768", None])}
        text = json.dumps(value).encode()
        headers["Inference-Header-Content-Length"] = str(generator.choice([len(text), len(text) - 5, -1, 10**9, "x"]))
        text += bytes(generator.randrange(768))
    elif kind == 4:  # Headers.
        extra = generator.choice(["Content-Encoding", "Transfer-Encoding", "Content-Length", "Expect"])
        headers[extra] = generator.choice(["gzip", "-5", "99999999999999999999", "chunked, gzip", "\x01", "7"])
    else:  # Anything at all.
        return generator.randbytes(generator.randrange(1, 400))
    headers.setdefault("Content-Length", str(len(text)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /v2/models/tiny/infer HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + text


def test_a_thousand_malformed_requests(server: Server) -> None:
    generator = random.Random(7)
    statuses: list[int] = []
    for index in range(1000):
        answer = exchanged(server, spoilt(generator))
        # A request that ends too early has nobody left to answer to.
        if answer:
            status, body = parsed(answer)
            statuses.append(status)
            assert 400 <= status < 500 or (status == 200 and json.loads(body)["model_version"] == "large"), body
            if status != 200:
                (message,) = json.loads(body).values()
                assert message and "\n" not in message and len(message) < 500
        if index % 100 == 0:
            healthy(server)
    # Most were refused with words; a few were harmless, such as another digit in a number.
    assert statuses.count(400) > 500 and statuses.count(200) < 200


def test_limits(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/v2/models/tiny/infer", content=b" " * ((1 << 20) + 1))
        assert (answer.status_code, answer.json()) == (413, {"error": "the request is longer than 1048576 bytes"})
        endless = client.post("/v2/models/tiny/infer", content=(b" " * 65536 for _ in range(20)))
        assert endless.status_code == 413
        packed = client.post("/v2/models/tiny/infer", content=b"x", headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 415
        assert client.get("/v2/models/tiny/infer").status_code == 405
    slow = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
        found.settimeout(10)
        found.connect(str(server.unix))
        found.sendall(slow)
        status, body = answered(found)
    assert (status, json.loads(body)) == (408, {"error": "the request's body did not come within 2 s"})

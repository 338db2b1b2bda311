"""Inputs for the server from a seed: bytes to send, and what must be true of the answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from attacks.served import NAME, post

INFER = f"/v2/models/{NAME}/infer"
LOAD = f"/v2/repository/models/{NAME}/load"
SHAPE, COUNT = [1, 3, 8, 8], 192
LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Input:
    """What one client sends.

    Attributes:
        pieces: sent one after the other, in packets of their own.
        right: how many right answers of the model there must be; None if that is not known.
        most: how many answers there may be; more would mean that bytes of a body were taken for a request.
    """

    kind: str
    pieces: Sequence[bytes]
    right: int | None = None
    most: int = 1


def make(seed: int, number: int) -> Input:
    """Input `number` of `seed`: always the same."""
    generator = random.Random(f"{seed} {number}")
    kind, maker = list(KINDS.items())[number % len(KINDS)]
    return maker(generator, kind)


def values() -> dict[str, Any]:
    """A request that is in order."""
    data = [round(0.01 * index - 1, 2) for index in range(COUNT)]
    return {"inputs": [{"name": "input", "shape": SHAPE, "datatype": "FP32", "data": data}]}


def request() -> bytes:
    return post(INFER, json.dumps(values()).encode(), close=True)


def _heads(rng: random.Random, kind: str) -> Input:
    method = rng.choice(["GET", "POST", "G\x00T", "get", "", "OPTIONS", "PRI", "CONNECT", "\x16\x03\x01", "A" * 5000])
    target = rng.choice(
        ["/v2", INFER, "*", "http://[", "//", "/\x01", "/%", "/%ff%00", "/" + "a" * 70_000, "x:1", "?", "/ü"]
        + [
            f"{scheme}://{host}{LOAD}"
            for scheme in ("http", "ftp")
            for host in ("localhost", "evil.example", "a@localhost")
        ]
    )
    version = rng.choice(
        ["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.10", "http/1.1", "", "HTTP/1.1 x", "HTTP/9"]
    )
    headers = [f"Host: {rng.choice(['localhost'] * 3 + ['evil@localhost', 'localhost/x'])}"] * rng.choice(
        [0, 1, 1, 1, 2]
    )
    odd = [
        "X", "X :1", ": x", "X: a\r\n b", "X:\x00", "X: \x7f", "X\x01: 1", "Host: ", "X: " + "y" * 70_000, "Ä: ö",
        "Connection: upgrade\r\nUpgrade: websocket", "Expect: 100-continue", "Expect: x", "Content-Length: ",
        "Cookie: " + "z" * 9000,
        *["Y: 1\r\n" * count + "Y: 1" for count in (3, 98, 200, 20_000)],
    ]  # fmt: skip
    headers += rng.sample(odd, rng.randrange(3))
    end = rng.choice(["\r\n", "\r\n", "\n", "\r"])
    return Input(kind, [end.join([f"{method} {target} {version}", *headers, "", ""]).encode("latin-1")])


def _framing(rng: random.Random, kind: str) -> Input:
    """Lengths that could be read in two ways, with a second request where one of them ends."""
    hidden = f"POST {LOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"
    length = rng.choice(
        ["0", "3", "+3", "-3", "0x3", "3, 3", "3,4", " 3", "3 ", "03", "1e1", "", "9" * 30, str(2**64 + 3), "٣"]
    )
    coding = rng.choice([
        "chunked", "Chunked", " chunked", "chunked ", "xchunked", "chunked, chunked", "chunked, identity", "identity",
        "gzip, chunked", "\tchunked", "chunked;q=1", "", '"chunked"', "chunked\x0b",
    ])  # fmt: skip
    lines = [
        *[f"Content-Length: {length}"] * rng.choice([0, 1, 1, 2]),
        *[f"{rng.choice(['Transfer-Encoding', 'transfer-encoding', 'Transfer-Encoding '])}: {coding}"]
        * rng.choice([0, 1, 1, 2]),
        "Content-Length: 4" * rng.choice([0, 0, 1]),
    ]
    rng.shuffle(lines)
    head = "\r\n".join([f"POST {INFER} HTTP/1.1", "Host: localhost", *(line for line in lines if line), "", ""])
    size = rng.choice(
        ["0", "3", "00003", "-1", "ffffffffffffffff", "f" * 40, "3;" + "x" * 80_000, "3;a=b", "3 ", "zz", "", "0x3"]
    )
    body = rng.choice(
        ["", "{}\n", f"{size}\r\n{{}}\n\r\n0\r\n\r\n", f"{size}\n{{}}\n\n0\n\n", "0\r\n" + "T: x\r\n" * 300 + "\r\n"]
    )
    twice = sum("encoding" in line.lower() for line in lines) + sum("length" in line.lower() for line in lines) > 1
    # Two answers are in order where there is one reading, by which the first request ends before the second.
    return Input(kind, [(head + body + hidden).encode("utf-8")], most=1 if twice else 2)


def _pieces(rng: random.Random, kind: str) -> Input:
    whole = request()
    cuts = sorted(rng.sample(range(1, len(whole)), rng.randrange(1, 12)))
    return Input(kind, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)], right=1)


def _pipeline(rng: random.Random, kind: str) -> Input:
    one = request().replace(b"Connection: close\r\n", b"")
    count = rng.randrange(1, 9)
    behind = rng.choice([b"", b"", b"nonsense\r\n\r\n", rng.randbytes(50), b"GET / HTTP/1.1\r\n\r\n"])
    return Input(kind, [one * count + behind], right=count, most=count + 1)


def _types(rng: random.Random, kind: str) -> Input:
    path = rng.choice([INFER, LOAD])
    types = [
        "text/plain",
        "multipart/form-data",
        "application/jsonp",
        "",
        "application/json",
        "\xff",
        "application/" + "j" * 9000,
    ]
    lines = [f"Content-Type: {rng.choice(types)}"]
    lines += [
        f"Content-Encoding: {coding}"
        for coding in rng.sample(["gzip", "br", "identity", "x", "deflate, gzip"], rng.randrange(2))
    ]
    lines += [
        f"Origin: {origin}" for origin in rng.sample(["null", "http://evil.example", "http://[", ""], rng.randrange(2))
    ]
    body = rng.choice([b"", b"{}", b'{"parameters": {"variant": "no"}}', json.dumps(values()).encode()])
    host = rng.choice(["localhost", "evil.example", "127.0.0.1:99999", "[::1", "\xff", "a" * 300])
    head = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *lines,
        "",
        "",
    ]
    return Input(kind, ["\r\n".join(head).encode("latin-1") + body])


def _json(rng: random.Random, kind: str) -> Input:
    depth = rng.choice([10, 1000, 100_000])
    texts = [
        b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b'{"inputs":' + b"[" * depth,
        b'{"inputs": [{"name": "input", "data": ' + b"[" * depth + b"]" * depth + b"}]}", b"[]," * depth,
        b'"\\ud800"', b'{"id": "\\ud800", "inputs": []}', b'{"id": "\\udfff\\ud800"}', b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}", b'{"\xed\xa0\x80": 1}', b"9" * depth, b"-" + b"1" * 5000, b'{"inputs": [' + b"1," * depth + b"1]}",
        b"1e999", b"[NaN]", b"[Infinity]", b"null", b"true", b'""', b'{"inputs": [], "inputs": null}', b'{"inputs": {}}',
        b'{"parameters": []}', b"\x00", b" " * depth, b'{"inputs": []}' + b"x" * depth,
    ]  # fmt: skip
    body = rng.choice(texts)
    if rng.random() < 0.3:
        spoilt = bytearray(json.dumps(values()).encode())
        for _ in range(rng.randrange(1, 9)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        body = bytes(spoilt)[: rng.choice([len(spoilt), rng.randrange(len(spoilt))])]
    return Input(kind, [post(rng.choice([INFER, INFER, LOAD]), body, close=True)])


def _protocol(rng: random.Random, kind: str) -> Input:
    """JSON that is in order, and does not fit the model or the protocol."""
    found = values()
    entry = found["inputs"][0]
    odd: list[Any] = [
        None, True, -1, 0, 1.5, 2**70, -(2**70), 1e308, "x", "\ud800", "../..", [], {}, [[1]], [1, 3, 8, 8.0], [True, 3, 8, 8],
        [2**62] * 4, ["1"] * COUNT, [[]] * COUNT, [1e39] * COUNT, [True] * COUNT, [0] * (COUNT + 1), "FP64", "INT64",
        {"binary_data_size": 1},
    ]  # fmt: skip
    for _ in range(rng.randrange(1, 3)):
        place = rng.choice([entry, entry, found])
        keys = (
            ["name", "shape", "datatype", "data", "parameters"]
            if place is entry
            else ["inputs", "outputs", "id", "parameters"]
        )
        place[rng.choice(keys)] = rng.choice(odd)
    if rng.random() < 0.2:
        found["outputs"] = rng.choice(
            [[{"name": "output0"}] * 2, [{}], [{"name": "output0", "parameters": {"classification": 9}}], [None]]
        )
    path = rng.choice(
        [INFER, INFER, INFER.replace("/infer", "/versions/dense/infer"), INFER.replace(NAME, "..%2f" + NAME)]
    )
    return Input(kind, [post(path, json.dumps(found).encode(), close=True)])


def _binary(rng: random.Random, kind: str) -> Input:
    """Raw tensors, with sizes that are right or not."""
    found = values()
    entry = found["inputs"][0]
    if rng.random() < 0.8:
        del entry["data"]
    sizes = [768, 767, 769, 0, -1, 10**9, 2**64, "768", None, 768.0, True, [768]]
    entry["parameters"] = {"binary_data_size": rng.choice(sizes)}
    found["parameters"] = rng.choice([{}, {"binary_data_output": True}, {"binary_data_output": 1}, None])
    text = json.dumps(found).encode()
    length = rng.choice(
        [str(len(text))] * 4 + [str(len(text) - 1), str(len(text) + 1), "0", "-1", "x", "9" * 400, "1.0", " "]
    )
    raw = rng.choice([bytes(768), rng.randbytes(768), bytes(767), bytes(4000), b""])
    return Input(kind, [post(INFER, text + raw, f"{LENGTH}: {length}", close=True)])


def _mutations(rng: random.Random, kind: str) -> Input:
    whole = bytearray(request())
    for _ in range(rng.randrange(1, 20)):
        place = rng.randrange(len(whole))
        what = rng.randrange(3)
        if what == 0:
            whole[place] = rng.randrange(256)
        elif what == 1:
            del whole[place : place + rng.randrange(1, 30)]
        else:
            whole[place:place] = rng.choice([b"\r\n", b"\n", b"\x00", b": ", b"0", whole[place : place + 40]])
    return Input(kind, [bytes(whole)], most=3)


def _paths(rng: random.Random, kind: str) -> Input:
    words = [
        "v2", "models", NAME, "versions", "dense", "infer", "..", "%2e%2e", "%00", "%ff", "", ".", "a" * 300, "stats", "config",
        "ready", "load", "repository", "\\",
    ]  # fmt: skip
    path = (
        "/"
        + "/".join(rng.choices(words, k=rng.randrange(1, 9)))
        + rng.choice(["", "?", "?a=%00", "#x", ";x", "?" + "b" * 3000])
    )
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    return Input(kind, [head.encode("latin-1")])


def _garbage(rng: random.Random, kind: str) -> Input:
    return Input(kind, [rng.randbytes(rng.choice([1, 9, 100, 5000, 200_000])) for _ in range(rng.randrange(1, 4))])


KINDS: dict[str, Callable[[random.Random, str], Input]] = {
    "heads": _heads,
    "framing": _framing,
    "split packets": _pieces,
    "pipelines": _pipeline,
    "types": _types,
    "json": _json,
    "protocol": _protocol,
    "binary": _binary,
    "mutations": _mutations,
    "paths": _paths,
    "garbage": _garbage,
}

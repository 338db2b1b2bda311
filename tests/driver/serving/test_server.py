"""A real server process: existing clients, hostile ones, kills, and every way to ask for what is not there."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families

from reconvene.driver.cli.command_line import main
from reconvene.driver.portfolio.manifest import Portfolio
from tests.support.portfolios import INPUTS, WIDTHS, network

X = INPUTS[0].numpy()
EXPECTED = {name: network(width)(*INPUTS).detach().numpy() for name, width in WIDTHS.items()}
JSON_REQUEST = {"inputs": [{"name": "input", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": X.ravel().tolist()}]}


@dataclass
class Server:
    """A process of ``reconvene serve``, and what it wrote so far."""

    process: subprocess.Popen[str]
    unix: Path
    state: Path
    lines: list[str]

    @property
    def url(self) -> str:
        line = next(line for line in self.lines if line.startswith("serving "))
        return next(word for word in line.split() if word.startswith("http://"))

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.unix)), base_url="http://server", **options)

    def load(self, name: str) -> Any:
        with self.client(timeout=30) as client:
            return client.post("/v2/repository/models/tiny/load", json={"parameters": {"variant": name}})

    def wait_for(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            assert self.process.poll() is None and time.monotonic() < end, self.lines
            time.sleep(0.01)


@contextlib.contextmanager
def serving(folder: Path, place: Path, *options: str) -> Iterator[Server]:
    """A server of the portfolio in `folder`, with its socket and state file in `place`; ended with SIGTERM."""
    unix, state = place / "socket", place / "state.json"
    call = [sys.executable, "-m", "reconvene", "serve", str(folder), "--port", "0", "--unix", str(unix)]
    process = subprocess.Popen(
        [*call, "--state", str(state), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    server = Server(process, unix, state, [])
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: server.lines.extend(iter(process.stderr.readline, "")))  # type: ignore[union-attr]
    reader.start()
    try:
        server.wait_for("serving ")
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
        reader.join()


@pytest.fixture(scope="module")
def server(original: Portfolio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all checks that leave it as it was."""
    options = ("--variant", "large", "--timeout", "2", "--body-mib", "1")
    with serving(original.folder, tmp_path_factory.mktemp("server"), *options) as found:
        yield found
        healthy(found)
        assert not [line for line in found.lines if "Traceback" in line or "Error" in line]


def healthy(server: Server) -> None:
    """It answers, and rightly."""
    with server.client() as client:
        answer = client.post("/v2/models/tiny/infer", json=JSON_REQUEST).json()
    check(answer["model_version"], np.array(answer["outputs"][0]["data"]))


def check(variant: str, output: np.ndarray) -> None:
    """The answer is the one of the variant that claims to have given it."""
    np.testing.assert_allclose(output.ravel(), EXPECTED[variant].ravel(), atol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
def test_an_existing_client(server: Server, binary: bool) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "large") and not client.is_model_ready("tiny", "small")
    assert client.get_server_metadata()["name"] == "reconvene"
    described = client.get_model_metadata("tiny")
    assert described["versions"] == ["large", "middle", "small"]
    assert described["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8]}]
    given = triton.InferInput("input", [1, 3, 8, 8], "FP32")
    given.set_data_from_numpy(X, binary_data=binary)
    asked = [triton.InferRequestedOutput("output0", binary_data=binary)]
    for name in ("middle", "small", "large"):
        client.load_model("tiny", config=json.dumps({"version_policy": {"specific": {"versions": [name]}}}))
        states = {entry["version"]: entry["state"] for entry in client.get_model_repository_index()}
        assert states == {variant: "READY" if variant == name else "UNAVAILABLE" for variant in WIDTHS}
        answer = client.infer("tiny", [given], outputs=asked, request_id="r1", model_version=name)
        head = answer.get_response()
        assert (head["model_name"], head["model_version"], head["id"]) == ("tiny", name, "r1")
        check(name, answer.as_numpy("output0"))
    check_statistics(client, described)
    with pytest.raises(triton.InferenceServerException, match="variant 'small' is not loaded; 'large' is"):
        client.infer("tiny", [given], model_version="small")
    with pytest.raises(triton.InferenceServerException, match="has no variant 'none'"):
        client.load_model("tiny", config=json.dumps({"version_policy": {"specific": {"versions": ["none"]}}}))
    client.close()


def check_statistics(client: triton.InferenceServerClient, described: dict) -> None:
    """The client's calls for the configuration and the statistics, of all versions and of one."""
    config = client.get_model_config("tiny")
    assert (config["name"], config["max_batch_size"], config["platform"]) == ("tiny", 0, described["platform"])
    assert config["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [1, 3, 8, 8]}]
    assert [entry["name"] for entry in config["output"]] == [entry["name"] for entry in described["outputs"]]
    assert config["version_policy"] == {"specific": {"versions": ["large", "middle", "small"]}}
    assert client.get_model_config("tiny", "small")["version_policy"] == {"specific": {"versions": ["small"]}}
    found = {entry["version"]: entry for entry in client.get_inference_statistics()["model_stats"]}
    assert list(found) == ["large", "middle", "small"]
    for version, entry in found.items():
        assert client.get_inference_statistics("tiny", version)["model_stats"][0]["version"] == version
        times = entry["inference_stats"]
        assert entry["inference_count"] == times["success"]["count"] > 0
        assert 0 < times["compute_infer"]["ns"] + times["queue"]["ns"] <= times["success"]["ns"]
        assert abs(entry["last_inference"] / 1e3 - time.time()) < 3600
        assert entry["batch_stats"][0]["compute_infer"] == times["compute_infer"]
    assert client.get_inference_statistics("tiny")["model_stats"] == list(found.values())
    with pytest.raises(triton.InferenceServerException, match="has no version 'none'"):
        client.get_inference_statistics("tiny", "none")
    with pytest.raises(triton.InferenceServerException, match="there is no model 'other'"):
        client.get_model_config("other")


def test_refused_requests_are_counted(server: Server) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    given = triton.InferInput("input", [1, 3, 8, 9], "FP32")
    given.set_data_from_numpy(np.zeros((1, 3, 8, 9), np.float32))

    def failures() -> int:
        stats = client.get_inference_statistics("tiny")["model_stats"]
        return sum(entry["inference_stats"]["fail"]["count"] for entry in stats)

    before = failures()
    with pytest.raises(triton.InferenceServerException, match="must be of shape"):
        client.infer("tiny", [given])
    assert failures() == before + 1
    client.close()


def test_requests_over_a_unix_socket_while_variants_change(server: Server) -> None:
    assert server.unix.stat().st_mode & 0o777 == 0o600

    async def exchange() -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(server.unix))
        seen: set[str] = set()
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=30) as client:

            async def ask() -> None:
                for _ in range(60):
                    answer = (await client.post("/v2/models/tiny/infer", json=JSON_REQUEST)).json()
                    check(answer["model_version"], np.array(answer["outputs"][0]["data"]))
                    seen.add(answer["model_version"])

            async def change() -> None:
                for name in ("middle", "small", "large") * 6:
                    wish = {"parameters": {"variant": name}}
                    assert (await client.post("/v2/repository/models/tiny/load", json=wish)).status_code == 200

            await asyncio.gather(*(ask() for _ in range(4)), change())
        assert seen == set(WIDTHS)

    asyncio.run(exchange())


def test_metrics_and_status(server: Server) -> None:
    server.load("small")
    server.load("large")
    healthy(server)
    with server.client() as client:
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        status = client.get("/status").json()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["reconvene_requests_total", "200"] >= 1
    assert found["reconvene_request_seconds_count", "large"] >= 1
    assert found["reconvene_switches_total", "done", "small"] >= 1
    assert (found["reconvene_active_variant", "large"], found["reconvene_active_variant", "small"]) == (1, 0)
    assert found["reconvene_resident_bytes",] == 4 * (24 * 28 + 4 * 25)
    assert found["reconvene_queue_length",] == 0
    assert found["process_resident_memory_bytes",] > 1 << 20
    assert (status["portfolio"], status["active"], status["queue"]) == ("tiny", "large", 0)
    assert status["policy"] == "variants are chosen by hand"
    assert [switch["wanted"] for switch in status["switches"][-2:]] == ["small", "large"]


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


def parsed(answer: bytes) -> tuple[int, bytes]:
    """Status and body of an HTTP answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer[:100]
    return int(head.split()[1]), body


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the answer that comes next; the server may send it in pieces."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


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


def test_sigterm_answers_what_is_under_way(original: Portfolio, tmp_path: Path) -> None:
    """And a socket that a killed server left is no obstacle."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / "socket"))
    left.close()
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    protected = (
        "--control-token",
        str(tmp_path / "token"),
        "--private-copy",
        "--connections",
        "9",
        "--bodies-mib",
        "64",
    )
    with serving(original.folder, tmp_path, "--json", *protected) as server:
        path, wish = "/v2/repository/models/tiny/load", {"parameters": {"variant": "large"}}
        assert httpx.post(server.url + path, json=wish).status_code == 401
        token = {"Authorization": "Bearer 0123456789abcdef"}
        assert httpx.post(server.url + path, json=wish, headers=token).status_code == 200
        assert httpx.post(server.url + path, json=wish, headers={**token, "Origin": "http://x"}).status_code == 403
        assert server.load("large").status_code == 200  # Over the Unix socket.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
            found.settimeout(10)
            found.connect(str(server.unix))
            text = json.dumps(JSON_REQUEST).encode()
            head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n".encode()
            found.sendall(head + text[:-20])
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            found.sendall(text[-20:])
            status, body = answered(found)
            assert (status, json.loads(body)["model_version"]) == (200, "large")
        assert server.process.wait(30) == 0
        assert server.process.stdout is not None
        summary = json.loads(server.process.stdout.read())
    assert summary == {
        "portfolio": "tiny",
        "variant": "large",
        "requests": {"200": 1},
        "switches": {"done": 1, "failed": 0},
    }
    assert not server.unix.exists()


def test_killed_in_the_middle_of_a_switch(original: Portfolio, tmp_path: Path) -> None:
    """SIGKILL at a random moment; a new server comes back with what the state file says, which is whole."""
    folder = Path(shutil.copytree(original.folder, tmp_path / "tiny"))
    for path in (folder / "variants").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    generator = random.Random(3)
    last = "large"
    for turn in range(3):
        with serving(folder, tmp_path) as server:
            status = server.client().get("/status").json()
            assert status["active"] == last
            healthy(server)
            names = [name for name in WIDTHS if name != last]
            with contextlib.suppress(httpx.HTTPError), server.client() as client:
                wish = {"parameters": {"variant": names[turn % 2]}}
                timer = threading.Timer(generator.uniform(0, 0.012), lambda: server.process.kill())
                timer.start()
                client.post("/v2/repository/models/tiny/load", json=wish)
            server.process.wait(30)
        last = json.loads(server.state.read_text())["variant"]
        assert last in WIDTHS


def test_a_broken_variant_is_reported_and_passed_over(original: Portfolio, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(original.folder, tmp_path / "tiny"))
    with serving(folder, tmp_path) as server:
        library = folder / "variants/small/host/model.so"
        library.rename(library.with_name("gone"))
        answer = server.load("small")
        assert answer.status_code == 422 and "lacks 'model.so'" in answer.json()["error"]
        healthy(server)
        server.wait_for("cannot switch to 'small' (by hand): ")
        assert "lacks 'model.so'" in server.client().get("/status").json()["switches"][-1]["error"]
        assert 'reconvene_switches_total{outcome="failed",variant="small"} 1.0' in server.client().get("/metrics").text
        library.with_name("gone").rename(library)
        assert server.load("small").status_code == 200
        healthy(server)
    # What was served last is gone when it comes back: another one answers, and the reason is told.
    library.unlink()
    with serving(folder, tmp_path) as server:
        assert any("cannot switch to 'small' (start)" in line for line in server.lines)
        assert server.client().get("/status").json()["active"] == "large"


def test_a_policy_switches_and_stays(original: Portfolio, tmp_path: Path) -> None:
    """No variant is as fast as a nanosecond: the smallest one is chosen, at once, and for good."""
    policies = ("--policy", "latency", "--objective-ms", "0.000001", "--policy", "power")
    options = (*policies, "--dwell", "0.1", "--no-control", "--threads", "2")
    with serving(original.folder, tmp_path, *options) as server, server.client() as client:
        end = time.monotonic() + 20
        while client.get("/status").json()["active"] != "small" and time.monotonic() < end:
            for _ in range(30):
                healthy(server)
        status = client.get("/status").json()
        assert (status["active"], [switch["wanted"] for switch in status["switches"]]) == ("small", ["large", "small"])
        assert status["switches"][-1]["why"].startswith("p95 ")
        assert client.post("/v2/repository/models/tiny/load", json={}).status_code == 404


def test_mistakes_on_the_command_line(
    server: Server, original: Portfolio, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = server.url.rpartition(":")[2]
    (tmp_path / "file").write_text("precious")
    folder = str(original.folder)
    for arguments, message in [
        ((str(tmp_path),), "has no portfolio.json; give the folder of a portfolio"),
        ((folder, "--variant", "huge", "--port", "0"), "has no variant 'huge'; there are large, middle, small"),
        ((folder, "--port", port), f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
        ((folder, "--unix", str(tmp_path / "file")), "exists and is no socket; choose another path"),
        ((folder, "--unix", str(server.unix)), "another server listens on"),
        ((folder, "--unix", str(tmp_path / "none" / "s")), "cannot listen on Unix socket"),
        ((folder, "--policy", "fast"), "no policy is called 'fast'; there are hand, latency, queue, memory, power"),
        ((folder, "--policy", "latency"), "the policy latency needs --objective-ms"),
        ((folder, "--threads", "1000"), "threads, got --threads 1000"),
        ((folder, "--target", "rpi4", "--port", "0"), "no variant can be served"),
    ]:
        assert main(["serve", *arguments, "--state", str(tmp_path / "state")]) == 2
        written = capfd.readouterr()
        assert written.out == "" and message in written.err, written
        assert written.err.splitlines()[-1].startswith("error: ")
    assert (tmp_path / "file").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
    healthy(server)

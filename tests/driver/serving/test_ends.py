"""A real server process that is ended, killed, asked for a broken variant, switched by a policy, or called wrongly."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from reconvene.driver.cli.command_line import main
from reconvene.driver.portfolio.manifest import Portfolio
from tests.support.portfolios import WIDTHS

from .servers import JSON_REQUEST, Server, answered, healthy, serving


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

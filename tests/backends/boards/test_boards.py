"""Bundles on boards over the network: servers of ours under QEMU, TVM's own server and tracker, and every fault by name."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reconvene.backends.boards import server as server_module
from reconvene.backends.boards.errors import BoardError, BoardLost
from reconvene.backends.boards.jobs import benchmark_on_board, run_on_board
from reconvene.backends.boards.place import Place
from reconvene.backends.boards.server import SERVER, check_server_runtime, write_server
from reconvene.backends.boards.session import Board, Limits, open_board
from reconvene.backends.boards.tracker import request_board
from reconvene.backends.bundles.manifest import Bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.importing.importer import import_module
from reconvene.backends.machines.emulation import find_emulator
from reconvene.backends.machines.targets import Target, find_target
from reconvene.driver.quantizing import quantize
from reconvene.frontend.base.errors import InputError
from reconvene.passes.integers.ends import on_codes
from tests.support.boards import Served, serving
from tests.support.tools import needs

emulated = needs("qemu-aarch64", "aarch64-linux-gnu-g++", "wheels")
X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
QUICK = Limits(connect=5, answer=5, session=60, wait=20, tries=2, pause=0.1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(640, 4)).eval()


def bundle_for(target: str, runtime: Any, folder: Path) -> Bundle:
    return open_bundle(compile(net(), (X,), target).export(folder / f"{target}-{runtime}", runtime=runtime))


def agree(outputs: tuple[torch.Tensor, ...]) -> None:
    expected = net()(X).detach()
    torch.testing.assert_close(outputs[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture(scope="module")
def place_for(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boards")


@pytest.fixture(scope="module")
def program(place_for: Path) -> Bundle:
    return bundle_for("rpi4", "static", place_for)


@pytest.fixture(scope="module")
def folder(place_for: Path) -> Path:
    return write_server(find_target("rpi4"), place_for / "server")


@pytest.fixture
def board(folder: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(folder, "rpi4", "--port", "0", scratch=tmp_path) as served:
        yield served


@emulated
def test_programs_and_libraries(board: Served, program: Bundle, tmp_path: Path, place_for: Path) -> None:
    done = run_on_board(program, (X,), board.place, limits=QUICK)
    agree(done.value)
    assert (done.board, done.lost) == (f"127.0.0.1:{board.port}", ())
    timing = benchmark_on_board(program, 3, board.place, limits=QUICK).value
    assert (timing.repeats, timing.threads, timing.batch) == (3, 1, 1)
    library = bundle_for("rpi4", "python", place_for)
    agree(run_on_board(library, (X,), board.place, limits=QUICK).value)
    timing = benchmark_on_board(library, 4, board.place, threads=2, limits=QUICK).value
    assert (timing.repeats, timing.threads) == (4, 2)
    assert timing.minimum_ms <= timing.median_ms <= timing.p90_ms
    # What sessions wrote is gone once they are over.
    board.process.terminate()
    board.wait_for("stopped")
    assert not list(tmp_path.iterdir())


@needs("qemu-arm", "arm-linux-gnueabihf-g++")
def test_a_server_with_the_runtime_in_it(tmp_path: Path) -> None:
    folder = write_server(find_target("rpi2"), tmp_path / "server")
    assert {entry.name for entry in folder.iterdir()} == {
        SERVER,
        "README.md",
        "SHA256SUMS",
        "LICENSE",
        "LICENSES.txt",
        "NOTICE",
    }
    with serving(folder, "rpi2", "--port", "0") as served:
        for runtime in ("static", "python"):
            agree(run_on_board(bundle_for("rpi2", runtime, tmp_path), (X,), served.place, limits=QUICK).value)


@emulated
def test_programs_and_libraries_of_codes(board: Served, tmp_path: Path) -> None:
    module = quantize(net(), X, example_inputs=X, observer="min-max", round_outputs=True).module
    program = import_module(module, (X,)).integers
    assert program is not None
    wanted = program.module(X)
    for runtime, codes in (("static", None), ("python", "both")):
        built = compile(module, (X,), "rpi4", dtype="int8", codes=codes, check=False)  # type: ignore[arg-type]
        bundle = open_bundle(built.export(tmp_path / str(runtime), runtime=runtime))  # type: ignore[arg-type]
        ends = on_codes(module, "both") if codes else None
        given = ends.coded((X,)) if ends else (X,)
        (found,) = run_on_board(bundle, given, board.place, limits=QUICK).value
        scale = ends.outputs[0] if ends else None
        assert torch.equal(scale.values(found) if scale else found, wanted)
        assert benchmark_on_board(bundle, 2, board.place, limits=QUICK).value.repeats == 2


@pytest.fixture(scope="module")
def theirs() -> Iterator[Place]:
    from tvm import rpc

    served = rpc.Server("127.0.0.1", 9400, 9499, key="desk", silent=True)
    yield Place("rpc", "127.0.0.1", served.port, "desk")
    served.terminate()


def test_tvms_own_server(theirs: Place, tmp_path: Path) -> None:
    library = bundle_for("host", "python", tmp_path)
    agree(run_on_board(library, (X,), theirs, limits=QUICK).value)
    assert benchmark_on_board(library, 3, theirs, limits=QUICK).value.repeats == 3
    with pytest.raises(BoardError, match=f"board '127.0.0.1:{theirs.port}' goes by another name than 'chair'"):
        run_on_board(library, (X,), Place("rpc", theirs.host, theirs.port, "chair"), limits=QUICK)


@emulated
def test_tvms_own_server_runs_no_programs(theirs: Place, program: Bundle) -> None:
    with pytest.raises(BoardError, match=r"runs no programs; compile with --runtime python, or start reconvene-server"):
        run_on_board(program, (X,), theirs, limits=QUICK)


@emulated
def test_what_is_no_match(board: Served, program: Bundle, tmp_path: Path) -> None:
    name = f"board '127.0.0.1:{board.port}'"
    other = compile(net(), (X,), "host").export(tmp_path / "host", runtime="python")
    with pytest.raises(BoardError, match=f"{name} is aarch64, but 'host' is x86_64.*; compile for it"):
        run_on_board(open_bundle(other), (X,), board.place, limits=QUICK)
    with pytest.raises(BoardError, match=f"{name} goes by another name than 'pi'"):
        run_on_board(program, (X,), Place("rpc", "127.0.0.1", board.port, "pi"), limits=QUICK)
    with pytest.raises(InputError, match=r"input 'input' must be float32 1x3x8x8"):
        run_on_board(program, (X[:, :2],), board.place, limits=QUICK)


@emulated
def test_a_server_of_another_version(program: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = server_module.versions_source()
    monkeypatch.setattr(server_module, "versions_source", lambda: own.replace("0.27", "0.26"))
    with (
        serving(write_server(find_target("rpi4"), tmp_path / "server"), "rpi4", "--port", "0") as served,
        pytest.raises(BoardError, match=r"serves TVM 0\.26.*, this is 0\.27.*; make its server again"),
    ):
        run_on_board(program, (X,), served.place, limits=QUICK)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    start = time.monotonic()
    for place, error, message in (
        (Place("rpc", "127.0.0.1", port), BoardLost, rf"cannot reach board '127.0.0.1:{port}'.*tried 2 times"),
        (Place("rpc", "no.such.host.invalid", 1), BoardError, "there is no host 'no.such.host.invalid'"),
        (Place("tracker", "127.0.0.1", port, "pi"), BoardLost, rf"cannot reach the tracker 127.0.0.1:{port}.*refused"),
        (Place("tracker", "no.such.host.invalid", 1, "pi"), BoardError, "there is no host 'no.such.host.invalid'"),
    ):
        with pytest.raises(error, match=message) as caught, open_or_try(place):
            pass
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 60


def open_or_try(place: Place) -> Any:
    from reconvene.backends.boards.session import on_board

    on_board(place, lambda board: None, QUICK)
    raise AssertionError("somebody was there")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, r"did not answer in 0.5 seconds; it is busy with another client, or hangs"),
        (b"HTTP/1.1 400 Bad Request\r\n", "is no RPC server; start one there"),
        (b"", "closed the connection"),
    ],
)
def test_something_else_listens(answer: bytes | None, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if answer is None:
                    stop.wait(20)
                else:
                    connection.recv(64)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        place = Place("rpc", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(BoardError, match=message), open_board(place, Limits(connect=2, answer=0.5)):
            pass
        stop.set()
        thread.join()


@emulated
def test_time_runs_out(board: Served, program: Bundle) -> None:
    short = Limits(connect=5, answer=5, session=2, tries=1)
    with pytest.raises(BoardError, match=f"board '127.0.0.1:{board.port}' .*(longer|seconds are over)"):
        benchmark_on_board(program, 999_983, board.place, limits=short)
    deadline = time.monotonic() + 20
    while running("999983") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running("999983"), "the program goes on after its session"
    agree(run_on_board(program, (X,), board.place, limits=QUICK).value)


def running(word: str) -> list[str]:
    """Processes with this word among their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in entry.read_bytes().split(b"\0"):
                found.append(entry.parent.name)
    return found


@emulated
def test_a_full_disk(folder: Path, program: Bundle) -> None:
    """A limit on the size of files stands in for the disk."""
    small = ("bash", "-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "bash")
    with (
        serving(folder, "rpi4", "--port", "0", prefix=small) as served,
        pytest.raises(BoardError, match=rf"board '127.0.0.1:{served.port}' has no room: \d+ of \d+ bytes arrived"),
    ):
        run_on_board(program, (X,), served.place, limits=QUICK)


@emulated
def test_clients_that_die(board: Served, program: Bundle) -> None:
    """One in the middle of its greeting, one in the middle of a session."""
    with socket.create_connection(("127.0.0.1", board.port)) as client:
        client.sendall(struct.pack("<i", 0xFF271))
    client = socket.create_connection(("127.0.0.1", board.port))
    client.sendall(struct.pack("<ii", 0xFF271, 7) + b"client:")
    assert client.recv(4) == struct.pack("<i", 0xFF271)
    client.sendall(struct.pack("<Q", 10**9))
    client.close()
    agree(run_on_board(program, (X,), board.place, limits=Limits(connect=5, answer=20, session=60, tries=1)).value)


@emulated
def test_a_port_that_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with serving(folder, "rpi4", "--port", str(taken), "--port-end", "65535") as served:
            assert served.port > taken
            assert served.said[0] == f"reconvene-server: port {taken} is taken"
        command = [*find_emulator(find_target("rpi4"), libraries=True).command, str(folder / SERVER)]
        for options, message in (
            (
                ["--port", str(taken), "--port-end", str(taken)],
                f"error: ports {taken} to {taken} are all taken; choose",
            ),
            (["--port", "many"], "error: --port takes a number from 0 to 65535, got 'many'"),
            (["--tracker", "lab:1"], "error: a board in a pool needs a --key"),
            (["--speed", "1"], "error: unknown option '--speed'"),
        ):
            call = [*command, "--host", "127.0.0.1", *options]
            done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=20)
            assert done.returncode == 2 and done.stderr.startswith(message)


@pytest.fixture(scope="module")
def pool() -> Iterator[Place]:
    from tvm.rpc.tracker import Tracker

    tracker = Tracker("127.0.0.1", 9500, 9599, silent=True)
    yield Place("tracker", "127.0.0.1", tracker.port, "pi")
    tracker.terminate()


@emulated
def test_a_client_that_asks_and_never_comes(folder: Path, pool: Place) -> None:
    """Its board is offered again; meanwhile others are told that there is none."""
    place = replace(pool, key="shy")
    options = ("--port", "0", "--key", "shy", "--tracker", f"{pool.host}:{pool.port}")
    with serving(folder, "rpi4", *options) as board:
        board.wait_for("registered with the tracker")
        first = request_board(place, 5, 5)
        with pytest.raises(BoardLost, match=r"no board 'shy' of the tracker .* became free in 0.2 seconds"):
            request_board(place, 5, 0.2)
        assert request_board(place, 5, 30) != first


@emulated
def test_a_pool_that_loses_a_board(folder: Path, program: Bundle, pool: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two boards, ten jobs, one board killed in the middle of its third: all ten finish, and the dead one is named."""
    options = ("--port", "0", "--key", "pi", "--tracker", f"{pool.host}:{pool.port}")
    patient = Limits(connect=5, answer=10, session=60, wait=60, tries=5, pause=0.1)
    check, begun = Board.check, []
    with serving(folder, "rpi4", *options) as first, serving(folder, "rpi4", *options) as second:
        for served in (first, second):
            served.wait_for("registered with the tracker")
        dead, alive = (f"pi at 127.0.0.1:{served.port}" for served in (first, second))

        def dying(board: Board, target: Target) -> None:
            check(board, target)
            begun.append(board.name)
            if begun.count(dead) == 3:
                first.process.kill()

        monkeypatch.setattr(Board, "check", dying)
        with ThreadPoolExecutor(2) as workers:
            jobs = [workers.submit(run_on_board, program, (X,), pool, limits=patient) for _ in range(10)]
            done = [job.result() for job in jobs]
        for result in done:
            agree(result.value)
        assert {result.board for result in done} == {dead, alive}
        lost = [reason for result in done for reason in result.lost]
        assert lost and all(f"board '{dead}'" in reason for reason in lost)
        with (
            pytest.raises(BoardError, match=r"^the tracker [^ ]* has no board 'toaster'; it has pi"),
            open_board(replace(pool, key="toaster"), patient),
        ):
            pass


def test_servers_that_cannot_be(tmp_path: Path) -> None:
    for target, runtime, message in (
        ("cortex-m7", None, "no operating system that a server could run on"),
        ("rpi2", "wheel", "no wheel of TVM for armv7l-linux-gnueabihf; use --runtime source"),
        ("rpi4", "fast", "a server's runtime is wheel or source, not 'fast'"),
    ):
        with pytest.raises(InputError, match=message):
            check_server_runtime(find_target(target), runtime)
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(InputError, match="exists and holds no server"):
        write_server(find_target("rpi4"), tmp_path)

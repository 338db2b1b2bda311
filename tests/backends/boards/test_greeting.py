"""Who is let in by a board's server, and who is turned away: with its key, without, slowly, and all at once."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconvene.backends.boards.errors import BoardError, BoardLost, printable
from reconvene.backends.boards.key import read_key
from reconvene.backends.boards.place import Place, parse_place
from reconvene.backends.boards.relay_process import KEYED, proof
from reconvene.backends.boards.server import SERVER
from reconvene.backends.boards.session import Limits, open_board
from reconvene.frontend.base.errors import InputError
from tests.support.boards import Served, native_server, serving_here

KEY = b"correct horse battery staple"
MAGIC, MISMATCH = 0xFF271, 0xFF273
QUICK = Limits(connect=5, answer=5, session=20, tries=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native_server(tmp_path_factory.mktemp("server"))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "board.key"
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def keyed(folder: Path, key_file: Path, scratch: Path) -> Iterator[Served]:
    with serving_here(folder, "--key-file", str(key_file), "--handshake", "0.3", scratch=scratch) as served:
        yield served


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), 5)


def with_key(served: Served, key: bytes = KEY) -> Place:
    return Place("rpc", "127.0.0.1", served.port, secret=key)


def read(client: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (part := client.recv(size - len(found))):
        found += part
    return found


def greet(client: socket.socket, key: bytes = KEY) -> bytes:
    """What the board says to a client that knows `key`: a status and its own proof."""
    ours = secrets.token_bytes(32)
    client.sendall(KEYED + ours)
    theirs = read(client, 36)[4:]
    client.sendall(proof(key, b"reconvene client", ours, theirs))
    answer = read(client, 33)
    if answer[0] != 1:
        assert answer[1:] == proof(key, b"reconvene board" + answer[:1], ours, theirs)
    return answer


def ask(client: socket.socket, name: bytes = b"client:") -> None:
    client.sendall(struct.pack("<ii", MAGIC, len(name)) + name)


def test_proofs_are_those_of_the_standard() -> None:
    """RFC 4231, the second case."""
    digest = hmac.digest(b"Jefe", b"what do ya want for nothing?", "sha256").hex()
    assert digest == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert proof(b"Jefe", b"what do ya ", b"want for ", b"nothing?").hex() == digest


@pytest.mark.parametrize("key", [b"k" * 16, b"k" * 64, b"k" * 65, bytes(range(1, 200))], ids=len)
def test_keys_of_all_lengths(folder: Path, key: bytes, tmp_path: Path, scratch: Path) -> None:
    """Such as fit a block of the checksum, and such as do not."""
    path = tmp_path / "key"
    path.write_bytes(key)
    path.chmod(0o600)
    with (
        serving_here(folder, "--key-file", str(path), scratch=scratch) as served,
        connect(served) as client,
    ):
        assert greet(client, key)[0] == 0


def test_who_knows_the_key_is_let_in(keyed: Served, key_file: Path, scratch: Path) -> None:
    place = parse_place(f"rpc://127.0.0.1:{keyed.port}", key_file)
    assert place.secret == KEY and "horse" not in repr(place) + str(place)
    with open_board(place, QUICK) as board:
        assert board.about["machine"] and board.upload(b"1234")
        assert len(list(scratch.iterdir())) == 1
    with open_board(place, QUICK) as board:
        assert board.call("reconvene.bytes", "nothing") == -1


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (b"", "lets only those in who know its key; give it with --key-file"),
        (b"another key, as long", "has another key; give the file that it was started with"),
    ],
)
def test_who_does_not_is_told(keyed: Served, secret: bytes, message: str, scratch: Path) -> None:
    with (
        pytest.raises(BoardError, match=rf"^board '127.0.0.1:\d+' {message}$") as caught,
        open_board(with_key(keyed, secret), QUICK),
    ):
        pass
    assert not isinstance(caught.value, BoardLost)
    assert not list(scratch.iterdir())


def test_a_board_without_a_key_is_not_taken_for_one(folder: Path, scratch: Path) -> None:
    with serving_here(folder, scratch=scratch) as served:
        assert "without a --key-file, whoever reaches the port may run programs" in served.said[0]
        with (
            pytest.raises(BoardError, match=r"has no key; leave out --key-file"),
            open_board(with_key(served), QUICK),
        ):
            pass
        with open_board(with_key(served, b""), QUICK) as board:
            assert board.upload(b"1")


def test_an_impostor_is_found_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Place("rpc", "127.0.0.1", listener.getsockname()[1], secret=KEY)
        pid = os.fork()
        if not pid:
            with contextlib.suppress(Exception):
                client, _ = listener.accept()
                read(client, 36)
                client.sendall(KEYED + bytes(32))
                read(client, 32)
                client.sendall(bytes(33))  # "Welcome", and no proof.
                client.recv(1)
            os._exit(0)
        with pytest.raises(BoardError, match="does not know the key"), open_board(place, QUICK):
            pass
        os.waitpid(pid, 0)


def test_a_proof_is_good_for_one_connection(keyed: Served) -> None:
    """What was overheard, sent again: the board's random bytes are others by then."""
    ours = secrets.token_bytes(32)
    with connect(keyed) as client:
        client.sendall(KEYED + ours)
        theirs = read(client, 36)[4:]
        overheard = proof(KEY, b"reconvene client", ours, theirs)
        client.sendall(overheard)
        assert read(client, 33)[0] == 0
    with connect(keyed) as client:
        client.sendall(KEYED + ours)
        assert read(client, 36)[4:] != theirs
        client.sendall(overheard)
        assert read(client, 34) == b"\1" + bytes(32)  # Nothing that was made with the key.
    with connect(keyed) as client:
        # Nor is what a board says a client's proof.
        client.sendall(KEYED + ours)
        again = read(client, 36)[4:]
        client.sendall(proof(KEY, b"reconvene board\0", ours, again))
        assert read(client, 34)[0] == 1


def test_slow_clients_have_one_deadline_and_hold_up_nobody(keyed: Served) -> None:
    """Each sends a byte now and then, which would begin a time-out for one byte anew."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(keyed)) for _ in range(15)]
        start = time.monotonic()
        for _ in range(2):
            for client in slow:
                with contextlib.suppress(OSError):
                    client.sendall(b"R")
            with open_board(with_key(keyed), QUICK) as board:
                assert board.about
        for client in slow:
            client.settimeout(2)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        assert time.monotonic() - start < 10
    keyed.wait_for("a client did not say in time who it is")


def test_more_than_there_is_room_for(keyed: Served) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(keyed)) for _ in range(60)]
        with open_board(with_key(keyed), QUICK) as board:
            assert board.about
        assert len(crowd) == 60
    keyed.wait_for("is too slow, and others came")


def test_others_wait_and_too_many_are_told(keyed: Served) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(keyed))]
        assert greet(crowd[0])[0] == 0
        ask(crowd[0])
        # Until it is served, whose client came before may still be, and it counts among those who wait.
        assert struct.unpack("<i", read(crowd[0], 4)) == (MAGIC,)
        for _ in range(8):
            crowd.append(stack.enter_context(connect(keyed)))
            assert greet(crowd[-1])[0] == 0
            ask(crowd[-1])
        for _ in range(100):
            # The last of them may not be counted yet.
            with connect(keyed) as client:
                status = greet(client)[0]
            if status == 2:
                break
        assert status == 2
        with (
            pytest.raises(BoardLost, match="it is busy, and others wait for it"),
            open_board(with_key(keyed), QUICK),
        ):
            pass
        crowd[0].close()
        assert struct.unpack("<i", read(crowd[1], 4)) == (MAGIC,)


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, struct.pack("<ii", MAGIC, -1), struct.pack("<ii", MAGIC, 1 << 30)],
    ids=["HTTP", "ones", "negative", "long"],
)
def test_what_is_no_greeting(folder: Path, said: bytes, scratch: Path) -> None:
    with serving_here(folder, scratch=scratch) as served:
        with connect(served) as client:
            client.sendall(said)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        with open_board(with_key(served, b""), QUICK) as board:
            assert board.about


def test_a_log_has_no_bytes_of_clients(folder: Path, scratch: Path) -> None:
    with serving_here(folder, scratch=scratch) as served:
        for number in range(20):
            with connect(served) as client:
                ask(client, b"client:\x1b[2J'\\\r\nfake-line-%d" % number + b"\xff" * 300)
                assert struct.unpack("<i", read(client, 4)) == (MISMATCH,)
    told = [line for line in served.said if "asked for" in line]
    assert len(told) == 10 and len(set(map(len, told))) == 1
    assert r"asked for '\x1b[2J\x27\x5c\x0d\x0afake-line-0\xff" in told[0]
    assert all(line.isascii() and line.isprintable() and len(line) < 400 for line in told)


def test_a_client_that_leaves_in_the_middle_of_an_upload(keyed: Served, scratch: Path) -> None:
    client = connect(keyed)
    assert greet(client)[0] == 0
    ask(client)
    assert struct.unpack("<i", read(client, 4)) == (MAGIC,)
    client.sendall(struct.pack("<Q", 1 << 20) + bytes(1000))
    while not list(scratch.iterdir()):
        time.sleep(0.01)
    client.close()
    keyed.wait_for("session")
    with open_board(with_key(keyed), QUICK) as board:
        assert board.about and len(list(scratch.iterdir())) == 1


@pytest.mark.parametrize("claimed", [1 << 40, 1 << 63, (1 << 64) - 1])
def test_nobody_makes_room_for_what_a_message_claims(keyed: Served, claimed: int) -> None:
    """Not even for a client that was let in; the sanitiser ends a session that tries."""
    with connect(keyed) as client:
        assert greet(client)[0] == 0
        ask(client)
        assert read(client, 15).endswith(b"server:")
        client.sendall(struct.pack("<Q", claimed)[:5])
        client.sendall(struct.pack("<Q", claimed)[5:] + bytes(100))
        keyed.wait_for("the session failed")


def test_a_silent_session_ends(folder: Path, scratch: Path) -> None:
    with serving_here(folder, "--idle", "1", scratch=scratch) as served, connect(served) as client:
        ask(client)
        assert read(client, 4) and read(client, 4)
        assert read(client, 64).startswith(b"server:")
        served.wait_for("the session failed")


def test_what_a_killed_server_left_is_removed(folder: Path, scratch: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = scratch / f"reconvene-session-{os.getpid()}-abcdef"
    for left in (scratch / f"reconvene-session-{ended.pid}-abcdef", mine, scratch / "reconvene-session-x"):
        left.mkdir()
        (left / "model.so").write_text("")
    with serving_here(folder, scratch=scratch):
        assert sorted(path.name for path in scratch.iterdir()) == sorted([mine.name, "reconvene-session-x"])


def test_all_addresses_are_for_boards_with_a_key(folder: Path, key_file: Path, scratch: Path) -> None:
    def ended(*options: str) -> str:
        call = [str(folder / SERVER), *options]
        done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=20)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        return done.stderr

    assert "give a --key-file, stay on --host 127.0.0.1, or say --without-key" in ended("--host", "0.0.0.0")
    assert "leave out one of the two" in ended("--key-file", str(key_file), "--without-key")
    for options in (("--key-file", str(key_file)), ("--without-key",)):
        with serving_here(folder, "--host", "0.0.0.0", *options, scratch=scratch) as served:
            assert served.said[-1].startswith("reconvene-server: listening on 0.0.0.0:")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"short\n"), "has to have from 16 to 4095 bytes"),
        (lambda path: path.write_bytes(b"k" * 4096), "has to have from 16 to 4095 bytes"),
        (lambda path: (path.write_bytes(KEY), path.chmod(0o640)), "others may read the key"),
        (lambda path: os.mkfifo(path, 0o600), "no regular file"),
        (lambda path: None, "cannot read the key"),
    ],
    ids=["short", "long", "open", "pipe", "missing"],
)
def test_keys_that_are_none_for_both_sides(folder: Path, make: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    make(path)  # type: ignore[operator]
    if path.is_file() and path.stat().st_mode & 0o077 and "others" not in message:
        path.chmod(0o600)
    with pytest.raises(InputError, match=message):
        read_key(path)
    done = subprocess.run(
        [str(folder / SERVER), "--key-file", str(path)], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 2 and message in done.stderr


def test_what_a_board_says_is_printable() -> None:
    assert printable("pi\x1b[31m \u202e\n") == "pi\\x1b[31m \\u202e\\n"
    assert len(printable("x" * 10_000)) == 303

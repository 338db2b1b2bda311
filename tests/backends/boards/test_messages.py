"""What a session's messages may claim: TVM's runtime sees none whose sizes, counts and kinds do not fit together."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import tvm
from attacks import messages
from attacks.messages import Part, address, count, data, encoded, kind
from attacks.servers import sanitised_runtime

from reconvene.backends.boards.session import Limits, open_board
from tests.support.boards import Served, native_server, serving_here
from tests.support.tools import needs

pytestmark = needs("sanitisers")
MAGIC = 0xFF271
QUICK = Limits(connect=5, answer=5, session=20, tries=1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server in which all that reads messages is watched; at its end there must be no report."""
    folder = native_server(tmp_path_factory.mktemp("server"), sanitised_runtime(whole=False))
    with serving_here(folder, scratch=tmp_path_factory.mktemp("scratch")) as served:
        yield served


def read(client: socket.socket, size: int) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while len(found) < size and (part := client.recv(size - len(found))):
            found += part
    return found


def answer(client: socket.socket) -> bytes:
    """Empty if the session has ended, of which the runtime says that it shuts down."""
    head = read(client, 8)
    found = read(client, struct.unpack("<Q", head)[0]) if len(head) == 8 else b""
    return found if found != struct.pack("<i", messages.SHUTDOWN) else b""


@pytest.fixture
def client(served: Served) -> Iterator[socket.socket]:
    """Of a session that has begun."""
    with socket.create_connection(("127.0.0.1", served.port), 5) as client:
        client.sendall(struct.pack("<ii", MAGIC, 7) + b"client:" + encoded(messages.first_message()))
        assert read(client, 15).endswith(b"server:") and answer(client)
        yield client


def handle(client: socket.socket, name: str) -> int:
    client.sendall(encoded(messages.lookup(name)))
    return messages.found_handle(answer(client))


def text(length: int) -> list[Part]:
    """An argument, 1 byte long, that claims another length."""
    return [kind(messages.RAW), count(length), data(b"x")]


def tensor(*shape: int, device: int = 1, rank: int | None = None, offset: int = 0) -> list[Part]:
    parts = [address(0), kind(device), data(bytes(4)), count(len(shape) if rank is None else rank, 4)]
    return [*parts, data(struct.pack("<BBH", 2, 32, 1)), *map(count, shape), count(offset)]


ZEROS = [kind(messages.INT), data(bytes(8))]
FREE, SET_DEVICE, ALLOCATE, SCOPED, LOOKUP = 10, 11, 13, 17, 9

REFUSED = {
    "longer text": [kind(LOOKUP), count(1, 4), *text(2)],
    "text of 4 GiB": [kind(LOOKUP), count(1, 4), *text(1 << 32)],
    "text without end": [kind(LOOKUP), count(1, 4), *text((1 << 64) - 1)],
    "shorter text": [kind(LOOKUP), count(1, 4), *text(0)],
    "object without end": [kind(LOOKUP), count(1, 4), kind(11), kind(65), count((1 << 64) - 1), data(b"x")],
    "object of no known kind": [kind(LOOKUP), count(1, 4), kind(11), kind(71), count(1), data(b"x")],
    "argument of no known kind": [kind(LOOKUP), count(1, 4), kind(13), data(bytes(8))],
    "negative count": [kind(LOOKUP), count(-1, 4)],
    "more arguments": [kind(LOOKUP), count(2, 4), *text(1)],
    "fewer arguments": [kind(LOOKUP), count(0, 4), *text(1)],
    "many arguments": [kind(LOOKUP), count((1 << 31) - 1, 4), *text(1)],
    "no arguments": [kind(LOOKUP), count(0, 4)],
    "too few arguments": [kind(ALLOCATE), count(3, 4), *ZEROS, *ZEROS, *ZEROS],
    "no code": [data(b"ab")],
    "no known code": [kind(22), count(0, 4)],
    "an answer": [kind(4), count(0, 4)],
    "an exception": [kind(5), count(0, 4)],
    "a copy's end": [kind(8)],
    "end with more": [kind(1), data(b"x")],
    "version without end": [kind(2), count((1 << 64) - 4), data(b"0.8.0"), count(0, 4)],
    "device that is none": [kind(SET_DEVICE), count(1, 4), kind(messages.DEVICE), kind(36), data(bytes(4))],
    "negative device": [kind(SET_DEVICE), count(1, 4), kind(messages.DEVICE), kind(-1), data(bytes(4))],
    "tensor on no device": [kind(SCOPED), count(2, 4), kind(messages.TENSOR), *tensor(device=99), kind(messages.NONE)],
    "tensor of a negative rank": [kind(SCOPED), count(2, 4), kind(messages.TENSOR), *tensor(rank=-1), kind(0)],
    "tensor of too high a rank": [kind(SCOPED), count(2, 4), kind(messages.TENSOR), *tensor(2, rank=1 << 30), kind(0)],
    "tensor too large": [kind(SCOPED), count(2, 4), kind(messages.TENSOR), *tensor(1 << 31, 1 << 31), kind(0)],
    "tensor of a negative size": [kind(SCOPED), count(2, 4), kind(messages.TENSOR), *tensor(0, -1), kind(0)],
    "more than the tensor to the board": [kind(messages.COPY_TO), *tensor(0), count(4), data(bytes(4))],
    "more than came to the board": [kind(messages.COPY_TO), *tensor(8), count(32), data(bytes(4))],
    "more than the tensor from the board": [kind(messages.COPY_FROM), *tensor(2), count(9)],
    "beyond the tensor": [kind(messages.COPY_FROM), *tensor(2, offset=8), count(1)],
    "before the tensor": [kind(messages.COPY_FROM), *tensor(2, offset=-1), count(1)],
    "text after a copy": [kind(messages.COPY_FROM), *tensor(0), count(0), data(b"x")],
    "copy of 4 GiB to a GPU": [kind(messages.COPY_FROM), *tensor(1 << 40, device=2), count(1 << 32)],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_message_that_does_not_fit_is_refused(served: Served, client: socket.socket, name: str) -> None:
    client.sendall(encoded(REFUSED[name]))
    assert not answer(client)
    served.wait_for("the session failed: the connection broke: Bad message")


@pytest.mark.parametrize("claimed", [3, 1 << 40, (1 << 64) - 1])
def test_a_message_of_no_such_length_is_refused(served: Served, client: socket.socket, claimed: int) -> None:
    client.sendall(encoded(messages.lookup("reconvene.about"), claimed))
    assert not answer(client)
    served.wait_for("the session failed: the connection broke: Bad message")


def test_what_fits_is_read_byte_by_byte(client: socket.socket) -> None:
    """An empty message; arguments of each kind; tensors of nothing; and what takes none of them says so, and goes on."""
    function = handle(client, "reconvene.bytes")
    kinds = [[kind(0)], ZEROS, [kind(messages.DEVICE), kind(1), data(bytes(4))], [kind(5), data(bytes(8))], text(1)]
    kinds += [[kind(of), count(1), data(b"x")] for of in (messages.BYTES,)]
    kinds += [[kind(of), kind(65), count(1), data(b"x")] for of in (11, 65)]
    kinds += [[kind(messages.TENSOR), *tensor(*shape)] for shape in ((), (0, 1 << 40), (2, 3))]
    for argument in kinds:
        said = bytes(8) + encoded([kind(messages.CALL), address(function), count(1, 4), *argument])
        for place in range(len(said)):
            client.sendall(said[place : place + 1])
        assert answer(client)
    for code in (messages.COPY_FROM, messages.COPY_TO):
        client.sendall(encoded([kind(code), *tensor(0), count(0)]))
        assert answer(client)
    client.sendall(encoded([kind(1)]))
    assert not answer(client)


def test_arrays_of_a_client_of_tvm_go_there_and_back(served: Served) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with open_board(served.place, QUICK) as board:
        there = tvm.runtime.tensor(values, board.remote.cpu())
        np.testing.assert_array_equal(there.numpy(), values)
        assert board.call("reconvene.bytes", board.upload(bytes(100_000))) == 100_000


def test_sessions_of_changed_messages_end_without_a_report(served: Served) -> None:
    for number in range(40):
        source = random.Random(number)
        with socket.create_connection(("127.0.0.1", served.port), 5) as client:
            client.sendall(struct.pack("<ii", MAGIC, 7) + b"client:" + encoded(messages.first_message()))
            assert read(client, 15).endswith(b"server:") and answer(client)
            handles = [(handle(client, name), least) for name, least in messages.FUNCTIONS.items()]
            with contextlib.suppress(OSError):
                client.sendall(messages.changed(messages.message(source, handles), source))
                client.shutdown(socket.SHUT_WR)
                answer(client)
    with open_board(served.place, QUICK) as board:
        assert board.about["machine"]

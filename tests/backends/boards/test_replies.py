"""Boards that are not what they seem to be: what they send reaches no code here that would believe it."""

from __future__ import annotations

import contextlib
import math
import os
import random
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tvm
from attacks.sockets import read

from reconvene.backends.boards.errors import BoardError, BoardLost
from reconvene.backends.boards.jobs import _there
from reconvene.backends.boards.place import Place
from reconvene.backends.boards.relay_process import KEYED
from reconvene.backends.boards.replies import MAGIC, MAX_BYTES, Nonsense, Replies
from reconvene.backends.boards.session import Limits, checked_seconds, open_board
from reconvene.backends.boards.tracker import request_board
from reconvene.backends.signature import TensorSpec

QUICK = Limits(connect=5, answer=5, session=10, tries=1)
KEY = b"correct horse battery staple"
GREETING = struct.pack("<ii", MAGIC, 6) + b"server"


def message(code: int, *values: bytes, count: int | None = None) -> bytes:
    body = struct.pack("<ii", code, len(values) if count is None else count) + b"".join(values)
    return struct.pack("<Q", len(body)) + body


def number(value: int) -> bytes:
    return struct.pack("<iq", 1, value)


def pointer(kind: int = 4) -> bytes:
    return struct.pack("<iQ", kind, 0x1000)


def text(words: bytes, kind: int = 8, claimed: int | None = None) -> bytes:
    return struct.pack("<iQ", kind, len(words) if claimed is None else claimed) + words


def tensor(
    *shape: int,
    device: tuple[int, int] = (1, 0),
    dtype: tuple[int, int, int] = (2, 32, 1),
    axes: int | None = None,
) -> bytes:
    head = struct.pack("<iQiii", 7, 0x1000, *device, len(shape) if axes is None else axes)
    return head + struct.pack("<BBH", *dtype) + struct.pack(f"<{len(shape)}qQ", *shape, 0)


NOTHING = struct.pack("<i", 0)
VOID = message(4, NOTHING)
OBJECT_TEXT = struct.pack("<iIQ", 65, 65, 2) + b"ab"

ANSWERS = {
    "nothing": VOID,
    "no result": message(4, number(0), NOTHING),
    "a number": message(4, number(1), number(7)),
    "a truth": message(4, number(2), struct.pack("<iq", 2, 1)),
    "a function": message(4, number(68), pointer()),
    "its handle": message(4, pointer()),
    "a library": message(4, number(73), pointer()),
    "an object": message(4, number(71), pointer()),
    "a text": message(4, number(65), text(b"ab")),
    "a small text": message(4, number(11), text(b"ab")),
    "bytes": message(4, number(66), text(b"ab", 9)),
    "an object that is a text": message(4, number(65), OBJECT_TEXT),
    "a tensor": message(4, number(70), tensor(1, 4), pointer()),
    "a tensor without axes": message(4, number(70), tensor(), pointer()),
    "an error": message(5, text(b"it failed")),
    "a copy": struct.pack("<Qi", 4 + 100, 8) + bytes(100),
}
"""What TVM's servers send."""

FALSE = {
    "a session of its own": struct.pack("<QiQ", 21, 2, 5) + b"0.8.0" + struct.pack("<i", 0),
    "a function by its name": message(9, text(b"ffi.ModuleLoadFromFile")),
    "a call": struct.pack("<QiQi", 16, 3, 0x1000, 0),
    "a read of memory": struct.pack("<Qi", 40, 6) + bytes(36),
    "a write of memory": struct.pack("<Qi", 40, 7) + bytes(36),
    "an end": struct.pack("<Qi", 4, 1),
    "no code": struct.pack("<Qi", 4, 0),
    "another code": struct.pack("<Qi", 4, 1 << 20),
    "an empty message": bytes(8) + VOID,
    "a short message": struct.pack("<Q", 3) + bytes(9),
    "a long message": struct.pack("<Qi", MAX_BYTES + 1, 8),
    "a message without end": struct.pack("<Qi", (1 << 64) - 1, 4),
    "no values": message(4),
    "fewer values than none": message(4, count=-1),
    "values without end": message(4, NOTHING, count=1 << 30),
    "a function that lies here": message(4, pointer(68)),
    "a library that lies here": message(4, number(73), pointer(73)),
    "an object that lies here": message(4, number(71), struct.pack("<iIQ", 64, 0xFFFF, 0x1000)),
    "a text that is a pointer": message(4, number(65), pointer()),
    "a text beyond its message": message(4, number(65), text(b"ab", claimed=1 << 32)),
    "bytes beyond its message": message(4, number(66), text(b"ab", 9, claimed=(1 << 64) - 1)),
    "an object beyond its message": message(4, number(65), struct.pack("<iIQ", 65, 65, 1 << 40)),
    "an error that is none": message(5, number(1)),
    "an error of two": message(5, text(b"a"), text(b"b")),
    "a tensor of this machine": message(4, number(70), tensor(4, device=(1 - 128, 0)), pointer()),
    "a tensor of another device": message(4, number(70), tensor(4, device=(2, 0)), pointer()),
    "a tensor of fewer axes than none": message(4, number(70), tensor(4, axes=-1), pointer()),
    "a tensor of axes without end": message(4, number(70), tensor(4, axes=1 << 30), pointer()),
    "a tensor of too many axes": message(4, number(70), tensor(*[1] * 65), pointer()),
    "a tensor of less than nothing": message(4, number(70), tensor(-4), pointer()),
    "a tensor of more than there is": message(4, number(70), tensor(1 << 40, 1 << 40), pointer()),
    "a tensor of wide numbers": message(4, number(70), tensor(4, dtype=(2, 32, 65535)), pointer()),
    "a tensor of pointers": message(4, number(70), tensor(4, dtype=(3, 64, 1)), pointer()),
    "a tensor for a number": message(4, number(1), tensor(4)),
    "a number twice": message(4, number(1), number(1), number(1)),
    "a kind of no number": message(4, pointer(), number(1)),
    "a kind that is none": message(4, number(1 << 40), pointer()),
    "a kind below all": message(4, number(-1), number(1)),
    "more than its values": struct.pack("<Qii", 16, 4, 1) + NOTHING + bytes(4),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_answers_are_passed_on_as_they_are(answer: bytes) -> None:
    sent = GREETING + answer * 3
    assert Replies().passed(sent) == sent
    for seed in range(20):
        replies, source, found, start = Replies(), random.Random(seed), b"", 0
        while start < len(sent):
            size = source.randrange(1, 12)
            found += replies.passed(sent[start : start + size])
            start += size
        assert found == sent


@pytest.mark.parametrize("said", FALSE.values(), ids=FALSE)
def test_all_else_is_not(said: bytes) -> None:
    for parts in ([GREETING + said], [GREETING, said], [GREETING + VOID, said[:9], said[9:]]):
        replies = Replies()
        with pytest.raises(Nonsense):
            for part in parts:
                assert said[:13] not in replies.passed(part)


def test_only_a_whole_answer_is_passed_on() -> None:
    replies, answer = Replies(), ANSWERS["a text"]
    assert replies.passed(GREETING + answer[:-1]) == GREETING
    assert replies.passed(answer[-1:]) == answer


def test_names_and_refusals() -> None:
    for length in (-1, 1025, 1 << 30):
        with pytest.raises(Nonsense, match="its name is too long"):
            Replies().passed(struct.pack("<ii", MAGIC, length))
    refused = Replies()
    assert refused.passed(struct.pack("<i", MAGIC + 2) + VOID) == struct.pack("<i", MAGIC + 2) and refused.refusing
    assert refused.passed(FALSE["a call"]) == b""


def test_more_is_taken_where_more_is_expected() -> None:
    head = struct.pack("<Qi", MAX_BYTES + 4, 8)
    assert Replies(MAX_BYTES + 4).passed(GREETING + head) == GREETING + head
    with pytest.raises(Nonsense, match="a message claims 67108868 bytes"):
        Replies().passed(GREETING + head)


# ---- whole sessions


def asked(client: socket.socket) -> bytes:
    return read(client, *struct.unpack("<Q", read(client, 8)))


@contextlib.contextmanager
def board_that(does: Callable[[socket.socket], object]) -> Iterator[int]:
    """The port of a process that takes one client, and greets it as a server does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException):
                client, _ = listener.accept()
                client.settimeout(20)
                does(client)
            os._exit(0)
        try:
            yield listener.getsockname()[1]
        finally:
            os.waitpid(pid, 0)


def answers(*said: bytes) -> Callable[[socket.socket], None]:
    """Answers the first request with nothing, the next ones with `said`, and all others with nothing."""

    def do(client: socket.socket) -> None:
        read(client, struct.unpack("<ii", read(client, 8))[1])
        client.sendall(GREETING)
        for answer in (VOID, *said):
            asked(client)
            client.sendall(answer)
        while asked(client):
            client.sendall(VOID)

    return do


def test_a_board_runs_nothing_here(tmp_path: Path) -> None:
    """It begins a session of its own, looks for a function that loads libraries, and calls it."""
    (tmp_path / "own.c").write_text(
        f'#include <stdio.h>\n__attribute__((constructor)) static void run(void) {{ fopen("{tmp_path}/ran", "w"); }}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "own.so", tmp_path / "own.c"], check=True)

    def does(client: socket.socket) -> None:
        read(client, struct.unpack("<ii", read(client, 8))[1])
        client.sendall(GREETING)
        asked(client)
        client.sendall(FALSE["a session of its own"])
        asked(client)
        client.sendall(FALSE["a function by its name"])
        handle = asked(client)[-8:]
        name = text(bytes(tmp_path / "own.so"))
        client.sendall(struct.pack("<Qi", 16 + len(name), 3) + handle + struct.pack("<i", 1) + name)
        asked(client)

    with (
        board_that(does) as port,
        pytest.raises(BoardError, match="answers what makes no sense: it asks for something to be done here") as caught,
        open_board(Place("rpc", "127.0.0.1", port), QUICK),
    ):
        pass
    assert not isinstance(caught.value, BoardLost) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("said", FALSE.values(), ids=FALSE)
def test_false_answers_end_a_session_in_one_line(said: bytes) -> None:
    with (
        board_that(answers(said)) as port,
        pytest.raises(BoardError, match="answers what makes no sense") as caught,
        open_board(Place("rpc", "127.0.0.1", port), QUICK),
    ):
        pass
    assert str(caught.value).isprintable()


def test_an_error_that_is_kept_holds_no_session() -> None:
    """Of which TVM has 32 at a time."""
    errors = []
    for said in [*FALSE.values(), ANSWERS["a number"], ANSWERS["a text"]]:
        with board_that(answers(said, said)) as port:
            try:
                with open_board(Place("rpc", "127.0.0.1", port), QUICK):
                    pass
            except BoardError as error:
                errors.append(error)
    assert len(errors) == len(FALSE) + 2 > 32 and not any("maximum" in str(error) for error in errors)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_answers_of_another_kind_than_was_asked_for(answer: bytes) -> None:
    """To the question for a function, to its call, and to those that come after."""
    for said in ((answer,), (ANSWERS["its handle"], answer), (ANSWERS["its handle"], ANSWERS["no result"], answer)):
        with (
            board_that(answers(*said, *[answer] * 5)) as port,
            contextlib.suppress(BoardError),
            open_board(Place("rpc", "127.0.0.1", port), QUICK) as board,
        ):
            board.count("reconvene.bytes", "name")
            board.upload(b"1234")
            board.download("name")
            board.clean()


def test_a_clients_own_proof_is_none_of_a_boards() -> None:
    """Sent back to it, with its own random bytes, or as it came."""

    def reflects(client: socket.socket) -> None:
        client.sendall(read(client, 36))
        client.sendall(b"\0" + read(client, 32))
        client.recv(1)

    with (
        board_that(reflects) as port,
        pytest.raises(BoardError, match="does not know the key"),
        open_board(Place("rpc", "127.0.0.1", port, secret=KEY), QUICK),
    ):
        pass


@pytest.mark.parametrize("said", [b"", b"RCV", KEYED + bytes(31), KEYED + bytes(32), KEYED + bytes(64)], ids=len)
def test_greetings_that_end(said: bytes) -> None:
    def does(client: socket.socket) -> None:
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        while client.recv(100):
            pass

    for secret in (b"", KEY):
        with (
            board_that(does) as port,
            pytest.raises(BoardError),
            open_board(Place("rpc", "127.0.0.1", port, secret=secret), QUICK),
        ):
            pass


def tracker_that(offer: str) -> Callable[[socket.socket], None]:
    """A tracker of one board, ``rpi4``, that gives `offer` to whoever asks for it."""

    def do(client: socket.socket) -> None:
        client.sendall(read(client, 4))
        for answer in ('[0, {"server_info": [{"key": "server:rpi4"}]}]', f"[0, {offer}]"):
            read(client, *struct.unpack("<i", read(client, 4)))
            client.sendall(struct.pack("<i", len(answer)) + answer.encode())
        client.recv(1)

    return do


@pytest.mark.parametrize(
    "offer",
    [
        '["board", 0, "k"]',
        '["board", 65536, "k"]',
        '["board", "1", "k"]',
        '["board", 1.5, "k"]',
        "[7, 1, 2]",
        "{}",
        "[]",
    ],
)
def test_a_tracker_that_gives_no_board(offer: str) -> None:
    with board_that(tracker_that(offer)) as port, pytest.raises(BoardLost, match="broke off"):
        request_board(Place("tracker", "127.0.0.1", port, "rpi4"), 5, 5)


def test_a_tracker_that_gives_a_board_with_an_odd_name() -> None:
    with board_that(tracker_that('["\\u001b[2J", 7, "k"]')) as port:
        assert request_board(Place("tracker", "127.0.0.1", port, "rpi4"), 5, 5).host == "\\x1b[2J"


def test_hosts_that_no_name_can_be() -> None:
    for kind in ("rpc", "tracker"):
        with pytest.raises(BoardError, match="there is no host"), open_board(Place(kind, "a" * 80, 9, "k"), QUICK):  # type: ignore[arg-type]
            pass


def test_outputs_that_are_not_the_models() -> None:
    board: Any = SimpleNamespace(name="b")
    given = tvm.runtime.tensor(np.arange(4, dtype="float32"))
    assert _there(board, TensorSpec("y", (4,), "float32"), given).tolist() == [0, 1, 2, 3]
    for spec in (TensorSpec("y", (5,), "float32"), TensorSpec("y", (4, 1), "float32"), TensorSpec("y", (4,), "int32")):
        with pytest.raises(BoardError, match="gives an output 'y' that is not"):
            _there(board, spec, given)
    for times in ([], [1.0, math.nan], [math.inf], [-1.0]):
        with pytest.raises(BoardError, match="answers with times that cannot be"):
            checked_seconds(board, times)
    assert checked_seconds(board, [0.5]) == [0.5]

"""A session on a board: connected with time-outs, given up when the board is gone, tried again where that may help."""

from __future__ import annotations

import math
import struct
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Generic, TypeVar

import tvm
from tvm import rpc

from ...frontend.base.errors import InputError
from ...frontend.base.json_text import json_object, json_text, parse_json
from ..machines.architectures import machine_name
from ..machines.targets import Target
from .errors import BoardError, BoardLost, printable
from .place import Place
from .relay import Ending, Relay
from .replies import MAX_BYTES
from .tracker import Offer, request_board

__all__ = ["Board", "Done", "Limits", "answering", "checked_seconds", "on_board", "open_board"]

T = TypeVar("T")

_MOST_ABOUT = 4096
"""Characters."""

_HEAD_BYTES = 4096
"""Of an answer, beside what it is about; far more than there are."""


@dataclass(frozen=True)
class Limits:
    """What is waited for, in seconds, and how often a lost board is tried again.

    Attributes:
        connect: for a connection.
        answer: for a board's first answer, which it gives when no other client has it.
        session: for all of one session; the server ends it too.
        wait: for a board of a pool to become free.
        tries: sessions that are begun at most, on one board or several.
        pause: before the second try; doubled before each further one.
    """

    connect: float = 10
    answer: float = 30
    session: float = 600
    wait: float = 300
    tries: int = 4
    pause: float = 0.5


@dataclass
class Board:
    """A board with an open session.

    Attributes:
        name: for a person: its address, and what a pool calls it.
        remote: TVM's session.
        about: what our server says of the board; empty for TVM's own server.
    """

    name: str
    remote: Any
    about: dict[str, Any]
    session_seconds: float
    _uploads: list[str] = field(default_factory=list)

    def call(self, function: str, *arguments: Any) -> Any:
        """The result of one of the board's global functions; it may be of any kind."""
        with answering(self.name):
            return self.remote.get_function(function)(*arguments)

    def count(self, function: str, *arguments: Any) -> int:
        """The same, if it is a whole number. Raises BoardError else."""
        found = self.call(function, *arguments)
        if type(found) is not int:
            raise BoardError(f"board '{self.name}' answers '{function}' with what is no whole number")
        return found

    def download(self, name: str) -> bytes:
        """A file in the session's folder."""
        with answering(self.name):
            return bytes(self.remote.download(name))

    def upload(self, file: bytes, suffix: str = "") -> str:
        """Puts a file into the session's folder, under a name that no other upload has. Returns the name.

        Raises:
            BoardError: the board's disk is full.
        """
        name = f"{uuid.uuid4().hex}{suffix}"
        contents = bytearray(file)
        self._uploads.append(name)
        with answering(self.name):
            self.remote.upload(contents, name)
        arrived = self.count("reconvene.bytes", name) if self.about else len(contents)
        if arrived != len(contents):
            raise BoardError(
                f"board '{self.name}' has no room: {arrived} of {len(contents)} bytes arrived; make room, or set TMPDIR"
                " for its server"
            )
        return name

    def load(self, library: bytes) -> Any:
        """A library as a module. Raises BoardError if the board cannot load it."""
        name = self.upload(library, ".so")
        try:
            with answering(self.name):
                return self.remote.load_module(name)
        except tvm.error.RPCError as error:
            raise BoardError(f"board '{self.name}' cannot load the library: {_last_line(error)}") from None

    def check(self, target: Target) -> None:
        """Raises BoardError unless the board's architecture is the target's, as far as the board says."""
        machine = self.about.get("machine")
        if machine is not None and machine_name(machine) != target.architecture:
            raise BoardError(
                f"board '{self.name}' is {machine}, but '{target.name}' is {target.triple}; compile for it"
            )

    def check_version(self) -> None:
        """Raises BoardError if the board's TVM is another one than that of this process."""
        theirs, ours = self.about.get("tvm"), metadata.version("apache-tvm")
        if theirs is not None and theirs != ours:
            raise BoardError(
                f"board '{self.name}' serves TVM {theirs}, this is {ours}; make its server again: reconvene board-server"
            )

    def clean(self) -> None:
        """Removes what was uploaded."""
        while self._uploads:
            with suppress(Exception):
                self.remote.remove(self._uploads.pop())


@dataclass(frozen=True)
class Done(Generic[T]):
    """What a job gave, the board that did it, and what went wrong on boards before."""

    value: T
    board: str
    lost: tuple[str, ...]


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Around calls of TVM's client for the board `name`: it falls in many ways over answers of another kind than it asked for.

    Raises:
        BoardError: it did.
    """
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError, struct.error) as error:
        raise BoardError(f"board '{name}' answers what makes no sense: {_last_line(error)}") from error


def checked_seconds(board: Board, values: Sequence[float]) -> Sequence[float]:
    """Times that a board took. Raises BoardError where one cannot be."""
    if not values or not all(0 <= value < math.inf for value in values):
        raise BoardError(f"board '{board.name}' answers with times that cannot be")
    return values


def on_board(place: Place, job: Callable[[Board], T], limits: Limits | None = None, answer_bytes: int = 0) -> Done[T]:
    """Does `job` on a board at `place`; again, there or on another board of the pool, when the board is lost.

    Args:
        answer_bytes: that one answer of the board may have, if that is much.

    Raises:
        BoardError: the job failed, or every try lost its board; each is named.
    """
    used = limits or Limits()
    lost: list[str] = []
    for attempt in range(used.tries):
        if attempt:
            time.sleep(used.pause * 2 ** (attempt - 1))
        try:
            with open_board(place, used, answer_bytes) as board:
                return Done(job(board), board.name, tuple(dict.fromkeys(lost)))
        except BoardLost as error:
            lost.append(str(error))
    raise BoardLost(f"{'; '.join(dict.fromkeys(lost))} (tried {used.tries} times)")


@contextmanager
def open_board(place: Place, limits: Limits, answer_bytes: int = 0) -> Iterator[Board]:
    """A session on a board at `place`, within the block. `answer_bytes` is as for `on_board`.

    Raises:
        BoardError: there is no such host or key, the server is not TVM's or has another version, or the board
            reports an error in the block.
        BoardLost: the board is not there, does not answer, or goes away in the block.
    """
    if place.kind == "tracker":
        offer = request_board(place, limits.connect, limits.wait)
        name = f"{place.key} at {offer.host}:{offer.port}"
    else:
        offer, name = Offer(place.host, place.port, place.key), f"{place.host}:{place.port}"
    seconds = (limits.connect, limits.answer, limits.session)
    relay = Relay(offer.host, offer.port, name, *seconds, place.secret, max(MAX_BYTES, answer_bytes + _HEAD_BYTES))
    board: Board | None = None
    try:
        board = _begun(offer, name, relay, limits)
        yield board
        board.clean()
    except (tvm.error.RPCError, tvm.error.InternalError, RuntimeError) as error:
        told = _told(error, name, relay.close(), place)
        _let_go(error)
        raise told from None
    except BoardError as error:
        _let_go(error)
        raise
    finally:
        if board is not None:
            board.remote = None
        relay.close()


def _let_go(error: BaseException) -> None:
    """Forgets what the calls that ended in `error` held, as long as somebody keeps the error: sessions, of which TVM has 32."""
    kept: BaseException | None = error
    while kept is not None:
        traceback.clear_frames(kept.__traceback__)
        kept = kept.__cause__ or kept.__context__


def _begun(offer: Offer, name: str, relay: Relay, limits: Limits) -> Board:
    with answering(name):
        remote = rpc.connect("127.0.0.1", relay.port, offer.key, session_timeout=limits.session)
        try:
            text = remote.get_function("reconvene.about")()
        except (AttributeError, tvm.error.RPCError):
            text = None  # TVM's own server.
    about = {} if text is None else _about(text, name)
    board = Board(name, remote, about, limits.session)
    board.check_version()
    return board


def _about(text: object, name: str) -> dict[str, Any]:
    """What our server says of its board. Raises BoardError for anything else."""
    try:
        whole = json_text(text, "what it says")[:_MOST_ABOUT]
        found = json_object(parse_json(whole), ("tvm", "reconvene", "machine", "name", "cores"))
        return {key: value if key == "cores" else printable(json_text(value, key)) for key, value in found.items()}
    except ValueError as error:
        raise BoardError(f"board '{name}' says of itself what makes no sense: {printable(str(error))}") from None


def _told(error: Exception, name: str, ending: Ending | None, place: Place) -> BoardError:
    """TVM's error as one line that names the board."""
    text = str(error)
    if ending is not None and ending.final:
        return BoardError(f"board '{name}' {ending.reason}")
    if "cannot find server that matches key" in text:
        if place.kind == "tracker":
            return BoardLost(f"board '{name}' was no longer the tracker's to give")
        wanted = f"goes by another name than '{place.key}'" if place.key else "wants its key, rpc://HOST:PORT/KEY,"
        return BoardError(f"board '{name}' {wanted} or is kept by a tracker; ask that for it: tracker://HOST:PORT/KEY")
    if "is not TVM RPC server" in text:
        return BoardError(
            f"'{name}' is no RPC server; start one there: reconvene-server, or python -m tvm.exec.rpc_server"
        )
    if "RPCSessionTimeoutError" in text:
        return BoardError(f"board '{name}' took longer than a session may: {_last_line(error)}")
    if ending is not None:
        return BoardLost(f"board '{name}' {ending.reason}")
    return BoardError(f"board '{name}' reports: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1]) if lines else type(error).__name__

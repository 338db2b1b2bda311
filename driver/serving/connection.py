"""One connection, between uvicorn's protocol and the network: what it may send, how fast, and when it is idle."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .heads import head_fault
from .limits import Limits

__all__ = ["Connection", "Phase", "refusal"]

_SLICE = 4 << 10
"""Bytes that the parser takes at a time, so that limits are met soon after they are passed."""

_YOUNG_SECONDS = 0.5
"""Seconds for which a new connection counts as one whose request is on its way."""


class Phase(Enum):
    """What a connection is at."""

    SILENT = auto()
    """Nothing has come yet."""
    HEAD = auto()
    BUSY = auto()
    """From the end of a head to the end of the answer."""
    REST = auto()
    """All is answered, and the client still sends what nobody reads."""
    IDLE = auto()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with deadlines, with limits for what comes before a body, and with refusals as JSON.

    Args:
        note: called with the name of a limit that was met, see `limits.COUNTED`.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: Limits,
        note: Callable[[str], None],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._limits, self._note = limits, note
        self.peer = ""
        """Address of the client; nothing for a Unix socket."""
        self.phase, self.since = Phase.SILENT, self.loop.time()
        self._answering: RequestResponseCycle | None = None
        self._ended = False
        """Whether all that still comes is passed over."""
        self._seen = False
        self._unseen = 0
        """Bytes since the parser last told of something, which it keeps."""
        self._head = self._fields = 0
        self._received = False
        """Whether the request has come as a whole."""
        self._begun = False
        """Whether the request's head is complete, so that `cycle` is its own."""
        self._excess: tuple[int, str, str] | None = None
        self._stuck: tuple[float, int] | None = None

    # ---- what the transport calls

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        found = transport.get_extra_info("socket")
        self.app_state = {**self.app_state, "unix": found is not None and found.family == socket.AF_UNIX}
        self._enter(Phase.SILENT)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tells only the last request that came.
        for cycle in (self._answering, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        view = memoryview(data)
        for start in range(0, len(view), _SLICE):
            if self._ended or self.transport.is_closing():
                return
            self._feed(view[start : start + _SLICE])

    def _feed(self, piece: memoryview) -> None:
        self._seen = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if self._excess is not None:
                self._refuse(*self._excess)
            else:
                # Another protocol was offered; the request is answered in this one, and the bytes behind it may be anything.
                self._end()
            return
        except httptools.HttpParserError:
            self._refuse(400, "the request is not HTTP/1.1", "malformed")
            return
        self._unseen = 0 if self._seen else self._unseen + len(piece)
        if self._excess is None and self._unseen > self._limits.head_bytes:
            self._excess = self._too_long()
        if self._excess is not None:
            self._refuse(*self._excess)

    # ---- what the parser calls

    def on_message_begin(self) -> None:
        if self._excess is not None:
            return
        super().on_message_begin()
        self._seen, self._received, self._begun = True, False, False
        self._head = self._fields = 0
        if self.phase in (Phase.SILENT, Phase.IDLE):
            self._enter(Phase.HEAD)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._fields += 1
        self._count(len(name) + len(value))
        if self._fields > self._limits.headers and self._excess is None:
            self._excess = (431, f"the request has more than {self._limits.headers} headers", "headers")

    def on_headers_complete(self) -> None:
        self._seen = True
        if self._excess is not None:
            return
        fault = head_fault(self.url, self.parser.get_http_version(), self.headers)
        if fault is not None:
            self._excess = (400, fault, "malformed")
        elif len(self.pipeline) >= self._limits.pipelined:
            self._excess = (503, "too many requests were sent ahead of their answers", "pipelined")
        else:
            super().on_headers_complete()
            self._begun = True
            self._enter(Phase.BUSY)

    def on_chunk_header(self) -> None:
        self._seen = True

    def on_body(self, body: bytes) -> None:
        self._seen = True
        if self._begun:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._excess is not None:
            return
        self._seen = self._received = True
        if self._begun:
            super().on_message_complete()
        if self.phase is Phase.REST:
            self._enter(Phase.IDLE)

    def _count(self, size: int) -> None:
        self._seen = True
        self._head += size
        if self._head > self._limits.head_bytes and self._excess is None:
            self._excess = self._too_long()

    def _too_long(self) -> tuple[int, str, str]:
        return 431, f"the request's head is longer than {self._limits.head_bytes} bytes", "head_bytes"

    # ---- what answers call

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # Idle connections are swept.
        assert self._answering is not None
        if not self._answering.response_complete:
            self._enter(Phase.BUSY)  # With the next one.
        elif self._received:
            self._enter(Phase.IDLE)
        else:
            self._enter(Phase.REST if self._begun else Phase.HEAD)

    # ---- refusals and deadlines

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, self.loop.time()

    def _last(self) -> RequestResponseCycle | None:
        """The last request that will be answered."""
        return self.pipeline[0][0] if self.pipeline else self._answering

    def _end(self) -> None:
        """What is under way is answered, and nothing after it."""
        self._ended = True
        last = self._last()
        if last is None or last.response_complete:
            self.transport.close()
        else:
            last.keep_alive = False

    def _refuse(self, status: int, message: str, limit: str) -> None:
        """Answers the request that is coming with an error, in its turn, and nothing after it."""
        self._note(limit)
        if self._begun and not self._received:
            if self.pipeline and self.pipeline[0][0] is self.cycle:
                self.pipeline.popleft()
            else:
                # Whoever reads its body finds that there is none.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                if self.cycle.response_started:
                    self._ended = True
                    self.transport.close()
                else:
                    self._tell(status, message)
                return
        last = self._last()
        if last is not None and not last.response_complete:
            # An error now would be taken for its answer.
            self._end()
        else:
            self._tell(status, message)

    def _tell(self, status: int, message: str) -> None:
        """Sends an error; what the client still sends is dropped for a while, since a reset could overtake the error."""
        self._ended = True
        self.transport.write(refusal(status, message, self.server_state.default_headers))
        self.flow.resume_reading()
        self._enter(Phase.REST)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def sweep(self, now: float) -> None:
        """Ends what has lasted too long."""
        self._check_reader(now)
        if self.transport.is_closing():
            return
        limits, lasted = self._limits, now - self.since
        if self.phase is Phase.HEAD and lasted > limits.head:
            self._refuse(408, f"the request's head did not come within {limits.head:g} s", "head")
        elif self.phase is Phase.SILENT and lasted > limits.silent:
            self._close("silent")
        elif self.phase is Phase.IDLE and lasted > limits.idle:
            self._close("idle")
        elif self.phase is Phase.REST and lasted > limits.linger:
            self._close("linger")

    def _close(self, limit: str) -> None:
        self._note(limit)
        self.transport.close()

    def _check_reader(self, now: float) -> None:
        """Ends a connection on which nobody reads what is written, while nothing more is written to it."""
        size = self.transport.get_write_buffer_size()
        written = self.flow.write_paused or self.phase is Phase.IDLE or self.transport.is_closing()
        if size and self.phase is Phase.IDLE:
            self.since = now
        if not size or not written:
            self._stuck = None
        elif self._stuck is None:
            self._stuck = (now, size)
        elif now - self._stuck[0] > self._limits.unread:
            if self._stuck[1] - size < self._limits.unread_bytes:
                self._note("unread")
                self.transport.abort()
            self._stuck = (now, size)

    @property
    def starting(self) -> bool:
        """Whether no head has come since the last request, if there was one, and something is expected."""
        return self.phase in (Phase.SILENT, Phase.HEAD)

    def spare(self, now: float, crowded: bool) -> int | None:
        """How easily it can be spared for another one, 0 the easiest; None while it waits for an answer of ours.

        Those without a request go first; then those between two requests, those whose request may be on its way, those
        that are still sending one, and those that do not read.

        Args:
            crowded: whether so many are `starting` that they are no clients whose requests are on their way.
        """
        if self._stuck is not None:
            return 4
        if self.starting:
            return 0 if crowded or now - self.since > _YOUNG_SECONDS else 2
        if self.phase is not Phase.BUSY:
            return 1
        sends = self._answering is self.cycle and not self._received and not self.cycle.response_started
        return 3 if sends else None


def refusal(status: int, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A whole HTTP answer with `message` as JSON, behind which the connection ends."""
    content = json.dumps({"error": message}, separators=(",", ":")).encode()
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [name + b": " + value for name, value in headers]
    lines += [b"content-type: application/json", b"content-length: %d" % len(content), b"connection: close"]
    lines += [b"retry-after: 1"] * (status == 503)
    return b"\r\n".join([*lines, b"", content])

"""What clients may take of a server: connections, memory, time, and places in its queues."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...frontend.base.errors import InputError

__all__ = ["COUNTED", "Limits"]

COUNTED = {
    "connections": "connections that were closed to make room, or turned away",
    "descriptors": "times that there was no file descriptor for another connection",
    "silent": "connections on which no request came",
    "idle": "connections on which no other request came",
    "head": "requests whose head came too slowly (408)",
    "head_bytes": "requests with a head that is too long (431)",
    "headers": "requests with too many headers (431)",
    "linger": "connections on which a request went on after its answer",
    "pipelined": "connections with too many requests ahead of their answers",
    "body": "requests with a body that is too long (413)",
    "bodies": "requests whose bodies found no room beside those of others (503)",
    "timeout": "requests that came or were answered too slowly (408, 504)",
    "queue": "requests that found the queue full (503)",
    "switches": "wishes for a variant that found too many others waiting (503)",
    "unread": "connections whose client did not read its answer",
    "gone": "requests whose client went away before the answer (499)",
    "malformed": "connections with what is not HTTP (400)",
    "control": "wishes for a variant from where none may come (401, 403, 415)",
}
"""What the metrics count, by label: most are called as the limit that was met."""


@dataclass(frozen=True)
class Limits:
    """How much clients may take. All seconds and sizes are more than 0.

    Attributes:
        connections: open at a time. For one more, the one that has been idle the longest is closed; if all are busy, the
            new one gets 503. Where the process may open fewer files than that, it is as many as it may.
        silent: seconds in which the first byte of a connection's first request must come.
        head: seconds from the first byte of a request to the end of its head (408).
        idle: seconds from an answer to the first byte of the next request.
        linger: seconds that a client has to take a refusal, or to end a request that was answered before its body came.
        head_bytes: of a request line and its headers together (431).
        headers: of a request, trailers included (431).
        pipelined: requests that one connection may send ahead of the answers; then it is closed behind the last answer.
        body: bytes of a request (413).
        control_body: bytes of a request to switch (413).
        bodies: bytes of all requests that are read, wait or are computed, beyond the first `small` of each (503).
        small: bytes of a request that always find room.
        timeout: seconds in which a body must have come (408), and again until the answer, or until a switch begins (504).
        queue: requests that may wait or be computed (503).
        switches: wishes of clients for a variant that may wait or be under way (503).
        inline: bytes of JSON up to which it is read and written by the event loop; more is the work of another process.
        unread: seconds in which a client that has an answer waiting must have read `unread_bytes` of it.
    """

    connections: int = 1024
    silent: float = 10.0
    head: float = 10.0
    idle: float = 75.0
    linger: float = 5.0
    head_bytes: int = 64 << 10
    headers: int = 100
    pipelined: int = 16
    body: int = 64 << 20
    control_body: int = 1 << 20
    bodies: int = 256 << 20
    small: int = 64 << 10
    timeout: float = 30.0
    queue: int = 64
    switches: int = 8
    inline: int = 256 << 10
    unread: float = 30.0
    unread_bytes: int = 64 << 10

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise InputError(f"the limit {field.name} is {getattr(self, field.name)}; give more than 0")
        if self.bodies < self.body:
            raise InputError(
                f"all requests together may have {self.bodies >> 20} MiB, less than the {self.body >> 20} MiB of a single"
                " one; give more with --bodies-mib, or less with --body-mib"
            )

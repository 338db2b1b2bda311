"""Requests' bodies: read within their time, and within the memory that all of them may have together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from .limits import Limits
from .protocol import RequestError

__all__ = ["Bodies", "while_there"]

T = TypeVar("T")


class Bodies:
    """The memory of all requests that are read, wait or are computed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0
        """Bytes, beyond the first `small` of each."""

    @asynccontextmanager
    async def read(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        """The request's body, which counts as held until the block ends.

        Raises:
            RequestError: it is longer than `limit` bytes, does not come in time, or there is no room for it.
        """
        _check_length(request, limit)
        body = bytearray()
        taken = 0
        try:
            try:
                async with asyncio.timeout(self._limits.timeout):
                    async for part in request.stream():
                        body += part
                        if len(body) > limit:
                            raise _too_long(limit)
                        more = max(0, len(body) - self._limits.small) - taken
                        if self.held + more > self._limits.bodies:
                            raise RequestError("the requests under way leave no memory; try again later", 503, "bodies")
                        self.held += more
                        taken += more
            except TimeoutError:
                seconds = self._limits.timeout
                raise RequestError(f"the request's body did not come within {seconds:g} s", 408, "timeout") from None
            except ClientDisconnect:
                raise _gone() from None
            found = bytes(body)
            del body
            yield found
        finally:
            self.held -= taken


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. It is cancelled if the client goes away meanwhile; the request's body must have been read.

    Raises:
        RequestError: the client went away.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone_away(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _gone()
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _gone_away(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_length(request: Request, limit: int) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("compressed requests are not supported", 415)
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise RequestError(f"the content length {length[:80]!r} is no number")
    # Python refuses to read thousands of digits.
    if len(length) > 18 or int(length) > limit:
        raise _too_long(limit)


def _too_long(limit: int) -> RequestError:
    return RequestError(f"the request is longer than {limit} bytes", 413, "body")


def _gone() -> RequestError:
    return RequestError("the client went away", 499, "gone")

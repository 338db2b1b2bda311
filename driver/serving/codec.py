"""Requests to arrays and arrays to answers, without keeping the event loop from others.

Python reads and writes JSON in one go, in which no other thread of the process runs, so a thread would not help: what is long
goes to another process. That one imports neither torch nor TVM, is started when it is first needed, and lets no more than one
request at a time be many times as large in memory as it is as text.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...backends.tensor_spec import TensorSpec
from .protocol import InferRequest, RequestError, infer_answer, infer_request, json_length

__all__ = ["Codec"]

T = TypeVar("T")

_NUMBER = 16
"""Bytes of one number as JSON, about."""


class Codec:
    """Reads requests and writes answers for a model with these inputs and outputs.

    Args:
        inline: bytes of JSON up to which the caller's thread does it.
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], inline: int) -> None:
        self._inputs, self._outputs, self._inline = tuple(inputs), tuple(outputs), inline
        self._pool: ProcessPoolExecutor | None = None

    def is_long(self, body: bytes, length: str | None) -> bool:
        """Whether `body` holds so much JSON that it is for `long_request`. Raises RequestError if `length` is not usable."""
        return json_length(length, len(body)) > self._inline

    def request(self, body: bytes, length: str | None) -> InferRequest:
        """As `protocol.infer_request`, at once."""
        return infer_request(body, length, self._inputs, self._outputs)

    async def long_request(self, body: bytes, length: str | None) -> InferRequest:
        """As `protocol.infer_request`, by the other process."""
        return await self._elsewhere(infer_request, body, length, self._inputs, self._outputs)

    async def answer(
        self, model: str, variant: str, request: InferRequest, outputs: Sequence[np.ndarray[Any, Any]]
    ) -> tuple[bytes, int | None]:
        """As `protocol.infer_answer`."""
        numbers = sum(math.prod(self._outputs[index].shape) for index, binary in request.outputs if not binary)
        # The inputs are not needed for it.
        asked = InferRequest(request.id, (), request.outputs)
        arguments = (model, variant, asked, self._outputs, outputs)
        if numbers * _NUMBER <= self._inline:
            return infer_answer(*arguments)
        return await self._elsewhere(infer_answer, *arguments)

    def close(self) -> None:
        """Ends the other process, after what it is at."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    async def _elsewhere(self, work: Callable[..., T], *arguments: Any) -> T:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _worked, work, *arguments)
        except BrokenProcessPool:
            # Most likely the system killed it, for its memory.
            self._pool = None
            raise RequestError(
                "the process that reads and writes long JSON was ended; send raw bytes instead", 503
            ) from None


def _worked(work: Callable[..., T], *arguments: Any) -> T:
    """In the other process. The collector would walk again and again through what is read, which has no cycles."""
    gc.collect()
    return work(*arguments)


def _prepare() -> None:
    """In the other process: it ends with its parent and not by itself, and is the first to go if memory runs out."""
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

"""What torch logs of failures that are raised as well, or advises authors of libraries, is kept off a person's terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["FAILURES", "quiet"]

FAILURES = ("torch.export", "torch._subclasses.fake_tensor")
"""They log a traceback of what they raise."""


@contextmanager
def quiet(*names: str, below: int = logging.CRITICAL) -> Iterator[None]:
    """Without what the loggers of these names say below a level."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(below)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

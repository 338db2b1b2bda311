"""JSON that somebody else wrote."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parse_json"]


def parse_json(text: str | bytes, **options: Any) -> Any:
    """The value of a JSON text; `options` are those of ``json.loads``.

    Raises:
        ValueError: it is not JSON, or nested so deeply that Python's reader gives up (which it says by RecursionError).
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

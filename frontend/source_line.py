"""Where in the user's files something of a captured graph comes from."""

from __future__ import annotations

import re

from torch import fx

__all__ = ["source_line"]


def source_line(node: fx.Node) -> str | None:
    """Where the model's code called the operator, ``file.py:12``: the innermost frame outside torch."""
    trace = node.meta.get("stack_trace")
    if not trace:
        return None
    frames = re.findall(r'File "([^"<]+)", line (\d+)', trace)  # "<...>" is code that torch generated.
    own = [frame for frame in frames if not re.search(r"[/\\]torch[/\\]", frame[0])] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else None

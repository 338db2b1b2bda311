"""The calls of a graph that round."""

from __future__ import annotations

from typing import Any

import torch

from ...frontend.quantized_operators import LIBRARY

__all__ = ["rounds"]


def rounds(node: Any) -> str | None:
    """Which of the operators that round a node is, such as ``quantize_per_tensor``; None for others."""
    target = getattr(node, "target", None)
    if isinstance(target, torch._ops.OpOverload) and target.namespace == LIBRARY:
        return str(target.overloadpacket).rpartition(".")[2]
    return None

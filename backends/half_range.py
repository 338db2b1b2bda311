"""Whether what a network computes stays within float16: its largest number is 65504, and below 6e-5 it loses digits."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from ..frontend.source_line import source_line

__all__ = ["LEAST", "MOST", "outside_half"]

MOST, LEAST = float(torch.finfo(torch.float16).max), float(torch.finfo(torch.float16).tiny)

_LAYERS = ("conv", "linear", "addmm", "batch_norm", "prelu")
"""What values grow and shrink in, by the names of operators. Sums of what others give are judged by what comes out in the end;
large numbers that masks are made of stay in float32.
"""


def outside_half(program: ExportedProgram, inputs: tuple[Any, ...]) -> str | None:
    """The first weight or layer of a program that float16 does not hold, for a person; None where all are within.

    A layer is outside if one of its values is above `MOST`, or if all are below `LEAST`.

    Args:
        program: of float32.
        inputs: of the call that it is looked at in.
    """
    module = copy.deepcopy(program.module(check_guards=False))
    for name, weight in module.named_parameters():
        if (size := _largest(weight)) > MOST:
            return f"its weight '{name}' has a value of {size:.3g}, and float16 ends at {MOST:.0f}"
    watcher = _Watcher(module)
    with torch.no_grad():
        watcher.run(*inputs)
    return watcher.found


class _Watcher(fx.Interpreter):
    """Runs a graph, and says which of its layers is the first that is outside."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: str | None = None

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if self.found is None and _is_layer(n) and isinstance(result, torch.Tensor):
            size = _largest(result)
            if size > MOST or 0 < size < LEAST:
                least = f"at most {size:.3g}, and below {LEAST:.0e} float16 loses digits"
                what = f"{size:.3g}, and float16 ends at {MOST:.0f}" if size > MOST else least
                line = source_line(n)
                self.found = f"'{n.name}'{f' at {line}' if line else ''} gives {what}"
        return result


def _is_layer(node: fx.Node) -> bool:
    return node.op == "call_function" and any(word in getattr(node.target, "__name__", "") for word in _LAYERS)


def _largest(value: torch.Tensor) -> float:
    """The largest magnitude of what is finite; 0 of what is empty or no float32."""
    if value.dtype != torch.float32 or not value.numel():
        return 0.0
    sizes = value.detach().abs()
    return float(sizes.where(sizes.isfinite(), 0.0).max())

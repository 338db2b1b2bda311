"""Graphs that are rewritten to arithmetic on codes, and how far they are from what they came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fuzzing.quantised import coded
from torch import Tensor, nn

from reconvene.passes.integers.lowering import IntegerProgram, with_integers

__all__ = ["FINE", "Layer", "lowered", "steps_apart"]

FINE = (0.03, -5)


def lowered(module: nn.Module, *inputs: Tensor) -> tuple[IntegerProgram, nn.Module]:
    exported = torch.export.export(module.eval(), inputs).module(check_guards=False)
    return with_integers(exported), exported


def steps_apart(module: nn.Module, scale: float, *inputs: Tensor) -> Tensor:
    """By how many steps of `scale` the rewritten graph's result is off, entry by entry."""
    program, exported = lowered(module, *inputs)
    with torch.no_grad():
        return ((program.module(*inputs) - exported(*inputs)) / scale).abs()


class Layer(nn.Module):
    """A layer between codes, with what follows it before its result is quantised."""

    def __init__(
        self, layer: nn.Module, after: Callable[[Tensor], Tensor] = lambda x: x, result: Any = (0.05, 3)
    ) -> None:
        super().__init__()
        self.layer, self.after, self.result = layer, after, result

    def forward(self, x: Tensor) -> Tensor:
        return coded(self.after(self.layer(coded(x, *FINE))), *self.result)

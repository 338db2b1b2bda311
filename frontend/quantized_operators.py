"""The operators by which a graph says what is rounded to integers: quantise and dequantise of ``quantized_decomposed``.

PyTorch has them as soon as a file of its own is imported, which takes no package beside it.
"""

from __future__ import annotations

import importlib

import torch
from torch import fx

from .base.errors import InputError

__all__ = ["LIBRARY", "check_float", "is_quantized", "load_quantized_operators"]

LIBRARY = "quantized_decomposed"


def load_quantized_operators() -> None:
    """Makes ``torch.ops.quantized_decomposed`` known to PyTorch, without which no graph that calls it can be read."""
    importlib.import_module("torch.ao.quantization.fx._decomposed")


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether a graph, or one within it, calls operators that round to integers."""
    graphs = [part.graph for part in module.modules() if isinstance(part, fx.GraphModule)]
    return any(
        isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == LIBRARY
        for graph in graphs
        for node in graph.nodes
    )


def check_float(module: torch.nn.Module, order: str) -> None:
    """Raises InputError for a graph that is rounded already. `order`: what comes before what, for the message."""
    if is_quantized(module):
        raise InputError(f"the model is quantised already; {order}, and take the model as it was before that")

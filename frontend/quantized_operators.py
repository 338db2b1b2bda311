"""The operators by which a graph says what is rounded to integers: quantise and dequantise of ``quantized_decomposed``, and the
``fake_quantize`` of PyTorch that stand for both in training.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, fx

from .base.errors import InputError

__all__ = [
    "LIBRARY",
    "check_float",
    "check_not_rounded",
    "has_fake_rounding",
    "is_quantized",
    "load_quantized_operators",
]

LIBRARY = "quantized_decomposed"

_FAKE = ("fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine")


def load_quantized_operators() -> None:
    """Makes ``torch.ops.quantized_decomposed`` known to PyTorch, without which no graph that calls it can be read."""
    importlib.import_module("torch.ao.quantization.fx._decomposed")


def is_quantized(module: torch.nn.Module) -> bool:
    """Whether a graph, or one within it, calls operators that round to integers."""
    return any(target.namespace == LIBRARY for target in _operators(module))


def has_fake_rounding(module: torch.nn.Module) -> bool:
    """Whether it is a quantised network that can be trained."""
    return any(target._schema.name.partition("::")[2] in _FAKE for target in _operators(module))


def _operators(module: torch.nn.Module) -> list[torch._ops.OpOverload]:
    graphs = [part.graph for part in module.modules() if isinstance(part, fx.GraphModule)]
    targets = [node.target for graph in graphs for node in graph.nodes]
    return [target for target in targets if isinstance(target, torch._ops.OpOverload)]


def check_float(module: torch.nn.Module, order: str) -> None:
    """Raises InputError for a graph that rounds, also for training. `order`: what comes before what, for the message."""
    if is_quantized(module) or has_fake_rounding(module):
        raise InputError(f"the model is quantised already; {order}, and take the model as it was before that")


def check_not_rounded(module: torch.nn.Module) -> None:
    """Raises InputError for a graph that hands on no gradients, since it rounds."""
    if is_quantized(module):
        raise InputError(
            "the model is quantised already, and cannot be trained; train before you quantise, or quantise with --trainable"
            " (`Quantized.trainable()`)"
        )


def check_not_in_training(module: torch.nn.Module) -> None:
    """Raises InputError for a graph whose rounding is that of training."""
    if has_fake_rounding(module):
        raise InputError(
            "the model is quantised for training, its weights are in float; quantise it again, which rounds them, then compile"
        )


def _described(values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """What these operators give, and where they cut nothing off, without numbers."""
    return torch.empty_like(values), torch.empty_like(values, dtype=torch.bool)


def _describe_fake_rounding() -> torch.library.Library:
    """PyTorch 2.13 has no description of what they give for tensors without numbers, which torch.export goes by."""
    library = torch.library.Library("aten", "IMPL", "Meta")
    for name in _FAKE:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}_cachemask", "Meta"):
            library.impl(f"{name}_cachemask", _described)
    return library


_KEPT = _describe_fake_rounding()
"""The description goes with it."""

"""Reading quantised graphs in tests, and small networks to make them of."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.quantization.conversion import converted
from reconvene.passes.quantization.preparation import prepared
from reconvene.passes.quantization.ranges import RANGES
from reconvene.passes.quantization.rounding import float_reasons
from reconvene.passes.quantization.rounds import rounds
from reconvene.passes.values import operator_name

__all__ = ["nodes", "quantized", "read_by", "scales", "settled", "signal_to_noise"]


def settled(model: nn.Module, *inputs: torch.Tensor) -> nn.Module:
    """The model in inference, with the statistics of these inputs, so that it behaves like a trained one."""
    model.train()
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = None
    with torch.no_grad():
        model(*inputs)
    return model.eval()


def quantized(model: nn.Module, *inputs: torch.Tensor, observer: str = "min-max") -> CapturedModule:
    """The model in 8 bits, calibrated on these inputs."""
    module = prepared(capture(model, inputs))
    return converted(module, float_reasons(module, lambda name: None), [inputs], RANGES[observer])[0]


def nodes(module: fx.GraphModule, name: str) -> list[fx.Node]:
    """The calls of an operator, by its name without ``aten.``."""
    return [node for node in module.graph.nodes if node.op == "call_function" and operator_name(node) == f"aten.{name}"]


def read_by(node: fx.Node) -> list[tuple[float, int] | None]:
    """For every tensor that a call reads: scale and zero point where it is rounded, None where it is not."""
    return [_scale(value) for value in node.all_input_nodes if isinstance(value.meta.get("val"), torch.Tensor)]


def scales(node: fx.Node) -> list[tuple[float, int] | None]:
    """For every reader of a call's result the same."""
    return [_scale(reader) if rounds(reader) == "quantize_per_tensor" else None for reader in node.users]


def _scale(node: fx.Node) -> tuple[float, int] | None:
    if (rounds(node) or "").endswith("_per_tensor"):
        scale: Any = node.args[1:3]
        return scale[0], scale[1]
    return None


def signal_to_noise(exact: torch.Tensor, rounded: torch.Tensor) -> float:
    """In dB."""
    return float(10 * torch.log10(exact.square().sum() / (exact - rounded).square().sum()))

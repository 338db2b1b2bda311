"""Where the mean of a layer's outputs is kept: in its bias, or in the mean of the normalisation behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ..layers import Layer
from ..values import Operation, attribute, operator_name

__all__ = ["Offset", "offset_of", "stored_norm"]


@dataclass(frozen=True, eq=False)
class Offset:
    """A stored tensor with one entry an output channel that a layer's offset can be written to.

    Attributes:
        tensor: a bias, or the running mean of a batch normalisation.
        subtracted: whether it is subtracted from the outputs, as a mean is.
    """

    tensor: Tensor
    subtracted: bool = False

    def value(self) -> Tensor:
        """The bias that the layer has, float64: none where normalisation keeps the mean."""
        return torch.zeros_like(self.tensor, dtype=torch.float64) if self.subtracted else self.tensor.detach().double()

    def set(self, bias: Tensor) -> None:
        """Makes the layer's bias `bias`, in place."""
        with torch.no_grad():
            self.tensor.copy_(self.tensor.double() - bias if self.subtracted else bias)


def offset_of(module: fx.GraphModule, op: Operation, layer: Layer) -> Offset | str | None:
    """Where the offset of a layer goes, or why it cannot go there; None for a layer that has no offset."""
    if layer.bias is not None:
        if op.tensor("bias") is None:
            return "its bias is computed from other values"
        if len(layer.bias.users) > 1:
            return "its bias has another reader"
        return Offset(attribute(module, str(layer.bias.target)))
    norm = next(iter(op.node.users)) if len(op.node.users) == 1 else None
    if norm is not None and layer.axis == 1 and norm.args[0] is op.node:
        stored = stored_norm(norm, module)
        if stored is not None:
            return Offset(stored[0], subtracted=True)
    return None


def stored_norm(node: fx.Node, module: fx.GraphModule) -> tuple[Tensor, Tensor] | None:
    """Running mean and variance of a batch normalisation by stored statistics that nothing else reads; else None."""
    if operator_name(node) != "aten.batch_norm":
        return None
    norm = Operation(node, module)
    mean, variance = norm.tensor("running_mean"), norm.tensor("running_var")
    if norm["training"] or mean is None or variance is None:
        return None
    return (mean, variance) if all(len(norm[name].users) == 1 for name in ("running_mean", "running_var")) else None

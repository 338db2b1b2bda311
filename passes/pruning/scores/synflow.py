"""SynFlow: a weight's share in all paths through the network, without data (Tanaka et al., 2020, arXiv 2006.05467).

Every parameter is replaced by its absolute value, the input is all ones, R is the sum of the outputs, and the score is
|w| * dR/d|w|. Normalisation is a fixed scale: inference mode, with means taken as 0. The numbers span many orders of
magnitude, so all is done in double precision; and since one round empties whole layers, the pruning takes 100.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ....frontend.base.errors import InputError
from ...values import operator_name
from .base import Request, Score, in_mode, stored_tensors

__all__ = ["SYNFLOW"]

_MEAN_POSITION = 3
"""Of the running mean among the arguments of ``aten.batch_norm``."""


def weigh(request: Request) -> dict[str, Tensor]:
    module = in_mode(request.module, training=False)
    means = _running_means(module)
    leaves = {weight.name: _magnitudes(request.tensor(weight)) for weight in request.weights}
    fixed = {
        name: tensor.double().abs() if tensor.is_floating_point() else tensor
        for name, tensor in stored_tensors(module).items()
        if name not in leaves
    }
    fixed |= {name: torch.zeros_like(fixed[name]) for name in means}
    try:
        outputs = torch.func.functional_call(module, fixed | leaves, pytree.tree_map(_ones, request.evidence.inputs))
    except RuntimeError as error:
        reason = (str(error) or "no message").splitlines()[0]
        raise InputError(f"SynFlow needs a model that runs in double precision: {reason}; use another score") from error
    floats = [value for value in pytree.tree_leaves(outputs) if isinstance(value, Tensor) and value.is_floating_point()]
    flow = sum((value.sum() for value in floats), torch.zeros((), dtype=torch.float64))
    if not bool(flow.isfinite()):
        raise InputError("SynFlow's sum over all paths does not fit double precision here; use another score")
    slopes = torch.autograd.grad(flow, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return {
        weight.name: slope.mul_(leaves[weight.name].detach())
        for weight, slope in zip(request.weights, slopes, strict=True)
    }


def _magnitudes(weight: Tensor) -> Tensor:
    return weight.to(torch.float64, copy=True).abs_().requires_grad_()


def _ones(value: Any) -> Any:
    """One example of ones for a tensor of floating-point numbers; other inputs stay as they are."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.ones(value.shape, dtype=torch.float64)
    return value


def _running_means(module: fx.GraphModule) -> list[str]:
    found = []
    for node in module.graph.nodes:
        if node.op == "call_function" and operator_name(node) in ("aten.batch_norm", "aten.instance_norm"):
            mean = node.args[_MEAN_POSITION]
            if isinstance(mean, fx.Node) and mean.op == "get_attr":
                found.append(str(mean.target))
    return found


SYNFLOW = Score("synflow", weigh, rounds=100)

"""Reconvene's resilient layer rectifier, second half: new initial weights for layers that lost channels.

A captured graph does not say how a layer was initialised, but its weights do: those of an untrained layer are independent
draws of its initialiser. ``own`` therefore deals out a random selection of the layer's own first weights, which is an exact
sample of that initialiser, and multiplies it by sqrt(fan_in / new fan_in), as initialisers of the Kaiming family would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, fx, nn

from ....frontend.base.errors import InputError

__all__ = ["INITIALIZERS", "WHICH", "affected_layers", "reinitialize"]

WHICH = ("affected", "all", "none")

Initializer = Callable[[str, Tensor, Tensor, float, float, torch.Generator], Tensor]
"""Takes a parameter's last name, its old value, its present value, the layer's old and new fan-in, and a generator."""


def reinitialize(
    module: fx.GraphModule, dense: fx.GraphModule, which: str = "affected", initializer: str = "own", seed: int = 0
) -> tuple[str, ...]:
    """Gives layers of `module` new initial weights, in place, and returns their names.

    Args:
        module: a compacted module; its statistics of normalisation begin anew with the weights.
        dense: what it was compacted from, with its initial weights.
        which: layers, ``affected`` ones (a parameter changed its shape: those that lost output or input channels, and
            normalisation between them), ``all``, or ``none``.
        initializer: of `INITIALIZERS`.
        seed: of the new weights.

    Raises:
        InputError: an option is unknown.
    """
    if which not in WHICH:
        raise InputError(f"there is no choice '{which}' of layers to re-initialise; choose one of {', '.join(WHICH)}")
    if initializer not in INITIALIZERS:
        raise InputError(f"there is no initialiser '{initializer}'; choose one of {', '.join(INITIALIZERS)}")
    if which == "none":
        return ()
    old = dict(dense.named_parameters(remove_duplicate=False))
    parameters = {name: value for name, value in module.named_parameters() if name in old}
    chosen = {_layer(name) for name in parameters} if which == "all" else set(affected_layers(module, dense))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in parameters.items():
            if _layer(name) in chosen:
                before, after = _fan_in(old, name), _fan_in(parameters, name)
                last = name.rpartition(".")[2]
                value.copy_(INITIALIZERS[initializer](last, old[name].detach(), value, before, after, generator))
        for name, buffer in module.named_buffers():
            if _layer(name) in chosen:
                _reset_statistic(name.rpartition(".")[2], buffer)
    return tuple(dict.fromkeys(_layer(name) for name in parameters if _layer(name) in chosen))


def affected_layers(module: fx.GraphModule, dense: fx.GraphModule) -> tuple[str, ...]:
    """Layers with a parameter whose shape is not what it was."""
    old = dict(dense.named_parameters(remove_duplicate=False))
    changed = (name for name, value in module.named_parameters() if name in old and value.shape != old[name].shape)
    return tuple(dict.fromkeys(_layer(name) for name in changed))


def own(last: str, old: Tensor, value: Tensor, before: float, after: float, generator: torch.Generator) -> Tensor:
    """A random selection of the layer's first weights, scaled to the new fan-in."""
    if old.numel() < value.numel():
        return value
    chosen = torch.randperm(old.numel(), generator=generator)[: value.numel()]
    return old.reshape(-1)[chosen].reshape(value.shape) * (1.0 if math.isinf(before) else math.sqrt(before / after))


def open_lth(last: str, old: Tensor, value: Tensor, before: float, after: float, generator: torch.Generator) -> Tensor:
    """Kaiming normal weights; normalisation's weights uniform in 0..1; biases as PyTorch's, normalisation's 0."""
    if value.dim() > 1:
        return nn.init.kaiming_normal_(torch.empty_like(value), generator=generator)
    if last == "weight":
        return nn.init.uniform_(torch.empty_like(value), generator=generator)
    bound = 0.0 if math.isinf(after) else 1 / math.sqrt(after)
    return nn.init.uniform_(torch.empty_like(value), -bound, bound, generator=generator)


def pytorch(last: str, old: Tensor, value: Tensor, before: float, after: float, generator: torch.Generator) -> Tensor:
    """What PyTorch's own layers start with."""
    if value.dim() > 1:
        return nn.init.kaiming_uniform_(torch.empty_like(value), a=math.sqrt(5), generator=generator)
    if last == "weight":
        return torch.ones_like(value)
    bound = 0.0 if math.isinf(after) else 1 / math.sqrt(after)
    return nn.init.uniform_(torch.empty_like(value), -bound, bound, generator=generator)


INITIALIZERS: Mapping[str, Initializer] = MappingProxyType({"own": own, "open-lth": open_lth, "pytorch": pytorch})


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _fan_in(parameters: Mapping[str, Tensor], name: str) -> float:
    """Weights that enter one output of the parameter's layer; infinite for layers without a matrix, such as normalisation."""
    value = parameters[name]
    weight = value if value.dim() > 1 else parameters.get(f"{_layer(name)}.weight", value)
    return float(weight[0].numel()) if weight.dim() > 1 else math.inf


def _reset_statistic(last: str, buffer: Tensor) -> None:
    if last in ("running_mean", "num_batches_tracked"):
        buffer.zero_()
    elif last == "running_var":
        buffer.fill_(1)

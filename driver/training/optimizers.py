"""PyTorch's optimizers by name, and what each keeps for every parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

__all__ = ["OPTIMIZERS", "Optimization", "state_like"]


@dataclass(frozen=True)
class Optimization:
    """What an optimizer is told; see `presets.Preset`."""

    rate: float
    momentum: float
    weight_decay: float
    beta2: float


def _sgd(parameters: Iterable[nn.Parameter], told: Optimization) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, told.rate, momentum=told.momentum, weight_decay=told.weight_decay)


def _adamw(parameters: Iterable[nn.Parameter], told: Optimization) -> torch.optim.Optimizer:
    """Loshchilov and Hutter, 2019, arXiv:1711.05101."""
    betas = (told.momentum, told.beta2)
    return torch.optim.AdamW(parameters, told.rate, betas=betas, weight_decay=told.weight_decay)


OPTIMIZERS: Mapping[str, Callable[[Iterable[nn.Parameter], Optimization], torch.optim.Optimizer]] = MappingProxyType(
    {"sgd": _sgd, "adamw": _adamw}
)


def state_like(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Empty tensors of the shapes, types, strides and devices of what one of these keeps for `parameter`, by its names."""
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer": torch.empty_like(parameter, requires_grad=False)}
    moments = {name: torch.empty_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.empty(()), **moments}

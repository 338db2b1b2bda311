"""Weights that stay zero while a network is trained: the smallest use of the hooks, without options or state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ....frontend.base.errors import InputError
from ....frontend.graph_module import CapturedModule
from ...masks import spread_mask
from .base import Hooks, Moment, State, Weights

__all__ = ["Masked"]


@dataclass(frozen=True, eq=False)
class Masked(Hooks):
    """Sets the entries that masks leave out to zero, before the first step and after every one."""

    masks: Mapping[str, Tensor] = field(repr=False)
    """By parameter name, boolean, of the parameter's shape and on its device, True where a weight is."""

    @classmethod
    def of(cls, module: nn.Module, masks: Mapping[str, Tensor]) -> Masked:
        """With masks that may have one entry a channel. Raises InputError if one does not fit the module."""
        parameters = dict(module.named_parameters())
        for name in masks:
            if name not in parameters:
                raise InputError(f"there is no parameter '{name}' to keep masked")
        return cls({name: spread_mask(name, mask, parameters[name]).contiguous() for name, mask in masks.items()})

    def to(self, device: torch.device) -> Masked:
        """The same on another device."""
        return Masked({name: mask.to(device) for name, mask in self.masks.items()})

    def weights(self, module: CapturedModule) -> dict[str, nn.Parameter]:
        return {name: module.get_parameter(name) for name in self.masks}

    def begin(self, weights: Weights) -> State:
        self._set(weights)
        return {}

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        self._set(weights)
        return state

    def _set(self, weights: Weights) -> None:
        for name, mask in self.masks.items():
            weights[name].mul_(mask)

"""What Torch-Pruning removes, as masks on the original network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .recipes import Recipe, pruner_of

__all__ = ["Masks", "prune_by_peer"]

Masks = dict[str, torch.Tensor]


class Removals:
    """Masks on the original network of what groups remove from the shrinking one.

    A group counts positions in the network as the groups before it left it, so each parameter's surviving original
    positions are kept.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = {id(module): name for name, module in network.named_modules()}
        self._masks = {name: torch.ones(value.shape, dtype=torch.bool) for name, value in network.named_parameters()}
        self._survivors: dict[str, torch.Tensor] = {}

    def note(self, target: Any, axis: int, positions: Sequence[int]) -> None:
        """`positions` of the channels of `target`, a module or a parameter, are about to go."""
        for name, own_axis in self._makers(target, axis):
            mask = self._masks[name]
            survivors = self._survivors.get(name, torch.arange(mask.shape[own_axis]))
            gone = torch.zeros(len(survivors), dtype=torch.bool)
            gone[torch.tensor(sorted(set(positions)), dtype=torch.long)] = True
            mask.index_fill_(own_axis, survivors[gone], False)
            self._survivors[name] = survivors[~gone]

    def masks(self) -> Masks:
        """By parameter name, True to keep; only those that lose something."""
        return {name: mask for name, mask in self._masks.items() if not mask.all()}

    def _makers(self, target: Any, axis: int) -> list[tuple[str, int]]:
        """The parameters that make the channels of `target`, and the axis they are on."""
        if isinstance(target, nn.Parameter):
            name = next(name for name, value in self._network.named_parameters() if value is target)
            return [(name, axis)]
        if id(target) not in self._modules:
            return []  # One of its own stand-ins for an operator without a layer.
        # A layer with a pruner of its own makes its channels with its last linear layer.
        layer = getattr(target, "proj", getattr(target, "reduction", target))
        transposed = getattr(layer, "transposed", False)
        return [
            (f"{self._modules[id(layer)]}.{name}", 1 if transposed and value.dim() > 1 else 0)
            for name, value in layer.named_parameters(recurse=False)
            if value.numel() > 1
        ]


def prune_by_peer(network: nn.Module, inputs: tuple[torch.Tensor, ...], recipe: Recipe) -> tuple[float, Masks]:
    """Prunes `network` in place. Gives the processor seconds it took, recording left out, and what went."""
    noted = Removals(network)
    began = time.process_time()
    pruner = pruner_of(network, inputs, recipe)
    spent = time.process_time() - began
    groups = pruner.step(interactive=True)
    while True:
        began = time.process_time()
        group = next(groups, None)
        spent += time.process_time() - began
        if group is None:
            break
        for dependency, positions in group:
            if pruner.DG.is_out_channel_pruning_fn(dependency.handler):
                noted.note(dependency.target.module, dependency.target.pruning_dim, positions)
        began = time.process_time()
        group.prune()
        spent += time.process_time() - began
    recipe.repair(network)
    return spent, noted.masks()

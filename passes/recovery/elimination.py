"""Which channels a network can spare: those whose loss costs least once the layers that read them are solved anew.

Let a layer give W x, with S the covariance of what it reads plus its ridge. Without the columns J, and all other weights solved
anew, its outputs lack, in mean square weighted by w,

    sum over outputs o of  w_o  W_oJ ([S^-1]_JJ)^-1 W_oJ^T,      W <- W - W_:J ([S^-1]_JJ)^-1 [S^-1]_J:,

the optimal brain surgeon (Hassibi and Stork, 1993) of a whole channel. Channels go in rounds, the cheapest first, and after
each W and S^-1 are those of what is left: the costs of two channels that stand for each other are told when one is gone. OSSCAR
(Meng et al., 2024, arXiv 2403.12983) and ZipLM (Kurtic et al., 2023, arXiv 2302.04089) do so with single layers; here a
channel's cost is summed over all layers that read it, and the curve of costs says how many channels a group can spare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Elimination", "System", "eliminate"]

_ROUNDS = 96
"""Of a group: one channel or a hundredth of them at a time."""
_LARGEST = 2_304
"""Columns up to which costs are told anew in every round. Larger systems are told once: a round would take seconds."""

Index = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(eq=False)
class System:
    """What one layer (or one group of it) computes of channels, while channels go.

    Attributes:
        weight: outputs x columns, float64, each output scaled by the root of what its error costs.
        inverse: of the damped covariance: columns x columns.
        channels: by column, the number of the channel in its group; -1 for one of another group, or of a channel that is gone.
    """

    weight: Tensor
    inverse: Tensor
    channels: Tensor

    @classmethod
    def of(cls, weight: Tensor, covariance: Tensor, ridge: float, channels: Tensor) -> System:
        """With `ridge` as a share of the mean variance."""
        strength = max(ridge * float(covariance.diagonal().mean()), torch.finfo(torch.float64).tiny)
        damped = covariance + strength * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        return cls(weight.clone(), torch.cholesky_inverse(torch.linalg.cholesky(damped)), channels.clone())

    @property
    def small(self) -> bool:
        """Whether its costs are told anew in every round."""
        return len(self.inverse) <= _LARGEST

    def costs(self, size: int) -> Tensor:
        """What each of `size` channels costs alone; 0 for one that has no column here."""
        found = torch.zeros(size, dtype=self.weight.dtype)
        here = self.channels >= 0
        order = self.channels[here].argsort(stable=True)
        columns = here.nonzero()[:, 0][order]
        counts = torch.bincount(self.channels[columns], minlength=size)
        for count in counts.unique().tolist():
            if not count:
                continue
            chosen = (counts == count).nonzero()[:, 0]
            blocks = columns[torch.isin(self.channels[columns], chosen)].reshape(-1, count)
            found[chosen] = self._block_costs(blocks)
        return found

    def _block_costs(self, blocks: Tensor) -> Tensor:
        """Of several channels with equally many columns: channels x columns of each."""
        if blocks.shape[1] == 1:
            flat = blocks[:, 0]
            return self.weight[:, flat].square().sum(0) / self.inverse.diagonal()[flat]
        parts = self.inverse[blocks[:, :, None], blocks[:, None]]
        weights = self.weight[:, blocks].permute(1, 2, 0)
        return (torch.linalg.solve(parts, weights) * weights).sum((1, 2))

    def remove(self, gone: Tensor) -> None:
        """Takes channels out, and solves the rest anew. Their columns stay, without weight: nothing is copied."""
        leave = torch.isin(self.channels, gone).nonzero()[:, 0]
        part = self.inverse[:, leave]
        rows = torch.linalg.solve(part[leave], part.T)
        self.weight.addmm_(self.weight[:, leave], rows, alpha=-1)
        self.inverse.addmm_(part, rows, alpha=-1)
        self.weight[:, leave] = 0
        self.inverse[leave] = 0
        self.inverse[:, leave] = 0
        self.inverse[leave, leave] = 1
        self.channels[leave] = -1


@dataclass(frozen=True, eq=False)
class Elimination:
    """In what order the channels of a group can go, and what that costs.

    Attributes:
        order: channel numbers, the cheapest first; one of every group stays and is the last.
        costs: what each costs when all before it are gone; never less than the one before.
    """

    order: Index
    costs: Floats

    @property
    def ranks(self) -> Floats:
        """By channel: its place in the order."""
        ranks = np.empty(len(self.order))
        ranks[self.order] = np.arange(len(self.order))
        return ranks


def eliminate(systems: Sequence[System], size: int) -> Elimination:
    """Takes the channels of a group out, round by round. The systems are used up.

    Args:
        systems: of all layers that read them.
        size: number of channels.
    """
    left = torch.ones(size, dtype=torch.bool)
    fixed = sum((system.costs(size) for system in systems if not system.small), torch.zeros(size, dtype=torch.float64))
    changing = [system for system in systems if system.small]
    order: list[int] = []
    costs: list[float] = []
    step = math.ceil(size / _ROUNDS)
    while len(order) < size:
        now = sum((system.costs(size) for system in changing), fixed)
        now = now.masked_fill(~left, math.inf)
        gone = now.argsort(stable=True)[: min(step, size - len(order))]
        order += gone.tolist()
        costs += now[gone].tolist()
        left[gone] = False
        if len(order) < size:
            for system in changing:
                system.remove(gone)
    return Elimination(np.array(order), np.maximum.accumulate(np.array(costs)))

"""A method that trains and whose state matters; run by itself, it trains a network for as long as that takes.

python growing.py FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reconvene.driver.training.loop import train
from reconvene.passes.pruning.methods.base import Moment, State, TrainingMethod, Weights


@dataclass(frozen=True)
class Growing(TrainingMethod):
    """Zeroes the weights of each layer whose running mean of sizes is lowest, more of them as the training goes on."""

    name = "growing"

    decay: float = 0.01
    memory: float = 0.9

    def begin(self, weights: Weights) -> State:
        return {name: weight.abs() for name, weight in weights.items()}

    def penalty(self, weights: Weights, state: State) -> Tensor:
        """Draws weights to zero, the more the smaller they have been, with noise of PyTorch's own generator."""
        total = torch.zeros((), device=next(iter(weights.values())).device)
        for name, weight in weights.items():
            total = total + (weight.square() / (state[name] + 0.1)).sum() * (1 + 0.1 * torch.rand(()).item())
        return self.decay * total

    def gradients(self, weights: Weights, state: State) -> None:
        for name, weight in weights.items():
            assert weight.grad is not None
            weight.grad.mul_(1 + state[name].clamp(max=1.0))

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        sizes = {name: self.memory * state[name] + (1 - self.memory) * weight.abs() for name, weight in weights.items()}
        for name, weight in weights.items():
            count = round(self.sparsity * moment.progress * weight.numel())
            lowest = sizes[name].flatten().argsort(stable=True)[:count]
            mask = torch.ones_like(sizes[name]).flatten().index_fill_(0, lowest, 0.0)
            weight.mul_(mask.reshape(weight.shape))
        return sizes


if __name__ == "__main__":
    from tests.driver.training.test_loop import PRESET, images, network

    torch.set_num_threads(1)
    preset = PRESET.changed({"epochs": 6})
    train(network(), images(), images(32, 1), preset, Path(sys.argv[1]), method=Growing(), checkpoint_every=2)

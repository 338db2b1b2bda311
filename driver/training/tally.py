"""Sums over the steps of an epoch, kept on the device so that nothing waits for them before they are read."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Tally"]


class Tally:
    """Losses and right answers."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)

    def restore(self, loss: float, correct: int) -> None:
        """Goes on from these sums."""
        self._loss.fill_(loss)
        self._correct.fill_(correct)

    @torch.no_grad()
    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor, images: int = 1) -> None:
        """A batch: its loss, a scalar that counts for so many images; what it answers (N, classes), and labels (N,)."""
        self._loss += loss.detach().double() * images
        self._correct += (outputs.argmax(1) == labels).sum()

    def read(self) -> tuple[float, int]:
        """Both sums, when all of it is done."""
        return self._loss.item(), int(self._correct.item())

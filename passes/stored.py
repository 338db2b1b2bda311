"""Modules that do nothing but hold tensors under dotted names, for graphs to read."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..frontend.inlining import place

__all__ = ["holder_of", "place_tensor"]


def holder_of(tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """A bare module tree with the tensors under their dotted names."""
    root = torch.nn.Module()
    for name, tensor in tensors.items():
        place_tensor(root, name, tensor)
    return root


def place_tensor(root: torch.nn.Module, name: str, tensor: torch.Tensor | torch.nn.Module) -> None:
    """Stores `tensor` under a dotted name, making the modules on the way; parameters stay parameters.

    The graphs that ``torch.cond`` and its relatives call are stored in the same way.
    """
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, torch.nn.Module())
        root = getattr(root, part)
    place(root, last, tensor)

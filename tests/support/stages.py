"""Networks in which every stage of the backend has something to do, at each of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tvm import IRModule

from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.nodes import Graph
from reconvene.backends.graph.read import read_relax
from reconvene.backends.importing.importer import import_module

from .models import randomise

__all__ = ["NETWORKS", "Network", "folded", "imported"]


@dataclass(frozen=True)
class Network:
    """A module and the shape of its input."""

    module: type[nn.Module]
    shape: tuple[int, ...]


class Classifier(nn.Module):
    """Normalised layers, padding of its own, pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 12, 3, stride=2), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(F.pad(x, (1, 1, 0, 2)))).relu()
        return self.head(F.max_pool2d(F.hardtanh(self.second(y)), 2).flatten(1))


class Branches(nn.Module):
    """Two layers that are added, a gate, depthwise and grouped layers, parts joined in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 1)
        self.depthwise, self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(12, 8, 1, groups=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.stem(x)
        total = (self.left(y) + self.right(y)).relu()
        gated = self.depthwise(total) * torch.sigmoid(total.mean((2, 3), keepdim=True))
        first, second = gated.split([5, 7], 1)
        return self.grouped(torch.cat([second, first], 1)), total


class Attention(nn.Module):
    """Rows of a matrix and what is TVM's: products, softmax, a normalisation, the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.query, self.key, self.value = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(x)
        weights = torch.softmax(self.query(y) @ self.key(y).transpose(1, 2) * 0.5, -1)
        mixed = weights @ F.gelu(self.value(y))
        return mixed, torch.topk(mixed, 2).indices


NETWORKS = {
    "classifier": Network(Classifier, (1, 3, 9, 9)),
    "branches": Network(Branches, (2, 3, 6, 6)),
    "attention": Network(Attention, (2, 5, 8)),
}


@cache
def imported(name: str) -> IRModule:
    """What is read of the network `name`."""
    torch.manual_seed(0)
    network = NETWORKS[name]
    return import_module(randomise(network.module()), (torch.zeros(network.shape),)).module


def folded(name: str) -> Graph:
    """The network `name` after folding."""
    graph = read_relax(imported(name))
    fold_channels(graph)
    fold_margins(graph)
    return graph

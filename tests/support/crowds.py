"""Many small networks captured and compacted as one graph, since most of the time goes into what each graph costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from reconvene.passes.outcome import Compaction
from reconvene.passes.values import operator_name

from .models import Exactness, randomise
from .together import Together

__all__ = ["Crowd", "Member", "Network"]


@dataclass(frozen=True)
class Network:
    """How a network is made, and inputs that fit."""

    build: Callable[[], nn.Module]
    example: Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Member:
    """One network of a crowd after both kinds of mask: what it computes is right, this is what is left of it."""

    operators: frozenset[str]
    before: dict[str, torch.Size]
    """Shapes of its parameters."""
    after: dict[str, dict[str, torch.Size]]
    """The same by the kind of mask."""


class Crowd:
    """`networks` in one graph. Where that fails, each is tried alone, so that the fault has its name."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks

    def member(self, place: int) -> Member:
        """Raises what comparison, capture and compaction raise, where network `place` is wrong, or only the whole is."""
        found = self._found[place]
        if isinstance(found, Exception):
            raise found
        return found

    def alone(self, place: int) -> Member:
        """The same without the others: one that may read infinity makes all of a graph be treated with caution."""
        return _compacted([self._networks[place]])[0]

    @cached_property
    def _found(self) -> list[Member] | list[Member | Exception]:
        try:
            return _compacted(self._networks)
        except Exception as error:
            found = [self._tried(place) for place in range(len(self._networks))]
            return found if any(isinstance(one, Exception) for one in found) else [error] * len(found)

    def _tried(self, place: int) -> Member | Exception:
        try:
            return self.alone(place)
        except Exception as error:
            return error


def _compacted(networks: Sequence[Network]) -> list[Member]:
    models, examples = [], []
    for network in networks:
        torch.manual_seed(0)
        models.append(randomise(network.build()))
        examples.append(network.example())
    together = Together(models, [len(example) for example in examples])
    exactness = Exactness(together, [value for example in examples for value in example])
    results = {kind: exactness.check(kind) for kind in ("M1", "M2")}
    return [_member(f"networks.{place}", model, exactness, results) for place, model in enumerate(models)]


def _member(name: str, model: nn.Module, exactness: Exactness, results: dict[str, Compaction]) -> Member:
    nodes = [node for node in exactness.graph.graph.nodes if node.op == "call_function"]
    within = [node for node in nodes if any(layer == name for layer, _ in node.meta["nn_module_stack"].values())]
    after = {kind: _shapes(result.module.get_submodule(name)) for kind, result in results.items()}
    return Member(frozenset(map(operator_name, within)), _shapes(model), after)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in module.named_parameters()}

"""Reconvene, what it is compared with, and its ablations, under one roof: a name, an untrained network and p give a candidate.

UPaI (unstructured pruning at initialization) keeps the dense shapes and masks weights; SPaI (structured) removes channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ..canonicalize import canonicalize
from ..compaction import analyse, compact
from ..dependency import DependencyView, dependency_view
from ..outcome import Size
from ..sizes import total_size
from ..values import attribute
from .channels import decide
from .decisions import Decision, masks_of
from .methods.reconvene import Recipe, run_recipe
from .scores import Batch, Loss
from .trial import tried
from .weights import sparsify

__all__ = ["BASELINES", "Candidate", "Setting", "make_candidate"]

_HALVINGS = 12


@dataclass(frozen=True)
class Setting:
    """What a method is given.

    Attributes:
        inputs: example inputs.
        score: of `pruning.scores.SCORES`.
        sparsity: p.
        batches: for scores that need data.
        loss: for these scores.
        seed: of everything random.
    """

    inputs: tuple[Any, ...]
    score: str = "magnitude"
    sparsity: float = 0.9
    batches: Sequence[Batch] = ()
    loss: Loss = F.cross_entropy
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """An untrained network that is ready to be trained."""

    module: CapturedModule = field(repr=False)
    masks: Mapping[str, Tensor] = field(repr=False)
    """Weights that training keeps at zero; empty for dense networks."""
    size: Size
    """As stored and computed: masked weights count, because nothing is saved by them."""
    weights: int
    """Parameters that are not masked."""


Method = Callable[[CapturedModule, Setting], tuple[CapturedModule, Mapping[str, Tensor]]]


def make_candidate(method: str, module: CapturedModule, setting: Setting) -> Candidate:
    """The network that `method` makes of a captured untrained one, which is left as it was.

    Raises:
        InputError: there is no such method, or it cannot prune this network.
    """
    if method not in BASELINES:
        raise InputError(f"there is no method '{method}' to compare; there are {', '.join(BASELINES)}")
    made, masks = BASELINES[method](module, setting)
    size = total_size(dependency_view(canonicalize(made)), made)
    return Candidate(made, masks, size, size.parameters - sum(int((~mask).sum()) for mask in masks.values()))


def dense(module: CapturedModule, setting: Setting) -> tuple[CapturedModule, Mapping[str, Tensor]]:
    """The network as it is."""
    return module, {}


def upai(module: CapturedModule, setting: Setting) -> tuple[CapturedModule, Mapping[str, Tensor]]:
    """Unstructured pruning at initialization."""
    found = sparsify(
        module, setting.inputs, setting.score, setting.sparsity, batches=setting.batches, loss=setting.loss,
        seed=setting.seed,
    )  # fmt: skip
    return module, found.masks


def spai(scope: str) -> Method:
    """Structured pruning at initialization with as many parameters as Reconvene leaves at the same p.

    ``layer``: a uniform width; ``global``: the channels of lowest score, over all layers. The score of a channel is that of
    its weights. What stays keeps its initial weights.
    """

    def pruned(module: CapturedModule, setting: Setting) -> tuple[CapturedModule, Mapping[str, Tensor]]:
        wanted = _parameters(reconvene(Recipe())(module, setting)[0])
        view = dependency_view(canonicalize(module))
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            smaller = _left(module, view, _decided(view, setting, scope, middle)) < wanted
            low, high = (low, middle) if smaller else (middle, high)
        trial = tried(module, view, _decided(view, setting, scope, low))
        return _captured(compact(module, setting.inputs, trial.masks, analysis=trial.analysis).module), {}

    return pruned


def reconvene(recipe: Recipe, channel_multiple: int = 1) -> Method:
    """Reconvene, with the setting's score in place of the recipe's.

    `channel_multiple` is that of a target, to which the rectifier rounds the channels kept up.
    """

    def pruned(module: CapturedModule, setting: Setting) -> tuple[CapturedModule, Mapping[str, Tensor]]:
        chosen = Recipe(**{**vars(recipe), "score": setting.score})
        found = run_recipe(
            module, setting.inputs, setting.sparsity, chosen, batches=setting.batches, loss=setting.loss,
            channel_multiple=channel_multiple, seed=setting.seed,
        )  # fmt: skip
        return _captured(found.compaction.module), {}

    return pruned


BASELINES: Mapping[str, Method] = MappingProxyType(
    {
        "dense": dense,
        "upai": upai,
        "spai-uniform": spai("layer"),
        "spai-global": spai("global"),
        "reconvene": reconvene(Recipe()),
        "reconvene-multiple-of-8": reconvene(Recipe(), channel_multiple=8),
        "reconvene-global-threshold": reconvene(Recipe(threshold="global")),
        "reconvene-random-layers": reconvene(Recipe(evaluator="random")),
        "reconvene-inherit": reconvene(Recipe(reinitialize="none")),
        "reconvene-reinitialize-all": reconvene(Recipe(reinitialize="all")),
        "reconvene-inside-blocks": reconvene(Recipe(residual="inside")),
    }
)


def _decided(view: DependencyView, setting: Setting, scope: str, share: float) -> tuple[Decision, ...]:
    return decide(
        view, setting.score, share, scope=scope, seed=setting.seed, example_inputs=setting.inputs,
        batches=setting.batches, loss=setting.loss,
    )  # fmt: skip


def _left(module: CapturedModule, view: DependencyView, decisions: Sequence[Decision]) -> int:
    """Parameters that a removal would leave."""
    found, live = analyse(module, masks_of(view, decisions))
    total = 0
    for node in found.stored.values():
        if isinstance(attribute(found.module, str(node.target)), torch.nn.Parameter):
            total += int(np.prod([int(live.kept(node, axis).sum()) for axis in range(node.meta["val"].dim())]))
    return total


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _captured(module: torch.fx.GraphModule) -> CapturedModule:
    assert isinstance(module, CapturedModule)
    return module

"""What methods are compared with, and their ablations: a name, an untrained network and p give a network to train.

UPaI (unstructured pruning at initialization) keeps the dense shapes and masks weights; SPaI (structured) removes channels.
Every method of `methods.METHODS` takes part by its own name; `BASELINES` are made of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ..canonicalize import canonicalize
from ..compaction import analyse, compact
from ..dependency import DependencyView, dependency_view
from ..outcome import Size
from ..sizes import total_size
from ..values import attribute
from .allocation import ALLOCATIONS
from .decisions import AS_WANTED, Decision, Widths, masks_of
from .methods import METHODS, find_method
from .methods.base import Aim, ChannelMethod, Method, TrainingMethod, WeightMethod
from .methods.one_shot import OneShot
from .methods.reconvene import Reconvene
from .scores import Evidence
from .trial import tried

__all__ = ["BASELINES", "Candidate", "Setting", "make_candidate"]

_HALVINGS = 12


@dataclass(frozen=True)
class Setting:
    """What a method is given.

    Attributes:
        evidence: example inputs, data if the score needs some, and the seed.
        score: of `pruning.scores.SCORES`; for methods with the option, and for those that are none but a score.
        sparsity: p.
    """

    evidence: Evidence
    score: str = "magnitude"
    sparsity: float = 0.9


@dataclass(frozen=True)
class Candidate:
    """An untrained network that is ready to be trained."""

    module: CapturedModule = field(repr=False)
    masks: Mapping[str, Tensor] = field(repr=False)
    """Weights that training keeps at zero; empty for dense networks."""
    size: Size
    """As stored and computed: masked weights count, because nothing is saved by them."""
    weights: int
    """Parameters that are not masked before training."""
    method: TrainingMethod | None = None
    """What finds more zeros in training."""


Baseline = Callable[[CapturedModule, Setting], Candidate]


def make_candidate(name: str, module: CapturedModule, setting: Setting) -> Candidate:
    """The network that a method makes of a captured untrained one, which is left as it was.

    Raises:
        InputError: there is no such method, or it cannot prune this network.
    """
    if name in BASELINES:
        return BASELINES[name](module, setting)
    if name not in METHODS:
        raise InputError(f"there is no method '{name}' to compare; there are {', '.join([*BASELINES, *METHODS])}")
    return made_by(METHODS[name])(module, setting)


def made_by(method: Method, widths: Widths = AS_WANTED) -> Baseline:
    """What a method makes, of the setting's score if it has that option: it removes channels if it can, else masks weights,
    or is to be trained with."""

    def make(module: CapturedModule, setting: Setting) -> Candidate:
        chosen = with_score(method, setting.score)
        if isinstance(chosen, ChannelMethod):
            found = chosen.prune(module, setting.evidence, Aim(setting.sparsity, widths))
            return _candidate(_captured(found.compaction.module))
        if isinstance(chosen, WeightMethod):
            return _candidate(module, chosen.masks(module, setting.evidence, setting.sparsity))
        if isinstance(chosen, TrainingMethod):
            trained = chosen.with_options({"sparsity": setting.sparsity})
            return dataclasses.replace(_candidate(module), method=trained)
        raise InputError(f"the method {chosen.name} makes no network to compare")

    return make


def with_score(method: Method, score: str) -> Method:
    """The method with that score, if that is one of its options."""
    known = {entry.name for entry in dataclasses.fields(method)}
    return method.with_options({"score": score}) if "score" in known else method


def dense(module: CapturedModule, setting: Setting) -> Candidate:
    """The network as it is."""
    return _candidate(module)


def upai(module: CapturedModule, setting: Setting) -> Candidate:
    """Unstructured pruning at initialization."""
    masks = find_method(setting.score, OneShot).masks(module, setting.evidence, setting.sparsity)
    return _candidate(module, masks)


def spai(scope: str, like: Baseline) -> Baseline:
    """Structured pruning at initialization with as many parameters as another method leaves at the same p.

    ``layer``: a uniform width; ``global``: the channels of lowest score, over all layers. The score of a channel is that of
    its weights. What stays keeps its initial weights.
    """

    def pruned(module: CapturedModule, setting: Setting) -> Candidate:
        wanted = _parameters(like(module, setting).module)
        view = dependency_view(canonicalize(module))
        method, widths = find_method(setting.score, OneShot), Widths(scope)
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            decisions = method.decide(view, setting.evidence, middle, widths)
            low, high = (low, middle) if _left(module, view, decisions) < wanted else (middle, high)
        trial = tried(module, view, method.decide(view, setting.evidence, low, widths))
        found = compact(module, setting.evidence.inputs, trial.masks, analysis=trial.analysis)
        return _candidate(_captured(found.module))

    return pruned


_AS_FIRST_READ = Reconvene(keep="channels", ends="pruned")
"""(1 - s) of the channels: what Reconvene was here before its ``keep``."""
_UNROUNDED = Widths(multiple=1, minimum=1)

ABLATIONS: Mapping[str, Callable[[Reconvene], Reconvene]] = MappingProxyType(
    {
        "global-threshold": lambda method: dataclasses.replace(method, threshold="global"),
        "random-layers": lambda method: dataclasses.replace(method, evaluator="random"),
        "inherit": lambda method: dataclasses.replace(method, reinitialize="none"),
        "reinitialize-all": lambda method: dataclasses.replace(method, reinitialize="all"),
        "inside-blocks": lambda method: dataclasses.replace(method, residual="inside"),
        "none": lambda method: dataclasses.replace(method, threshold="none"),
    }
)
"""Reconvene with one thing changed."""

BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        "dense": dense,
        "upai": upai,
        "spai-uniform": spai("layer", made_by(Reconvene())),
        "spai-global": spai("global", made_by(Reconvene())),
        "spai-channels-uniform": spai("layer", made_by(_AS_FIRST_READ, _UNROUNDED)),
        "spai-channels-global": spai("global", made_by(_AS_FIRST_READ, _UNROUNDED)),
        "reconvene-density-mean": made_by(Reconvene()),
        "reconvene-density-unrounded": made_by(Reconvene(), _UNROUNDED),
        **{f"reconvene-density-{name}": made_by(change(Reconvene())) for name, change in ABLATIONS.items()},
        **{f"reconvene-density-{name}": made_by(Reconvene(allocation=name, threshold="none")) for name in ALLOCATIONS},
        "reconvene-channels-mean": made_by(_AS_FIRST_READ, _UNROUNDED),
        "reconvene-channels-multiple-of-8": made_by(_AS_FIRST_READ, Widths(multiple=8, minimum=1)),
        **{
            f"reconvene-channels-{name}": made_by(change(_AS_FIRST_READ), _UNROUNDED)
            for name, change in ABLATIONS.items()
        },
    }
)
"""Beside the methods themselves."""


def _candidate(module: CapturedModule, masks: Mapping[str, Tensor] | None = None) -> Candidate:
    size = total_size(dependency_view(canonicalize(module)), module)
    masked = sum(int((~mask).sum()) for mask in (masks or {}).values())
    return Candidate(module, masks or {}, size, size.parameters - masked)


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

"""What methods are compared with, and their ablations: a name, an untrained network and p give a network to train.

UPaI (unstructured pruning at initialization) keeps the dense shapes and masks weights; SPaI (structured) removes channels.
Every method of `methods.METHODS` takes part by its own name; `BASELINES` are made of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
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
from ..sizes import layer_macs, total_size
from ..values import attribute
from .allocation import ALLOCATIONS
from .decisions import AS_WANTED, Decision, Widths, masks_of
from .methods import METHODS, find_method
from .methods.base import Aim, ChannelMethod, Method, TrainingMethod, WeightMethod
from .methods.one_shot import OneShot
from .methods.reconvene import Reconvene
from .placement import TOLERANCE, Placed, check_place, halvings
from .scores import Evidence, scored_weights
from .trial import tried

__all__ = ["BASELINES", "Candidate", "Setting", "keeps_shapes", "make_candidate", "same_place"]

MACS_OF = Reconvene()
"""Whose multiply-accumulates at p are those that networks are compared at."""

_MOST_TRIED = 16


@dataclass(frozen=True)
class Setting:
    """What a method is given.

    Attributes:
        evidence: example inputs, data if the score needs some, and the seed.
        score: of `pruning.scores.SCORES`; for methods with the option, and for those that are none but a score.
        sparsity: p.
        at: of `PLACES`: whether the method prunes to p itself, or as far as it has as many weights as unstructured pruning
            leaves at p, or as many multiply-accumulates as Reconvene does.

    Raises:
        InputError: there is no such place.
    """

    evidence: Evidence
    score: str = "magnitude"
    sparsity: float = 0.9
    at: str = "p"

    def __post_init__(self) -> None:
        check_place(self.at)


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
    kept: int = 0
    """Weights of convolutions and linear layers that are not masked before training."""
    effective_macs: int = 0
    """Multiply-accumulates without those of masked weights."""
    method: TrainingMethod | None = None
    """What finds more zeros in training."""
    placed: Placed | None = None
    """How it was found, where it is not p that is equal."""


Baseline = Callable[[CapturedModule, Setting], Candidate]


def make_candidate(name: str, module: CapturedModule, setting: Setting) -> Candidate:
    """The network that a method makes of a captured untrained one, which is left as it was.

    Raises:
        InputError: there is no such method, or it cannot prune this network.
    """
    if name in BASELINES:
        make = BASELINES[name]
    elif name in METHODS:
        make = made_by(METHODS[name])
    else:
        raise InputError(f"there is no method '{name}' to compare; there are {', '.join([*BASELINES, *METHODS])}")
    # At p = 0 all places are one: the dense network.
    return make(module, setting) if setting.at == "p" or setting.sparsity == 0 else placed(name, make, module, setting)


def placed(name: str, make: Baseline, module: CapturedModule, setting: Setting) -> Candidate:
    """The method at the p where its weights or its multiply-accumulates are nearest to those that are wanted.

    Weights: those of convolutions and linear layers, of which unstructured pruning leaves 1 - p. Multiply-accumulates: those
    that Reconvene leaves at p, as it is unless told otherwise. They are what somebody who takes it pays, while the effective
    ones of a masked network are saved by no machine, and may be fewer than a method that leaves layers whole can reach; of
    masked networks only the effective ones are counted, to their favour.

    Raises:
        InputError: the method finds its zeros in training.
    """

    def made(sparsity: float) -> Candidate:
        candidate = make(module, dataclasses.replace(setting, sparsity=sparsity, at="p"))
        if candidate.method is not None:
            raise InputError(f"{name} finds its zeros in training, so only p can be equal before; leave the place at p")
        return candidate

    size: Callable[[Candidate], int] = attrgetter("kept" if setting.at == "weights" else "effective_macs")
    wanted = _wanted(module, setting)
    tried = halvings(made, size, wanted, first=setting.sparsity, tolerance=TOLERANCE, most=_MOST_TRIED)
    sparsity, best, reached = min(tried, key=lambda trial: abs(trial[2] - wanted))
    return dataclasses.replace(best, placed=Placed(setting.at, wanted, reached, sparsity))


def _wanted(module: CapturedModule, setting: Setting) -> int:
    """The size that networks have at p, see `placed`."""
    if setting.at == "weights":
        weights = sum(weight.size for weight in scored_weights(canonicalize(module)))
        return weights - round(setting.sparsity * weights)
    return made_by(MACS_OF)(module, dataclasses.replace(setting, score=MACS_OF.score, at="p")).effective_macs


def keeps_shapes(name: str) -> bool:
    """Whether a method leaves layers as wide as they are, so that its networks compute as much as dense ones."""
    return name in ("dense", "upai") or (name in METHODS and not isinstance(METHODS[name], ChannelMethod))


def same_place(name: str, score: str, at: str) -> str:
    """Where the method makes the same network as at `at`, the first of `PLACES` that it does."""
    reference = name in ("reconvene", "reconvene-density-mean") and score == MACS_OF.score
    return "p" if (at == "weights" and keeps_shapes(name)) or (at == "macs" and reference) else at


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


def uniform(module: CapturedModule, setting: Setting) -> Candidate:
    """Every layer with sqrt(1 - p) of its channels, those of the highest scores: 1 - p of the weights between two layers."""
    share = 1 - (1 - setting.sparsity) ** 0.5
    found = find_method(setting.score, OneShot).prune(module, setting.evidence, Aim(share))
    return _candidate(_captured(found.compaction.module))


def spai(scope: str, like: Baseline) -> Baseline:
    """Structured pruning at initialization with as many parameters as another method leaves at the same p.

    ``layer``: a uniform width; ``global``: the channels of lowest score, over all layers. The score of a channel is that of
    its weights. What stays keeps its initial weights.
    """

    def pruned(module: CapturedModule, setting: Setting) -> Candidate:
        wanted = _parameters(like(module, setting).module)
        view = dependency_view(canonicalize(module))
        method, widths = find_method(setting.score, OneShot), Widths(scope)

        def decided(share: float) -> tuple[Decision, ...]:
            return method.decide(view, setting.evidence, share, widths)

        shares = halvings(decided, lambda decisions: _left(module, view, decisions), wanted)
        enough = max((share for share, _, left in shares if left >= wanted), default=0.0)
        trial = tried(module, view, decided(enough))
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
        "uniform": uniform,
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
    view = dependency_view(canonicalize(module))
    size, by_weight = total_size(view, module), layer_macs(view.module, view.operations)
    masks = masks or {}
    masked = {name: int((~mask).sum()) for name, mask in masks.items()}
    zeros = sum(masked.values())
    kept = sum(weight.size for weight in scored_weights(view.module)) - zeros
    idle = sum(by_weight.get(name, 0) * count // masks[name].numel() for name, count in masked.items())
    return Candidate(module, masks, size, size.parameters - zeros, kept, size.macs - idle)


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

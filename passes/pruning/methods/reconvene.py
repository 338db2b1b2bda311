"""Reconvene: structured pruning at initialization (Eccles, Wong, Varghese; CCGrid 2024; arXiv 2404.16877).

Three modules, each a file of its own: the pre-processor profiles the untrained model with synthetic inputs
(`profile`) and prunes its weights to degree p (`passes.sparsification`); the evaluator compares every convolution's
sparsity with the average (`passes.sensitivity`); the rectifier removes channels of resilient convolutions
(`passes.rectifier`) and re-initialises the layers that this touched (`passes.reinitialization`). What the paper leaves open
is an option of `Recipe`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import fx

from ....frontend.base.errors import InputError
from ....frontend.base.progress import stage
from ...canonicalize import canonicalize
from ...compaction import compact
from ...dependency import dependency_view
from ...outcome import Compaction
from ..decisions import Decision, with_asked
from ..scores import Batch, Loss
from ..trial import tried
from ..weights import sparsify
from .rectifier import rectify
from .reinitialization import INITIALIZERS, WHICH, reinitialize
from .sensitivity import Sensitivity, evaluate, shuffled

__all__ = ["LAYERS", "Recipe", "Rectified", "recipe_options", "run_recipe"]

LAYERS = ("convolutions", "all")
EVALUATORS = ("sparsity", "random")


@dataclass(frozen=True)
class Recipe:
    """The options of the method ``reconvene``.

    Attributes:
        score: what ranks weights, of `pruning.scores.SCORES`; the paper names magnitude.
        allocation: ``global``, ``uniform`` or ``erk``.
        rounds: of scoring and pruning; None: as the score's authors.
        schedule: how the sparsity grows over the rounds, ``exponential`` or ``linear``.
        evaluator: ``sparsity``, or ``random``: as many resilient layers, but any ones (an ablation).
        threshold: a layer is resilient above the ``mean`` sparsity of the convolutions, or above the ``global`` one, p.
        layers: ``convolutions`` are compared and pruned, or ``all`` convolutions and linear layers.
        residual: layers that share channels lose them together (``groups``) or not at all (``inside`` blocks only).
        channels: those of the ``lowest`` score go, or ``random`` ones.
        reinitialize: ``affected`` layers, ``all``, or ``none``, which inherits weights.
        initializer: of `passes.reinitialization.INITIALIZERS`.
        profile: whether the public function also profiles the model before and after.
    """

    score: str = "magnitude"
    allocation: str = "global"
    rounds: int | None = None
    schedule: str = "exponential"
    evaluator: str = "sparsity"
    threshold: str = "mean"
    layers: str = "convolutions"
    residual: str = "groups"
    channels: str = "lowest"
    reinitialize: str = "affected"
    initializer: str = "own"
    profile: bool = True


@dataclass(frozen=True)
class Rectified:
    """A pruned, dense, partly re-initialised model, with what led to it."""

    compaction: Compaction
    """Of the removal; its module has the new initial weights."""
    sensitivity: Sensitivity
    reinitialized: tuple[str, ...]
    """Layers with new initial weights."""


def recipe_options(given: Mapping[str, Any]) -> Recipe:
    """A `Recipe` from loose options. Raises InputError for an option or a choice that there is not."""
    known = [field.name for field in dataclasses.fields(Recipe)]
    for name in given:
        if name not in known:
            raise InputError(f"the method reconvene has no option '{name}'; it has {', '.join(known)}")
    recipe = Recipe(**given)
    if not isinstance(recipe.profile, bool):
        raise InputError(f"profile is {recipe.profile!r}; choose true or false")
    choices = {
        "evaluator": EVALUATORS,
        "layers": LAYERS,
        "reinitialize": WHICH,
        "initializer": tuple(INITIALIZERS),
    }
    for name, allowed in choices.items():
        if getattr(recipe, name) not in allowed:
            raise InputError(f"there is no {name} '{getattr(recipe, name)}'; choose one of {', '.join(allowed)}")
    return recipe


def run_recipe(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    sparsity: float,
    recipe: Recipe,
    *,
    batches: Sequence[Batch] = (),
    loss: Loss = F.cross_entropy,
    channel_multiple: int = 1,
    minimum_channels: int = 1,
    ignore: Sequence[str] = (),
    seed: int = 0,
    **check: Any,
) -> Rectified:
    """Runs the three modules on a captured model, which is left as it was.

    The certificate is that of the removal: the compacted model equals the masked one. Re-initialising comes after it, and
    changes weights on purpose.

    Args:
        module: a captured module with its initial weights.
        example_inputs: positional inputs that fit it.
        sparsity: the degree p of the unstructured pruning.
        recipe: the options of the method.
        batches: inputs and targets for scores that need data.
        loss: for these scores.
        channel_multiple: channels kept are rounded up to a multiple.
        minimum_channels: no pruned layer keeps fewer.
        ignore: patterns of parameter or layer names that keep their channels.
        seed: of random scores, random channels and new weights.
        check: options of the certificate, see `passes.compaction.compact`.

    Raises:
        InputError: an option is out of range, data are missing, or there is nothing to prune.
        CheckError: the compacted model differs from the masked one.
    """
    started = time.perf_counter()
    unstructured = {key: getattr(recipe, key) for key in ("allocation", "rounds", "schedule")}
    sparse = sparsify(
        module, example_inputs, recipe.score, sparsity, **unstructured, batches=batches, loss=loss, seed=seed
    )
    scored = time.perf_counter()
    with stage("evaluating sensitivity"):
        sensitivity = evaluate(
            sparse.layers, sparsity, recipe.threshold, convolutions_only=recipe.layers == "convolutions"
        )
        if recipe.evaluator == "random":
            sensitivity = shuffled(sensitivity, seed)
        view = dependency_view(canonicalize(module))
        decisions = rectify(
            view,
            sensitivity,
            {name: value * sparse.masks[name] for name, value in sparse.scores.items()},
            residual=recipe.residual,
            channels=recipe.channels,
            channel_multiple=channel_multiple,
            minimum_channels=minimum_channels,
            ignore=ignore,
            seed=seed,
        )
        trial = tried(module, view, decisions, channel_multiple)
        decisions = trial.decisions
    evaluated = time.perf_counter()
    origin = {"method": "reconvene", "sparsity": sparsity, "seed": seed, **dataclasses.asdict(recipe)}
    found = compact(module, example_inputs, trial.masks, origin=origin, analysis=trial.analysis, **check)
    compacted = time.perf_counter()
    with stage("re-initialising"):
        layers = reinitialize(found.module, view.module, recipe.reinitialize, recipe.initializer, seed)
    phases = {
        "score": scored - started,
        "evaluation": evaluated - scored,
        **found.seconds,
        "re-initialisation": time.perf_counter() - compacted,
    }
    done = dataclasses.replace(
        found, groups=with_asked(found.groups, decisions), seconds=phases, refusals=_refusals(decisions)
    )
    return Rectified(done, sensitivity, layers)


def _refusals(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Channels that the sparsity wanted and rounding kept."""
    return tuple(
        f"{decision.group.name}: {decision.wanted - int(decision.drop.sum())} of {decision.wanted} channels stay:"
        f" {'; '.join(decision.reasons)}"
        for decision in decisions
        if int(decision.drop.sum()) < decision.wanted
    )

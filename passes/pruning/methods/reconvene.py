"""Reconvene: structured pruning at initialization (Eccles, Wong, Varghese; CCGrid 2024; arXiv 2404.16877).

Three modules, each a file of its own: the pre-processor profiles the untrained model with synthetic inputs
(`driver.reports.profile`) and prunes its weights to degree p (`pruning.weights`); the evaluator compares every convolution's
sparsity with the average (`sensitivity`); the rectifier removes channels of resilient convolutions (`rectifier`) and
re-initialises the layers that this touched (`reinitialization`). What the paper leaves open
is an option of the method.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from ....frontend.base.errors import InputError
from ....frontend.base.progress import stage
from ...canonicalize import canonicalize
from ...compaction import compact
from ...dependency import dependency_view
from ..decisions import Decision, Widths, with_asked
from ..scores import Evidence
from ..trial import tried
from ..weights import weight_masks
from .base import Aim, ChannelMethod, Pruned
from .rectifier import Rectifier, rectify
from .reinitialization import INITIALIZERS, WHICH, reinitialize
from .sensitivity import THRESHOLDS, evaluate, shuffled

__all__ = ["Reconvene"]

LAYERS = ("convolutions", "all")
EVALUATORS = ("sparsity", "random")
_LEAST_CHANNELS, _LEAST_SHARE, _MULTIPLE = 8, 1 / 16, 8


@dataclass(frozen=True)
class Reconvene(ChannelMethod):
    """Channels of the layers that an unstructured pruning to degree p found resilient. For models that are not trained yet.

    Attributes:
        score: what ranks weights, of `pruning.scores.SCORES`; the paper names magnitude.
        allocation: ``global``, ``uniform`` or ``erk``.
        rounds: of scoring and pruning; None: as the score's authors.
        schedule: how the sparsity grows over the rounds, ``exponential`` or ``linear``.
        evaluator: ``sparsity``, or ``random``: as many resilient layers, but any ones (an ablation).
        threshold: a layer is resilient above the ``mean`` sparsity of the convolutions, above the ``global`` one, p, or
            with ``none`` as soon as it lost weights.
        keep: of a resilient layer of sparsity s, ``density``: channels such that about (1 - s) of its weights stay, see
            `shares`; ``channels``: (1 - s) of its channels, as the paper can be read.
        ends: the network's first convolutions stay ``whole``, or are ``pruned`` as others are; see `rectifier.Rectifier`.
        layers: ``convolutions`` are compared and pruned, or ``all`` convolutions and linear layers.
        residual: layers that share channels lose them together (``groups``) or not at all (``inside`` blocks only).
        channels: those of the ``lowest`` score go, or ``random`` ones.
        reinitialize: ``affected`` layers, ``all``, or ``none``, which inherits weights.
        initializer: of `methods.reinitialization.INITIALIZERS`.
        profile: whether the public function also profiles the model before and after.
    """

    name = "reconvene"

    score: str = "magnitude"
    allocation: str = "global"
    rounds: int | None = None
    schedule: str = "exponential"
    evaluator: str = "sparsity"
    threshold: str = "mean"
    keep: str = "density"
    ends: str = "whole"
    layers: str = "convolutions"
    residual: str = "groups"
    channels: str = "lowest"
    reinitialize: str = "affected"
    initializer: str = "own"
    profile: bool = True

    @property
    def scored_by(self) -> str:
        return self.score

    @property
    def keeps_weights(self) -> bool:
        return self.reinitialize == "none"

    def check(self) -> None:
        if not isinstance(self.profile, bool):
            raise InputError(f"profile is {self.profile!r}; choose true or false")
        choices = {
            "evaluator": EVALUATORS,
            "threshold": THRESHOLDS,
            "layers": LAYERS,
            "reinitialize": WHICH,
            "initializer": tuple(INITIALIZERS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"there is no {name} '{getattr(self, name)}'; choose one of {', '.join(allowed)}")
        self._rectifier()

    def _rectifier(self) -> Rectifier:
        return Rectifier(self.keep, self.ends, self.residual, self.channels)

    def check_aim(self, aim: Aim) -> None:
        super().check_aim(aim)
        if aim.latency is not None:
            raise InputError(
                "a latency cannot be aimed at by the method reconvene; its sparsity decides, or name a score"
            )
        if aim.widths.scope != "layer" or aim.fold:
            raise InputError(
                "scope and folded normalisation are not for reconvene; its 'allocation' says what p holds over"
            )

    def prune(self, module: fx.GraphModule, evidence: Evidence, aim: Aim) -> Pruned:
        """`aim.sparsity` is p, a share of the weights.

        The certificate is that of the removal: the compacted model equals the masked one. Re-initialising comes after it,
        and changes weights on purpose.
        """
        self.check_aim(aim)
        widths, started = _with_floor(aim.widths), time.perf_counter()
        sparse = weight_masks(
            module, evidence, self.score, aim.sparsity, allocation=self.allocation, rounds=self.rounds,
            schedule=self.schedule,
        )  # fmt: skip
        scored = time.perf_counter()
        with stage("evaluating sensitivity"):
            sensitivity = evaluate(
                sparse.layers, aim.sparsity, self.threshold, convolutions_only=self.layers == "convolutions"
            )
            if self.evaluator == "random":
                sensitivity = shuffled(sensitivity, evidence.seed)
            view = dependency_view(canonicalize(module))
            pruned_scores = {name: value * sparse.masks[name] for name, value in sparse.scores.items()}
            decisions = rectify(view, sensitivity, pruned_scores, self._rectifier(), widths, evidence.seed)
            trial = tried(module, view, decisions, widths.step)
        evaluated = time.perf_counter()
        found = compact(
            module,
            evidence.inputs,
            trial.masks,
            origin=self._origin(evidence, aim.sparsity, widths),
            analysis=trial.analysis,
        )
        compacted = time.perf_counter()
        with stage("re-initialising"):
            layers = reinitialize(found.module, view.module, self.reinitialize, self.initializer, evidence.seed)
        phases = {
            "score": scored - started,
            "evaluation": evaluated - scored,
            **found.seconds,
            "re-initialisation": time.perf_counter() - compacted,
        }
        done = dataclasses.replace(
            found, groups=with_asked(found.groups, trial.decisions), seconds=phases, refusals=_refusals(trial.decisions)
        )
        return Pruned(done, sensitivity, layers, self.profile)

    def _origin(self, evidence: Evidence, sparsity: float, widths: Widths) -> dict[str, Any]:
        """What the plan says about where it came from."""
        return {
            "method": self.name,
            "sparsity": float(sparsity),
            "channel_multiple": widths.multiple,
            "minimum_channels": widths.minimum,
            "least_share": widths.least_share,
            "ignore": list(widths.ignore),
            "seed": evidence.seed,
            **dataclasses.asdict(self),
        }


def _with_floor(widths: Widths) -> Widths:
    """No layer ends narrower than 8 channels and a sixteenth of itself, or off a multiple of 8, unless something was asked.

    Very narrow layers cost accuracy and save next to nothing: at p = 0.95 of a quarter of VGG-16, widths that are
    multiples of 8 were worth 15 points of accuracy (docs/results.md).
    """
    if widths.minimum is None:
        widths = dataclasses.replace(widths, minimum=_LEAST_CHANNELS, least_share=_LEAST_SHARE)
    return widths if widths.multiple else dataclasses.replace(widths, multiple=_MULTIPLE)


def _refusals(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Channels that the sparsity wanted and rounding kept."""
    return tuple(
        f"{decision.group.name}: {decision.wanted - int(decision.drop.sum())} of {decision.wanted} channels stay:"
        f" {'; '.join(decision.reasons)}"
        for decision in decisions
        if int(decision.drop.sum()) < decision.wanted
    )

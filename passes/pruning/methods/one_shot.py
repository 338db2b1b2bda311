"""Methods that score once and take the lowest: channels by the scores of their weights, or the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, fx

from ...canonicalize import canonicalize
from ...compaction import compact
from ...dependency import DependencyView, dependency_view
from ...masks import check_finite
from ..channel_scores import channel_scores
from ..channels import score, tried_for_latency
from ..decisions import AS_WANTED, Decision, Scored, Widths, allot, check_patterns, with_asked
from ..layer_shares import told_of_shares
from ..scores import Evidence, Score
from ..structured import Ranked, Structured, structured_masks, with_choices
from ..trial import tried
from ..weights import weight_masks
from ..zeros_latency import Timing, structured_for_latency
from .base import Aim, ChannelMethod, Pruned, WeightMethod

__all__ = ["Grasp", "Magnitude", "MagnitudeL1", "MagnitudeL2", "OneShot", "Random", "Snip", "SynFlow"]


@dataclass(frozen=True)
class OneShot(ChannelMethod, WeightMethod):
    """The lowest scores go, of the share of channels (or of weights) that was asked for."""

    score: ClassVar[str]
    """Of weights."""
    makes_structures: ClassVar[bool] = True
    takes_shares: ClassVar[bool] = True
    order: ClassVar[int] = 1
    """A channel's score is the sum of its weights' (1), or the root of the sum of their squares (2)."""

    @property
    def scored_by(self) -> str | None:
        return self.score

    @property
    def scoring(self) -> str | Score:
        """The score, by its name or itself."""
        return self.score

    def told(self) -> dict[str, Any]:
        """What a plan says of the method beside its name."""
        return {}

    def scored(self, view: DependencyView, evidence: Evidence, ignore: Sequence[str] = ()) -> Scored:
        """Scores of the channels of `view`. Raises InputError if a pattern matches nothing or no group can be pruned."""
        return score(view, lambda groups: channel_scores(view, groups, self.scoring, evidence, self.order), ignore)

    def decide(
        self, view: DependencyView, evidence: Evidence, sparsity: float, widths: Widths = AS_WANTED
    ) -> tuple[Decision, ...]:
        """One decision for every group of the view, also for those that cannot or must not lose anything.

        Raises:
            InputError: a pattern matches nothing, or no group can be pruned.
        """
        return allot(view, self.scored(view, evidence, widths.ignore), sparsity, widths)

    def prune(self, module: fx.GraphModule, evidence: Evidence, aim: Aim) -> Pruned:
        """`aim.sparsity` is a share of the channels. Nothing is zeroed that could not be removed.

        With `aim.structures` it is a share of the weights of the layers that take one, and their zeros stay in them. A latency
        is then reached by the least share that `structured_for_latency` finds.
        """
        self.check_aim(aim)
        if aim.structures:
            return self._with_structures(module, evidence, aim)
        view = dependency_view(canonicalize(module))
        check_finite(view.module)
        scored, widths = self.scored(view, evidence, aim.widths.ignore), aim.widths
        check_patterns(view, [pattern for pattern, _ in widths.shares])
        told = told_of_shares(view, scored, widths)
        sparsity, timed = float(aim.sparsity), dict[str, float]()
        if (goal := aim.goal) is None:
            trial = tried(module, view, allot(view, scored, sparsity, widths), widths.step)
        else:
            found = tried_for_latency(module, view, scored, goal, widths)
            trial, sparsity = found.trial, found.sparsity
            timed = {"latency": goal.share, "modelled_latency": found.share}
        origin: dict[str, Any] = {
            "method": self.name,
            "sparsity": sparsity,
            **timed,
            "scope": widths.scope,
            "channel_multiple": widths.step,
            "minimum_channels": widths.minimum or 1,
            "ignore": list(widths.ignore),
            "seed": evidence.seed,
            **({"layer_sparsity": dict(widths.shares)} if widths.shares else {}),
            **self.told(),
        }
        result = compact(module, evidence.inputs, trial.masks, fold=aim.fold, origin=origin, analysis=trial.analysis)
        return Pruned(
            replace(
                result,
                groups=with_asked(result.groups, trial.decisions),
                refusals=(*result.refusals, *trial.refusals, *told.refusals),
                notes=told.notes,
                seconds={**result.seconds, "analysis": trial.seconds},
            )
        )

    def _with_structures(self, module: fx.GraphModule, evidence: Evidence, aim: Aim) -> Pruned:
        widths = aim.widths

        def give(sparsity: float) -> Structured:
            ranked = Ranked(self.scoring, self.order == 2, sparsity, widths.scope, widths.ignore)
            return structured_masks(module, evidence, aim.structures, ranked)

        timing: Timing | None = None
        sparsity, timed = float(aim.sparsity), dict[str, float]()
        if (goal := aim.zeros_goal) is None:
            found = give(sparsity)
        else:
            reached = structured_for_latency(give, goal)
            found, timing = reached.found, reached.timing
            sparsity, timed = timing.sparsity, {"latency": timing.wanted, f"{timing.told}_latency": timing.reached}
        origin: dict[str, Any] = {
            "method": self.name,
            "sparsity": sparsity,
            **timed,
            "structure": {rule.pattern: str(rule) for rule in aim.structures},
            "scope": widths.scope,
            "ignore": list(widths.ignore),
            "seed": evidence.seed,
            **self.told(),
        }
        result = compact(found.masked_module(module), evidence.inputs, found.masks, fold=aim.fold, origin=origin)
        zeros, refusals = with_choices(result.zeros, found.choices), (*result.refusals, *found.refusals)
        return Pruned(replace(result, zeros=zeros, refusals=refusals), timing=timing)

    def masks(
        self,
        module: fx.GraphModule,
        evidence: Evidence,
        sparsity: float,
        *,
        before: Mapping[str, Tensor] | None = None,
        ignore: tuple[str, ...] = (),
    ) -> dict[str, Tensor]:
        """Of the network as it is, whatever was masked before."""
        return dict(weight_masks(module, evidence, self.scoring, sparsity, ignore=ignore).masks)


@dataclass(frozen=True)
class Magnitude(OneShot):
    """The Euclidean norm of a channel's weights (Li et al., 2017, arXiv 1608.08710), or a weight's absolute value."""

    name, score, order = "magnitude", "magnitude", 2


@dataclass(frozen=True)
class MagnitudeL2(Magnitude):
    """The same by its full name."""

    name = "magnitude-l2"


@dataclass(frozen=True)
class MagnitudeL1(Magnitude):
    """The sum of the absolute values of a channel's weights (Li et al., 2017)."""

    name, order = "magnitude-l1", 1


@dataclass(frozen=True)
class Random(OneShot):
    """Any channels: the baseline that a method must beat."""

    name = score = "random"


@dataclass(frozen=True)
class Snip(OneShot):
    """What the loss would change by, to first order (Lee et al., 2019, arXiv 1810.02340)."""

    name = score = "snip"


@dataclass(frozen=True)
class Grasp(OneShot):
    """What the gradient's flow would change by (Wang et al., 2020, arXiv 2002.07376)."""

    name = score = "grasp"


@dataclass(frozen=True)
class SynFlow(OneShot):
    """The flow of synapses, without data (Tanaka et al., 2020, arXiv 2006.05467)."""

    name = score = "synflow"

"""What an exploration is told: budgets of time, what is made for each, how that is trained, and who tells times."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...backends.machines.targets import Target, targets
from ...backends.network_times import check_timed_by
from ...frontend.base.errors import InputError
from ...passes.pruning.mapping import MappingRules
from ...passes.pruning.methods.base import Aim
from ...passes.pruning.methods.constrained import ConstrainedMethod
from ...passes.pruning.methods.retraining import OneShotRetraining
from ...passes.pruning.search.structure_search import StructureSearch
from ...passes.pruning.structure_rules import structure_rules
from ..shrinking.course import Settings as Shrinking
from ..shrinking.course import settings_of
from ..training.presets import Preset, find_preset, recorded

__all__ = [
    "CHANNELS",
    "KINDS",
    "KNAPSACK",
    "MAPPED",
    "SEARCHED",
    "SHRUNK",
    "TOLD_BY",
    "Settings",
    "parse_budgets",
    "shrinking_by",
]

CHANNELS, KNAPSACK, SHRUNK = "channels", "channels:knapsack", "channels:rl-pruner"
MAPPED, SEARCHED = "mapped", "searched"
KINDS = (CHANNELS, KNAPSACK, SHRUNK, MAPPED, SEARCHED)
"""What may be made for a budget, beside a structure of zeros by its name: whole channels, by one share of the smallest of every
layer, by the widths that keep most importance, or by a search with a training after each step; and a structure for each layer,
by rules, or by a search."""
TOLD_BY = ("time", "estimate", "model")
"""Who tells the times at the end: a clock, here or on a board; the model of the core, of the compiled code; or the formula that
kernels are chosen by."""
_LEAST = 0.001
_OF_A_BUDGET = ("structure", "sparsity", "ignore")
"""Options of a method that what was found for a budget says."""
_MOST_FILTERS = 0.95
"""Share that goes at most, step by step: what budgets ask for ends it before."""


def shrinking_by(preset: str) -> Shrinking:
    """How channels are taken step by step: by accuracy and the target's time. Raises InputError if there is no such preset."""
    return settings_of(preset, "latency", {"sparsity": _MOST_FILTERS})


@dataclass(frozen=True)
class Settings:
    """How the front of a network is found.

    Attributes:
        budgets: shares of the dense network's time, above 0 and below 1, each once.
        variants: what is made for each: of `KINDS`, or a structure such as ``row-block:4``.
        preset: of the training of every variant.
        method: what trains with zeros inside of layers; its structure and share are those that a budget asks for.
        difficulty: of the data: ``hard``, such as ImageNet, or ``easy``, such as CIFAR-10, for the rules that map structures.
        beta: of these rules, see `MappingRules`.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave as they are.
        shrinking: steps, search and training of ``channels:rl-pruner``.
        images: training images that channels are scored on, for ``channels:knapsack``.
        structure_search: how ``searched`` searches; its budget is each in turn.
        timed_by: who tells times while what meets a budget is searched for: ``model``, ``cycles`` or ``time``.
        told_by: who tells them at the end, of `TOLD_BY`; None: a clock for the host and for a board that is there, else
            ``estimate``.
        repeat: timed calls of each network.
    """

    budgets: tuple[float, ...] = (0.5, 0.35, 0.25)
    variants: tuple[str, ...] = (CHANNELS, "row-block:4", MAPPED)
    preset: Preset = field(default_factory=lambda: find_preset("laptop"))
    method: ConstrainedMethod = field(default_factory=OneShotRetraining)
    difficulty: str = "easy"
    beta: float = 0.2
    ignore: tuple[str, ...] = ()
    shrinking: Shrinking = field(default_factory=lambda: shrinking_by("rl-pruner-laptop"))
    images: int = 100
    structure_search: StructureSearch = field(default_factory=StructureSearch)
    timed_by: str = "model"
    told_by: str | None = None
    repeat: int = 50

    def check(self, target: Target, board: bool = False) -> None:
        """Raises InputError for what makes no sense. `board`: whether there is one to measure on."""
        _check_budgets(self.budgets)
        _check_variants(self.variants)
        self.preset.check()
        self.method.check()
        self.rules(0.5)
        self.shrinking.check()
        if SHRUNK in self.variants and target not in targets():
            raise InputError(
                f"{SHRUNK} is for targets that 'reconvene targets' lists, and '{target.name}' is none; leave it out"
            )
        if self.images < 1 or self.repeat < 1:
            raise InputError(f"{self.images} images and {self.repeat} timed calls must be 1 or more")
        check_timed_by(target, self.timed_by)
        if self.told_by is not None and self.told_by not in TOLD_BY:
            raise InputError(
                f"times at the end are told by {', '.join(TOLD_BY)}, not by '{self.told_by}'; choose one of them"
            )
        if board and self.told_by not in (None, "time"):
            raise InputError(
                f"a board tells times by its clock, and '{self.told_by}' needs none; leave one of them out"
            )
        if self.told_by == "time" and target.name != "host" and not board:
            raise InputError(
                f"'{target.name}' is another machine than this, so nothing can be timed here; name a board that is one, or"
                " leave the clock out"
            )

    def teller(self, target: Target, board: bool = False) -> str:
        """Who tells times at the end."""
        return self.told_by or ("time" if board or target.name == "host" else "estimate")

    def rules(self, sparsity: float) -> MappingRules:
        """Those that map structures, with a share of zeros."""
        return MappingRules(sparsity, self.beta, self.difficulty, ignore=self.ignore)

    @property
    def pairs(self) -> tuple[tuple[str, float], ...]:
        """Every variant with every budget, the largest budget first."""
        return tuple(
            (kind, budget) for budget, kind in itertools.product(sorted(self.budgets, reverse=True), self.variants)
        )

    def recorded(self, teacher: bool = False) -> dict[str, Any]:
        """What of it says which exploration it is, in JSON's types. The order of budgets says nothing."""
        parts = ("preset", "method", "shrinking", "structure_search")
        plain = {name: value for name, value in asdict(self).items() if name not in parts}
        lists = {name: list(value) for name, value in plain.items() if isinstance(value, tuple)}
        return {
            **plain,
            **lists,
            "budgets": sorted(self.budgets, reverse=True),
            "preset": recorded(self.preset, teacher),
            "method": {name: value for name, value in self.method.recorded().items() if name not in _OF_A_BUDGET},
            **({"structure_search": asdict(self.structure_search)} if SEARCHED in self.variants else {}),
            **({"shrinking": self.shrinking.recorded()} if SHRUNK in self.variants else {}),
        }


def parse_budgets(text: str) -> tuple[float, ...]:
    """``0.5,0.35``. Raises InputError for what is none."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"'{text}' is no list of budgets; write shares of the dense network's time, such as 0.5,0.35,0.25"
        ) from None


def _check_budgets(budgets: Sequence[float]) -> None:
    if not budgets:
        raise InputError("there is no budget; give shares of the dense network's time, such as 0.5,0.35,0.25")
    for budget in budgets:
        if not (math.isfinite(budget) and _LEAST <= budget < 1):
            raise InputError(
                f"budget {budget:g} is out of range; give shares of the dense network's time above 0 and below 1, such as 0.5"
            )
        if [f"{other:g}" for other in budgets].count(f"{budget:g}") > 1:  # Folders are named so.
            raise InputError(f"budget {budget:g} is there twice; give each once")


def _check_variants(variants: Sequence[str]) -> None:
    if not variants:
        raise InputError(
            f"there is nothing to make; name variants: {', '.join(KINDS)}, or structures such as row-block:4"
        )
    for kind in variants:
        if variants.count(kind) > 1:
            raise InputError(f"the variant '{kind}' is there twice; name each once")
        if kind in KINDS:
            continue
        try:
            rules = structure_rules(kind)
        except InputError as error:
            raise InputError(f"there is no variant '{kind}': {error}; or choose {', '.join(KINDS)}") from None
        Aim(latency=0.5, structures=rules)  # It refuses what says its own share.

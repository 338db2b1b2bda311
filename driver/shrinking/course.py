"""What a shrinking is told: its steps, its search, its reward, and the training of a step; and presets of all four."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ...frontend.base.errors import InputError
from ...frontend.base.option_values import of_kind
from ...passes.pruning.search.rewards import Reward, find_reward
from ...passes.pruning.search.settings import SearchSettings
from ..training.presets import Preset, find_preset, presets, recorded, tables

__all__ = ["ONCE", "RL_PRUNER", "RULES", "TIMED", "Course", "Settings", "settings_of", "shrinking_presets"]

RL_PRUNER = "rl-pruner"
RULES = (RL_PRUNER, "uniform", "magnitude", "taylor", "latency", "knapsack")
"""``uniform``: the same share of every layer, at every step. ``magnitude``: the smallest filters of the whole network, at
every step. ``taylor``: the least important ones of the whole network, at once. ``latency``: one share of all layers at which
the network takes as long as the ``uniform`` one, wider where that is for free, at once. ``knapsack``: widths that keep the
most importance in that time, at once. All but ``magnitude`` score filters as RL-Pruner does."""
TIMED = ("latency", "knapsack")
"""Rules that look at a target's times."""
ONCE = ("taylor", *TIMED)
"""Rules that remove everything at the first step, and train for all of the epochs that the others have."""


@dataclass(frozen=True)
class Course:
    """Which steps there are.

    Values are those of the authors' code, as `search.settings.SearchSettings` has them, unless said otherwise.

    Attributes:
        rule: of `RULES`.
        sparsity: share of the filters of all layers that can lose any, which goes in all; at least 0 and below 1.
        step: share of them that goes at each step.
        images: on which filters are scored.
        held_out: share of the training images that is not trained on; candidates are scored on them. Theirs are scored on
            the test images.
        candidate_images: how many of those; 0 for all.
        fall: where accuracy falls by more than this share of itself, before training, the search is made again from equal
            shares.
        ignore: patterns (``fnmatch``) of layers that stay whole.
        minimum: no layer has fewer channels.
    """

    rule: str = RL_PRUNER
    sparsity: float = 0.6
    step: float = 0.01
    images: int = 100
    held_out: float = 0.1
    candidate_images: int = 0
    fall: float = 0.1
    ignore: tuple[str, ...] = ()
    minimum: int = 1

    def check(self) -> None:
        """Raises InputError for a course that cannot be gone."""
        if self.rule not in RULES:
            raise InputError(f"there is no rule '{self.rule}'; choose one of {', '.join(RULES)}")
        for name in ("sparsity", "step", "held_out"):
            if not (math.isfinite(value := getattr(self, name)) and 0 < value < 1):
                raise InputError(f"{name} {value} is not a share between 0 and 1")
        if not 0 <= self.fall <= 1:
            raise InputError(f"fall {self.fall} is not a share from 0 to 1")
        if self.images < 1 or self.minimum < 1 or self.candidate_images < 0:
            raise InputError(
                f"{self.images} images, {self.candidate_images} images for candidates and at least {self.minimum} channels"
                " make no sense; give 1 or more, or 0 candidate_images for all"
            )

    @property
    def planned(self) -> int:
        """Steps of a rule that goes step by step."""
        return math.ceil(self.sparsity / self.step - 1e-9)

    @property
    def steps(self) -> int:
        """Steps of this rule."""
        return 1 if self.rule in ONCE else self.planned

    def gone(self, step: int, filters: int) -> int:
        """Filters that are gone after so many steps, of so many at the beginning."""
        share = self.sparsity if step >= self.steps else step * self.step
        return int(filters * share + 1e-9)


@dataclass(frozen=True)
class Settings:
    """All that says how a network is made smaller."""

    course: Course = field(default_factory=Course)
    search: SearchSettings = field(default_factory=SearchSettings)
    reward: Reward = field(default_factory=Reward)
    preset: Preset = field(default_factory=lambda: find_preset(RL_PRUNER))
    """Of the training after a step."""

    def changed(self, given: Mapping[str, Any]) -> Self:
        """The same with other values, each for the part that has a setting of that name.

        Raises:
            InputError: there is no such setting, or its value is none.
        """
        parts: dict[str, dict[str, Any]] = {}
        kinds = {
            part.name: {f.name: str(f.type) for f in dataclasses.fields(getattr(self, part.name))}
            for part in dataclasses.fields(self)
        }
        for name, value in given.items():
            owner = next((part for part, known in kinds.items() if name in known), None)
            if owner is None:
                there_are = ", ".join(name for known in kinds.values() for name in known)
                raise InputError(f"there is no setting '{name}' of a shrinking; there are {there_are}")
            parts.setdefault(owner, {})[name] = of_kind(name, kinds[owner][name], value)
        result = dataclasses.replace(
            self, **{part: dataclasses.replace(getattr(self, part), **values) for part, values in parts.items()}
        )
        result.check()
        return result

    def check(self) -> None:
        """Raises InputError for values that make no sense."""
        for part in (self.course, self.search, self.reward, self.preset):
            part.check()

    @property
    def training(self) -> Preset:
        """Of one step: for a rule that takes one, as long as those of all steps of the others together."""
        if self.course.rule not in ONCE:
            return self.preset
        times = self.course.planned
        milestones = tuple(milestone * times for milestone in self.preset.milestones)
        return dataclasses.replace(
            self.preset, epochs=self.preset.epochs * times, milestones=milestones, warmup=self.preset.warmup * times
        )

    @property
    def needs_target(self) -> bool:
        """Whether times of a target are asked for."""
        return self.course.rule in TIMED or (self.course.rule == RL_PRUNER and self.reward.latency > 0)

    def recorded(self) -> dict[str, Any]:
        """What of it says which shrinking it is."""
        return {
            "course": asdict(self.course),
            "search": asdict(self.search),
            "reward": asdict(self.reward),
            "preset": recorded(self.preset, True),
        }


def settings_of(name: str, reward: str | None = None, changes: Mapping[str, Any] | None = None) -> Settings:
    """A preset with a reward and changes.

    Raises:
        InputError: there is no such preset or reward, or a change makes no sense.
    """
    preset = find_preset(name)
    brought = tables()[name].get("shrinking", {})
    settings = Settings(preset=preset) if reward is None else Settings(reward=find_reward(reward), preset=preset)
    return settings.changed({**brought, **(changes or {})})


def shrinking_presets() -> Sequence[str]:
    """The names of presets that are made for it."""
    return [name for name in presets() if "shrinking" in tables()[name]]

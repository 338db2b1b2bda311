"""Which layer takes which structure with which block size, by rules and a table of times.

The rule-based mapping of Gong et al., 2022 ("Automatic mapping of the best-suited DNN pruning schemes for real-time mobile
acceleration", arXiv 2111.11581): depthwise layers stay dense; 3x3 convolutions take kernel patterns where data are hard, such
as ImageNet, and block-punched zeros where they are easy, such as CIFAR-10; all others take blocks, of the smallest size whose
time is within beta of the coarsest one's. A smaller block costs less accuracy, so it is taken as soon as it costs no speed.

Ours are: the first convolution and the last layers stay dense, as everywhere here; and so does a layer that would not be
faster, because its zeros would cost accuracy for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Protocol

from ...frontend.base.errors import InputError
from ..structures import Pattern, Structure, check_share, find_structure
from ..weight_views import WeightView
from .structure_plan import PlannedLayer
from .structure_rules import dense_by_default, no_choice

__all__ = [
    "DATA",
    "MappingRules",
    "Timed",
    "Times",
    "known_layers",
    "map_layers",
    "share_of",
    "stays_dense",
]

DATA = ("hard", "easy")
_LEAST_OF_PATTERNS = 5 / 9


class Timed(Protocol):
    """What a layer takes."""

    @property
    def time(self) -> float:
        """In the unit of the table."""
        ...


class Times(Protocol):
    """A table of what layers take, by the names of their weights."""

    def __contains__(self, name: str) -> bool:
        """Whether the layer's time is known."""
        ...

    def fill(self, asked: Iterable[tuple[str, Structure, float]], dense: Sequence[str] = ()) -> None:
        """Finds all of these at once, which is faster than one after another."""
        ...

    def dense(self, name: str) -> Timed:
        """Of a layer without zeros."""
        ...

    def sparse(self, name: str, structure: Structure, share: float) -> Timed:
        """With a share of zeros of a structure that fits the layer."""
        ...


@dataclass(frozen=True)
class MappingRules:
    """What is chosen among.

    Attributes:
        sparsity: share of zeros of every layer that takes a structure, above 0 and below 1; patterns are 5/9 at least.
        beta: how much longer than the coarsest block a smaller one may take, as a share of its time; 0 or more.
        data: ``hard`` or ``easy``: what 3x3 convolutions take.
        patterns: for 3x3 convolutions on hard data; one, or several sizes to choose among by time.
        punched: for other convolutions with a window, and for all on easy data.
        blocks: for pointwise convolutions and linear layers.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave dense.

    Raises:
        InputError: a number is out of range, a name is none, or a structure says its share of zeros itself.
    """

    sparsity: float = 0.8
    beta: float = 0.2
    data: str = "hard"
    patterns: tuple[str, ...] = ("pattern:8",)
    punched: tuple[str, ...] = (
        "unstructured", "block-punched:2x1", "block-punched:4x1", "block-punched:4x4", "block-punched:8x4",
        "block-punched:16x4", "block-punched:16x8",
    )  # fmt: skip
    blocks: tuple[str, ...] = (
        "unstructured", "row-block:2", "row-block:4", "row-block:8", "row-block:16", "row-block:32",
    )  # fmt: skip
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_share(self.sparsity)
        if not self.sparsity:
            raise InputError(
                "with a sparsity of 0 nothing takes a structure; give a share of zeros above 0, such as 0.8"
            )
        if not 0 <= self.beta < float("inf"):
            raise InputError(f"beta {self.beta} is no share from 0 up; give one such as 0.2")
        if self.data not in DATA:
            raise InputError(f"data are {' or '.join(DATA)}, not '{self.data}'; choose one of them")
        for ladder in (self.patterns, self.punched, self.blocks):
            for structure in map(find_structure, ladder):
                if structure.fixed_sparsity is not None:
                    raise InputError(
                        f"{structure} says its share of zeros itself, so it cannot be compared with others; leave it out"
                    )

    def ladder(self, view: WeightView) -> tuple[str, tuple[Structure, ...]]:
        """What a layer is, in words, and the structures that it may take."""
        if view.convolution and view.shape.taps == (3, 3) and self.data == "hard":
            return "a 3x3 convolution on hard data", tuple(map(find_structure, self.patterns))
        if view.convolution and view.shape.positions > 1:
            size, on = "x".join(map(str, view.shape.taps)), " on easy data" if self.data == "easy" else ""
            return f"a {size} convolution{on}", tuple(map(find_structure, self.punched))
        what = "a pointwise convolution" if view.convolution else "a linear layer"
        return what, tuple(map(find_structure, self.blocks))

    def every(self, view: WeightView) -> tuple[str, tuple[Structure, ...]]:
        """What a layer is, in words, and all structures that may be in such a layer, whatever the data."""
        what, structures = replace(self, data="easy").ladder(view)
        if view.convolution and view.shape.taps == (3, 3):
            return "a 3x3 convolution", (*map(find_structure, self.patterns), *structures)
        return what.removesuffix(" on easy data"), structures


def map_layers(views: Sequence[WeightView], times: Times, rules: MappingRules) -> tuple[PlannedLayer, ...]:
    """What every layer takes, and why, in the order of the network. Times are asked for all at once.

    Raises:
        InputError: a pattern of names to ignore matches nothing, or there is no layer of known time.
    """
    known = known_layers(views, times, rules)
    steps = {view.name: _Ladder.of(view, rules) for view in views if not stays_dense(view, times, rules)}
    times.fill([(name, step, share) for name, found in steps.items() for step, share in found.steps], known)
    return tuple(_mapped(view, times, rules, steps.get(view.name)) for view in views)


def known_layers(views: Sequence[WeightView], times: Times, rules: MappingRules) -> tuple[str, ...]:
    """The names of the layers whose times are known.

    Raises:
        InputError: a pattern of names to ignore matches nothing, or there is no layer of known time.
    """
    for pattern in rules.ignore:
        if not any(_matches(pattern, view.name) for view in views):
            example = views[0].name if views else "conv1.weight"
            raise InputError(f"the pattern '{pattern}' matches no layer; names look like '{example}'")
    known = tuple(view.name for view in views if view.name in times)
    if not known:
        raise InputError("no layer of this model has a known time, so there is nothing to choose by")
    return known


@dataclass(frozen=True)
class _Ladder:
    """What a layer may take.

    Attributes:
        what: the layer is, in words.
        steps: structures that fit, each with the share of zeros that it would have, from the smallest block to the coarsest.
        misfits: why others do not.
    """

    what: str
    steps: tuple[tuple[Structure, float], ...]
    misfits: str

    @classmethod
    def of(cls, view: WeightView, rules: MappingRules) -> _Ladder:
        what, structures = rules.ladder(view)
        fitting = [structure for structure in structures if not structure.fits(view.shape)]
        fitting.sort(key=lambda structure: structure.unit_weights(view.shape))
        misfits = (f"{structure}: {misfit}" for structure in structures if (misfit := structure.fits(view.shape)))
        return cls(what, tuple((one, share_of(one, rules.sparsity)) for one in fitting), "; ".join(misfits))


def share_of(structure: Structure, sparsity: float) -> float:
    """The share of zeros that a structure can have: of patterns 5/9 at least."""
    return max(sparsity, _LEAST_OF_PATTERNS) if isinstance(structure, Pattern) else sparsity


def stays_dense(view: WeightView, times: Times, rules: MappingRules) -> str:
    """Why a layer stays dense whatever it would gain; empty if it may take zeros."""
    ignored = next((pattern for pattern in rules.ignore if _matches(pattern, view.name)), None)
    if ignored is not None:
        return f"left alone by '{ignored}'"
    if bound := no_choice(view):
        return bound
    if kept := dense_by_default(view):
        return kept
    return "" if view.name in times else "it has no kernel of ours, so its time is not known"


def _mapped(view: WeightView, times: Times, rules: MappingRules, ladder: _Ladder | None) -> PlannedLayer:
    if ladder is None:
        dense = times.dense(view.name).time if view.name in times else None
        return PlannedLayer(view.name, dense=dense, sparse=dense, reason=stays_dense(view, times, rules))
    dense = times.dense(view.name).time
    if not ladder.steps:
        return PlannedLayer(view.name, dense=dense, sparse=dense, reason=f"{ladder.what}; {ladder.misfits}")
    found = [times.sparse(view.name, step, share).time for step, share in ladder.steps]
    place = next(place for place, time in enumerate(found) if time <= (1 + rules.beta) * found[-1])
    structure, share = ladder.steps[place]
    if found[place] >= dense:
        reason = f"{ladder.what}, which gains nothing by {share:.0%} zeros of {structure}"
        return PlannedLayer(view.name, dense=dense, sparse=dense, reason=reason)
    return PlannedLayer(view.name, str(structure), share, dense, found[place], _why(ladder, found, place, rules.beta))


def _why(ladder: _Ladder, times: Sequence[float], place: int, beta: float) -> str:
    """In words, why that step was taken."""
    if len(ladder.steps) == 1:
        return f"{ladder.what} takes {ladder.steps[0][0]}"
    coarsest = ladder.steps[-1][0]
    parts = []
    if place < len(times) - 1:
        parts.append(
            f"the smallest block within {beta:.0%} of the coarsest, {coarsest}, at {_ratio(times[place], times[-1])}"
        )
    else:
        parts.append(f"no smaller block is within {beta:.0%} of the coarsest")
    if place:
        parts.append(f"{ladder.steps[place - 1][0]} would take {_ratio(times[place - 1], times[-1])}")
    return f"{ladder.what}: {'; '.join(parts)}"


def _ratio(time: float, of: float) -> str:
    return f"{time / of:.2f} times its time" if of else "more than its time"


def _matches(pattern: str, name: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(name.rpartition(".")[0], pattern)

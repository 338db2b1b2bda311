"""Which layer takes which structure with how many zeros, by a search over what a network with them is worth in a given time.

The search-based mapping of Gong et al., 2022 ("Automatic mapping of the best-suited DNN pruning schemes for real-time mobile
acceleration", arXiv 2111.11581), whose reward is accuracy minus a penalty on latency, accuracy being that of a network that was
pruned once by magnitude. They train a recurrent policy by REINFORCE; here a distribution over the choices of every layer moves
as RL-Pruner's over parts does (`rounds.evolve`), and it begins where the sum of what layers lose alone is the least.

The penalty on latency is hard and soft at once: choices beyond the budget are never tried, as if their reward were minus
infinity, and of those within it the reward is

    quality + latency * (1 - time / dense time),

which is `Reward`'s, with a weight that is 0 unless said. MnasNet (Tan et al., 2019, arXiv 1807.11626) multiplies accuracy with
(time / goal)^w: w = -1 beyond the goal and 0 within it is its hard form, w = -0.07 everywhere its soft one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from ....frontend.base.errors import InputError
from ....frontend.base.option_values import of_kind
from ....frontend.base.progress import track
from ...structures import Structure, check_share
from ...weight_views import WeightView
from ..latency import OutOfReach
from ..mapping import MappingRules, Times, known_layers, share_of, stays_dense
from ..structure_plan import PlannedLayer
from ..structure_rules import AskedStructure
from .counts import Counts
from .layer_choices import LayerChoice, search_choices, time_of, undominated
from .one_shot import Taken, Worth
from .rewards import Costs, Reward
from .rounds import Found
from .settings import SearchSettings

__all__ = ["SearchedMap", "StructureSearch", "map_by_search"]

_MOST_ERROR = 1e6
"""Of a network whose outputs are no finite numbers."""


@dataclass(frozen=True)
class StructureSearch:
    """What is searched for, and how.

    Attributes:
        budget: share of the time of all dense layers that the layers with zeros take together, at most.
        shares: of zeros that are tried; patterns have 5/9 at least.
        choices: of a layer that are tried in the whole network: about so many of those that are faster than all that are
            nearer to the dense layer, at times that lie apart evenly.
        latency: what it is worth to take no time at all, in units of quality; 0: within the budget time is worth nothing.
        settings: of the search, whose numbers are not RL-Pruner's: it decides all at once, and not 1 % in each of many steps.

    Raises:
        InputError: one of them is out of range.
    """

    budget: float = 0.5
    shares: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    choices: int = 6
    latency: float = 0.0
    settings: SearchSettings = field(default_factory=lambda: SearchSettings(noise=0.1, last_noise=0.02, pull=0.3))

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise InputError(
                f"budget {self.budget} is no share of the dense time above 0 and up to 1; give one such as 0.35"
            )
        if not self.shares or not all(self.shares):
            raise InputError("a search tries shares of zeros above 0; give some, such as 0.5, 0.7 and 0.9")
        for share in self.shares:
            check_share(share)
        if self.choices < 2:
            raise InputError(f"of {self.choices} choices of a layer nothing can be searched for; give 2 or more")
        self.reward.check()
        self.settings.check()

    def changed(self, given: Mapping[str, Any]) -> Self:
        """The same with other `choices`, `latency` or settings of the search, written as text or given as numbers.

        Raises:
            InputError: there is none of that name, or a value is none, or unusable.
        """
        own = {"choices": "int", "latency": "float"}
        changes = {name: of_kind(name, own[name], value) for name, value in given.items() if name in own}
        settings = self.settings.changed({name: value for name, value in given.items() if name not in own})
        return replace(self, **changes, settings=settings)

    @property
    def reward(self) -> Reward:
        return Reward(latency=self.latency)


@dataclass(frozen=True, eq=False)
class SearchedMap:
    """What a search came to.

    Attributes:
        layers: what every layer takes, and why, in the order of the network.
        quality: of the network with these zeros, as whoever judges it tells.
        begun: the same of the choices that the search began with.
        asked: networks that were tried.
        best: what the best ones take, the best first, by the name of the weight; the first is what layers have.
    """

    layers: tuple[PlannedLayer, ...]
    quality: float
    begun: float
    asked: int
    best: tuple[Mapping[str, Taken], ...]


@dataclass(frozen=True)
class _Choice(LayerChoice):
    """A structure with a share of zeros, or None for the dense layer."""

    taken: Taken | None = None

    @property
    def told(self) -> str:
        return "dense" if self.taken is None else str(AskedStructure(*self.taken))


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer of known time. The first choice is to stay dense, and the others, if there are any, are ever faster."""

    name: str
    what: str
    choices: tuple[_Choice, ...]

    @property
    def dense(self) -> float:
        return self.choices[0].time


def map_by_search(
    views: Sequence[WeightView],
    times: Times,
    rules: MappingRules,
    asked: StructureSearch,
    worth: Worth,
    seed: int = 0,
) -> SearchedMap:
    """What every layer takes within the budget. Times are asked for all at once.

    Args:
        views: of all weights.
        times: of layers.
        rules: which structures a layer may take, and what is left alone; no other of the rules is asked.
        asked: the budget, and how it is searched.
        worth: what networks with zeros are worth.
        seed: of all that is random.

    Raises:
        OutOfReach: the budget cannot be reached, with the least that can.
        InputError: a pattern matches nothing, or no time is known.
    """
    known = known_layers(views, times, rules)
    free = {view.name: rules.every(view) for view in views if not stays_dense(view, times, rules)}
    offered = {view.name: _offered(view, free[view.name][1], asked.shares) for view in views if view.name in free}
    times.fill([(name, *taken) for name, some in offered.items() for taken in some], known)
    dense = {name: times.dense(name).time for name in known}
    whole = math.fsum(dense.values())
    fast = {name: _faster(name, offered[name], times, worth, asked.choices) for name in offered}
    least = math.fsum(min((time, *(one.time for one in fast.get(name, ())))) for name, time in dense.items())
    budget = asked.budget * whole
    if least > budget:
        raise OutOfReach(
            f"a budget of {asked.budget:g} of the dense time cannot be reached: with every layer at its fastest it is"
            f" {math.ceil(1000 * least / whole) / 1000:.3f}; ask for that or more"
        )
    layers = _judged(free, fast, dense, worth)
    found, qualities = _searched(layers, budget, asked, worth, seed)
    by_name = {layer.name: (layer, place) for layer, place in zip(layers, found.chosen.counts, strict=True)}
    planned = tuple(
        _planned(*by_name[view.name])
        if view.name in by_name and len(by_name[view.name][0].choices) > 1
        else _dense(view, times, rules, free, offered)
        for view in views
    )
    best = tuple(_taken(layers, entry.counts) for entry in found.replay.entries)
    return SearchedMap(planned, qualities[found.chosen.counts], next(iter(qualities.values())), found.asked, best)


def _offered(view: WeightView, structures: Sequence[Structure], shares: Sequence[float]) -> tuple[Taken, ...]:
    """All that fits the layer, from small shares of zeros to large ones."""
    fitting = [structure for structure in structures if not structure.fits(view.shape)]
    return tuple(dict.fromkeys((one, share_of(one, share)) for share in sorted(shares) for one in fitting))


def _faster(name: str, offered: Sequence[Taken], times: Times, worth: Worth, most: int) -> tuple[_Choice, ...]:
    """What makes the layer faster, of that what no other beats in both time and error within the layer, thinned out."""
    dense = times.dense(name).time
    all_of = [_Choice(dense, 0.0), *(_Choice(times.sparse(name, *taken).time, 0.0, taken) for taken in offered)]
    fast = [one for one in all_of if one.taken is None or one.time < dense]
    judged = [
        _Choice(one.time, 0.0 if one.taken is None else worth.in_layer(name, *one.taken), one.taken) for one in fast
    ]
    front = [judged[place] for place in undominated(judged)]
    return tuple(one for one in _spread(front, most) if one.taken is not None)


def _spread(front: Sequence[_Choice], most: int) -> list[_Choice]:
    """So many of them at times that lie apart evenly, the slowest and the fastest among them."""
    if len(front) <= most:
        return list(front)
    wanted = np.linspace(front[0].time, front[-1].time, most)
    places = sorted({min(range(len(front)), key=lambda place: abs(front[place].time - time)) for time in wanted})
    return [front[place] for place in places]


def _judged(
    free: Mapping[str, tuple[str, Sequence[Structure]]],
    fast: Mapping[str, tuple[_Choice, ...]],
    dense: Mapping[str, float],
    worth: Worth,
) -> list[_Layer]:
    """All layers of known time, each choice with what the network errs with that layer's zeros alone."""
    errors = {name: [_Choice(time, 0.0)] for name, time in dense.items()}
    for name, one in track([(name, one) for name, some in fast.items() for one in some], "trying layers one by one"):
        assert one.taken is not None
        error = worth.in_network(name, *one.taken)
        errors[name].append(_Choice(one.time, error if 0 <= error < _MOST_ERROR else _MOST_ERROR, one.taken))
    return [
        _Layer(name, free[name][0] if name in free else "", tuple(some[place] for place in undominated(some)))
        for name, some in errors.items()
    ]


def _searched(
    layers: Sequence[_Layer], budget: float, asked: StructureSearch, worth: Worth, seed: int
) -> tuple[Found, dict[Counts, float]]:
    """The search, and the qualities of all that was tried in it."""
    qualities: dict[Counts, float] = {}
    every = [layer.choices for layer in layers]
    whole = math.fsum(layer.dense for layer in layers)

    def rewards(some: Sequence[Counts]) -> list[float]:
        found = []
        for counts in track(some, "scoring candidates"):
            told = worth.quality(_taken(layers, counts))
            qualities[counts] = told if math.isfinite(told) else -_MOST_ERROR
            saved = Costs(0.0, 0.0, time_of(every, counts)).saved(Costs(0.0, 0.0, whole))
            found.append(asked.reward(qualities[counts], saved))
        return found

    price = asked.latency / whole if whole > 0 else 0.0
    priced = [[LayerChoice(one.time, one.error + price * one.time) for one in some] for some in every]
    return search_choices(priced, budget, asked.settings, rewards, np.random.default_rng(seed)), qualities


def _taken(layers: Sequence[_Layer], counts: Counts) -> dict[str, Taken]:
    """What layers take, without those that stay dense."""
    pairs = ((layer.name, layer.choices[place].taken) for layer, place in zip(layers, counts, strict=True))
    return {name: taken for name, taken in pairs if taken is not None}


def _dense(
    view: WeightView, times: Times, rules: MappingRules, free: Mapping[str, tuple[str, Sequence[Structure]]],
    offered: Mapping[str, Sequence[Taken]],
) -> PlannedLayer:  # fmt: skip
    """A layer for which there was no choice."""
    time = times.dense(view.name).time if view.name in times else None
    reason = stays_dense(view, times, rules)
    if not reason:
        what, structures = free[view.name]
        misfits = "; ".join(f"{structure}: {structure.fits(view.shape)}" for structure in structures)
        reason = f"{what}, which no structure makes faster" if offered[view.name] else f"{what}; {misfits}"
    return PlannedLayer(view.name, dense=time, sparse=time, reason=reason)


def _planned(layer: _Layer, place: int) -> PlannedLayer:
    chosen, others = layer.choices[place], layer.choices
    words = [f"{layer.what} by search: {_told(chosen, layer.dense)}"]
    if place:
        words.append(f"{_told(others[place - 1], layer.dense)}")
    if place + 1 < len(others):
        words.append(f"{_told(others[place + 1], layer.dense)}")
    reason = f"{words[0]}; " + " and ".join(
        f"beside it {other}" if not n else other for n, other in enumerate(words[1:])
    )
    if chosen.taken is None:
        return PlannedLayer(layer.name, dense=layer.dense, sparse=layer.dense, reason=reason)
    structure, share = chosen.taken
    return PlannedLayer(layer.name, str(structure), share, layer.dense, chosen.time, reason)


def _told(choice: _Choice, dense: float) -> str:
    return f"{choice.told} takes {choice.time / dense:.2f} of its time at an error of {choice.error:.2g}"

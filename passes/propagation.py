"""Constants forward, liveness backward, to a fixpoint: what the zeros in a graph make removable.

This is sparse conditional constant propagation and dead-code elimination at the granularity of a channel. Constants
flow once through the graph, in order. Liveness then grows from what is needed whatever happens (the model's outputs,
spatial axes, operators without a rule) until nothing changes; every channel it does not reach can go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from .axes import Axes, Gather, Grouped, Product
from .closed_values import ClosedValues
from .facts import Facts, agreeing, constants_of, unknown
from .ranges import Ranges
from .rules import rule_of
from .values import MUTATED, STATE, WRITTEN, Operation, attribute, is_static, is_tensor, shape_of

__all__ = ["KnownConstants", "Liveness", "propagate_constants", "propagate_liveness"]

Bools = NDArray[np.bool_]
Index = NDArray[np.int64]


class KnownConstants(Mapping[fx.Node, Facts]):
    """Facts by node. Those of stored tensors are made when first asked for: most weights never are.

    Attributes:
        module: the graph they are about.
        memo: what rules conclude from facts of several nodes and want to conclude only once.
        cautious: nothing is known of a layer that may read infinite values.
        ranges: between what bounds values lie, and which can be infinite or NaN.
    """

    def __init__(self, module: fx.GraphModule, cautious: bool = False) -> None:
        self.cautious = cautious
        self.memo: dict[Any, Any] = {}
        self.ranges = Ranges(module)
        self.module = module
        self._facts: dict[fx.Node, Facts] = {}

    def __getitem__(self, node: fx.Node) -> Facts:
        facts = self._facts.get(node)
        if facts is None:
            facts = self._facts[node] = self._initial(node)
        return facts

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def trusts(self, node: fx.Node) -> bool:
        """Returns if a layer that mixes the channels of `node` may take them to be finite, or NaN in all it makes of them."""
        return not self.cautious or self.ranges[node].finite

    def set(self, node: fx.Node, facts: Facts) -> None:
        """Records what a rule found out."""
        self._facts[node] = facts

    def _initial(self, node: fx.Node) -> Facts:
        if node.op == "get_attr" and not node.meta.get(WRITTEN):
            value = attribute(self.module, str(node.target))
            if isinstance(value, torch.Tensor):
                return constants_of(value)
        return unknown(len(shape_of(node)) if is_tensor(node) else 0)


def propagate_constants(
    module: fx.GraphModule, operations: Mapping[fx.Node, Operation], cautious: bool = False
) -> KnownConstants:
    """Runs every rule's forward transfer function, in the order of the graph: once, but for graphs with state.

    What a buffer holds at first, and that it is finite, is assumed of every call, and dropped where what is written to it is
    not the same, until nothing is dropped: then it holds by induction.
    """
    writes = [operation for operation in operations.values() if operation.node.meta.get(STATE)]
    assumed = {op["self"]: constants_of(attribute(module, str(op["self"].target))) for op in writes}
    finite = {place for place in assumed if bool(attribute(module, str(place.target)).isfinite().all())}
    while True:
        facts = KnownConstants(module, cautious)
        facts.ranges.assume_finite(finite)
        for place, constants in assumed.items():
            facts.set(place, constants)
        _run(operations, facts)
        left = {op["self"]: agreeing(assumed[op["self"]], facts[op["src"]]) for op in writes}
        grown = {op["self"] for op in writes if not facts.ranges[op["src"]].finite} & finite
        if not grown and all((assumed[place].known == constants.known).all() for place, constants in left.items()):
            return facts
        assumed, finite = left, finite - grown


def _run(operations: Mapping[fx.Node, Operation], facts: KnownConstants) -> None:
    closed = ClosedValues(facts.module)
    for operation in operations.values():
        value = closed.add(operation)
        if value is not None:
            facts.set(operation.node, constants_of(value))
            continue
        found = rule_of(operation).constants(operation, facts)
        results = [found] if isinstance(found, Facts) else list(found)
        if any(output is not None and output.meta.get(MUTATED) for output in operation.outputs):
            results = [unknown(result.rank) for result in results]
        for output, result in zip(operation.outputs, results, strict=True):
            if output is not None:
                facts.set(output, result)


class Liveness:
    """Which positions of every axis class stay. It only ever grows.

    Attributes:
        axes: the classes and relations it is about.
        facts: what the forward pass found.
        placing_carriers: in the last phase, rules ask for the constant carriers they still miss.
    """

    def __init__(self, axes: Axes, facts: KnownConstants) -> None:
        self.axes = axes
        self.facts = facts
        self.placing_carriers = False
        self._keep: list[Bools] = [np.zeros(size, bool) for size in axes.sizes]
        self._why: list[NDArray[np.int32]] = [np.full(size, -1, np.int32) for size in axes.sizes]
        self._causes: dict[str, int] = {}
        self._changed: set[int] = set()
        self._needed: list[Bools] = self._keep

    def kept(self, node: fx.Node, axis: int) -> Bools:
        """Which positions of the node's axis stay; length of the axis. Do not write to it."""
        number = self.axes.of(node, axis)
        known = self.axes.sizes[number] or is_static(shape_of(node)[axis])  # An axis may be empty.
        return self._keep[number] if known else np.ones(1, bool)

    def kept_in(self, number: int) -> Bools:
        """The same by class number."""
        return self._keep[number]

    def needed(self, node: fx.Node, axis: int) -> Bools:
        """Which positions stay for what they hold, rather than to carry constants or to fill a shape."""
        number = self.axes.of(node, axis)
        return self._needed[number] if self.axes.sizes[number] else np.ones(1, bool)

    def note_needed(self) -> None:
        """What stays until now is what `needed` tells from now on."""
        self._needed = list(self._keep)  # Grown masks are new arrays.

    def require(self, node: fx.Node, axis: int, mask: Bools, cause: str) -> None:
        """Positions of the node's axis that must stay, and the reason to give the person."""
        self.require_in(self.axes.of(node, axis), mask, cause)

    def require_in(self, number: int, mask: Bools, cause: str) -> None:
        """The same by class number."""
        new = mask & ~self._keep[number]
        if new.any():
            self._keep[number] = self._keep[number] | new
            self._why[number][new] = self._causes.setdefault(cause, len(self._causes))
            self._changed.add(number)

    def inherit_in(self, number: int, mask: Bools, why: NDArray[np.int32]) -> None:
        """Positions of a class that stay because others do; `why` gives the others' causes."""
        new = mask & ~self._keep[number]
        if new.any():
            self._keep[number] = self._keep[number] | new
            self._why[number][new] = why[new]
            self._changed.add(number)

    def why_in(self, number: int) -> NDArray[np.int32]:
        """For every position of a class, the number of the cause it stays for; -1 where it may go."""
        return self._why[number]

    def causes_of(self, number: int, positions: Bools) -> tuple[str, ...]:
        """Why the given positions of a class stay, most frequent first."""
        codes, counts = np.unique(self._why[number][positions & self._keep[number]], return_counts=True)
        names = list(self._causes)
        return tuple(names[code] for code in codes[np.argsort(-counts)] if code >= 0)

    def take_changed(self) -> set[int]:
        """Classes that grew since the last call."""
        changed, self._changed = self._changed, set()
        return changed


def propagate_liveness(axes: Axes, facts: KnownConstants) -> Liveness:
    """Grows liveness to its least fixpoint, then adds constant carriers and the one channel an empty layer keeps."""
    live = Liveness(axes, facts)
    for number in range(len(axes.members)):
        if axes.frozen(number) and axes.sizes[number]:
            live.require_in(number, np.ones(axes.sizes[number], bool), _frozen_cause(axes, number))
    engine = _Engine(live)
    engine.run()
    live.note_needed()
    live.placing_carriers = True
    engine.run()
    for number, size in enumerate(axes.sizes):
        if size and not live.kept_in(number).any():
            first = np.zeros(size, bool)
            first[0] = True
            live.require_in(number, first, "one channel stays so that the layer keeps a shape")
            engine.settle()
    for mix in axes.mixes:
        mix.operation.cache.clear()  # As large as a quarter of the weights, and not needed any more.
    return live


def _frozen_cause(axes: Axes, number: int) -> str:
    freezes = axes.freezes[number]
    return next((freeze for freeze in freezes if freeze.reason), freezes[0]).told


class _Engine:
    """A worklist over relations and mixing operators."""

    def __init__(self, live: Liveness) -> None:
        self._live = live
        axes = live.axes
        operations = {mix.operation.node: mix.operation for mix in axes.mixes}
        self._steps: list[Any] = [*axes.gathers, *axes.products, *axes.grouped, *operations.values()]
        self._watchers: dict[int, list[int]] = {}
        places = {
            operation.node: len(self._steps) - len(operations) + i for i, operation in enumerate(operations.values())
        }
        for place, step in enumerate(self._steps):
            for number in _classes_of(step):
                self._watchers.setdefault(number, []).append(place)
        for mix in axes.mixes:
            for number in {mix.source, mix.target}:
                watchers = self._watchers.setdefault(number, [])
                if places[mix.operation.node] not in watchers[-1:]:
                    watchers.append(places[mix.operation.node])

    def run(self) -> None:
        """Applies every step at least once, last operators first, until nothing grows."""
        self._live.take_changed()
        self._drain(deque(reversed(range(len(self._steps)))))

    def settle(self) -> None:
        """Applies only what the latest changes touch."""
        queue: deque[int] = deque()
        for number in self._live.take_changed():
            queue.extend(self._watchers.get(number, ()))
        self._drain(deque(dict.fromkeys(queue)))

    def _drain(self, queue: deque[int]) -> None:
        waiting = set(queue)
        while queue:
            place = queue.popleft()
            waiting.discard(place)
            _apply(self._steps[place], self._live)
            for number in self._live.take_changed():
                for watcher in self._watchers.get(number, ()):
                    if watcher not in waiting:
                        waiting.add(watcher)
                        queue.append(watcher)


def _classes_of(step: Any) -> tuple[int, ...]:
    if isinstance(step, Product):
        return (step.flat, *step.factors)
    if isinstance(step, Gather | Grouped):
        return (step.source, step.target)
    return ()


def _apply(step: Any, live: Liveness) -> None:
    if isinstance(step, Gather):
        _apply_gather(step, live)
    elif isinstance(step, Product):
        _apply_product(step, live)
    elif isinstance(step, Grouped):
        _apply_grouped(step, live)
    else:
        rule_of(step).demand(step, live)


def _apply_gather(step: Gather, live: Liveness) -> None:
    _carry(live, step.source, step.source_index, step.target, step.target_index)
    _carry(live, step.target, step.target_index, step.source, step.source_index)


def _carry(live: Liveness, source: int, source_index: Index, target: int, target_index: Index) -> None:
    """What stays on one side of an index map stays on the other, for the same cause."""
    stays = live.kept_in(source)[source_index]
    mask, why = np.zeros(live.axes.sizes[target], bool), np.full(live.axes.sizes[target], -1, np.int32)
    mask[target_index[stays]] = True
    why[target_index[stays]] = live.why_in(source)[source_index[stays]]
    live.inherit_in(target, mask, why)


def _apply_product(step: Product, live: Liveness) -> None:
    flat, why = (array.reshape(step.sizes) for array in (live.kept_in(step.flat), live.why_in(step.flat)))
    for place, factor in enumerate(step.factors):
        others = tuple(axis for axis in range(len(step.sizes)) if axis != place)
        live.inherit_in(factor, np.asarray(flat.any(axis=others)), why.max(axis=others))
    kept, reason = np.ones((), bool), np.full((), -1, np.int32)
    for factor in step.factors:
        kept = np.logical_and.outer(kept, live.kept_in(factor))
        # Axes held in place have the earliest causes; the latest one is the telling one.
        reason = np.maximum.outer(reason, live.why_in(factor))
    live.inherit_in(step.flat, kept.reshape(-1), reason.reshape(-1))


def _apply_grouped(step: Grouped, live: Liveness) -> None:
    source = live.kept_in(step.source).reshape(step.groups, -1)
    target = live.kept_in(step.target).reshape(step.groups, -1)
    active = np.asarray(source.any(1) | target.any(1))
    if not active.any():
        return
    cause = f"every group of '{step.node.name}' keeps equally many channels"
    live.require_in(step.source, _levelled(source, active).reshape(-1), cause)
    live.require_in(step.target, _levelled(target, active).reshape(-1), cause)


def _levelled(kept: Bools, active: Bools) -> Bools:
    """Fills every active row up to the fullest one's count, first positions first."""
    goal = max(1, int(kept.sum(1).max()))
    missing = np.where(active, goal - kept.sum(1), 0)
    vacant_rank = np.cumsum(~kept, axis=1)
    result: Bools = kept | (~kept & (vacant_rank <= missing[:, None]))
    return result

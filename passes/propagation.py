"""Constants forward, liveness backward, to a fixpoint: what the zeros in a graph make removable.

This is sparse conditional constant propagation and dead-code elimination at the granularity of a channel. Constants
flow once through the graph, in order. Liveness then grows from what is needed whatever happens (the model's outputs,
spatial axes, operators without a rule) until nothing changes; every channel it does not reach can go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from .axes import Axes, Gather, Grouped, Product
from .closed_values import ClosedValues
from .facts import Facts, agreeing, constants_of, unknown
from .liveness import KnownConstants, Liveness
from .rules import rule_of
from .values import MUTATED, STATE, Operation, attribute

__all__ = ["propagate_constants", "propagate_liveness"]

Bools = NDArray[np.bool_]
Index = NDArray[np.int64]


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

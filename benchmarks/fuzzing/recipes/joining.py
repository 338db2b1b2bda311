"""Concatenation and taking apart."""

from __future__ import annotations

from collections.abc import Sequence

from ..draft import Draft, Rejected
from ..program import Ref
from .registry import recipe


def _partners(draft: Draft, x: Ref, axis: int) -> list[Ref]:
    """Values that differ from `x` along `axis` at most."""
    shape = list(draft.shape(x))

    def fits(ref: Ref) -> bool:
        other = list(draft.shape(ref))
        return len(other) == len(shape) and other[:axis] + other[axis + 1 :] == shape[:axis] + shape[axis + 1 :]

    return [ref for ref in draft.pool if fits(ref)]


@recipe("cat concat concatenate", weight=10)
def concatenation(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    axis = draft.axis(x)
    fits = _partners(draft, x, axis)
    parts = [x]
    for _ in range(draft.integer(1, 2)):
        kind = draft.integer(0, 5)
        if kind <= 3:
            parts.append(draft.pick(fits[::-1]))
        elif kind == 4:
            parts.append(draft.fed(x, axis, 100) if axis == 1 else draft.call("cos.default", x))
        else:
            shape = list(draft.shape(x))
            shape[axis] = draft.integer(1, 3)
            parts.append(draft.store(*shape))
    if draft.chance(30):
        parts.reverse()
    return draft.call(f"{operator}.default", tuple(parts), axis - draft.rank(x) if draft.chance(20) else axis)


@recipe("stack", weight=2)
def stack(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: 0 < value.dim() < 5)
    axis = draft.integer(0, draft.rank(x))
    y = draft.like(x, broadcast=False)
    made = draft.call("stack.default", (x, y), axis)
    if draft.chance(50):
        return draft.call("flatten.using_ints", made, max(0, axis - 1), max(1, axis))
    return made


@recipe("split split_with_sizes chunk tensor_split", weight=8)
def parts(draft: Draft, operator: str) -> Sequence[Ref]:
    x = draft.operand(lambda value: value.dim() > 0)
    axis = draft.axis(x, 2)
    size = draft.shape(x)[axis]
    cut = draft.integer(1, size - 1)
    if operator == "split":
        made = draft.call("split.Tensor", x, cut, axis)
    elif operator == "split_with_sizes":
        made = draft.call("split_with_sizes.default", x, (cut, size - cut), axis)
    elif operator == "chunk":
        made = draft.call("chunk.default", x, draft.integer(2, min(4, size)), axis)
    elif draft.chance(50):
        made = draft.call("tensor_split.sections", x, draft.integer(2, min(4, size)), axis)
    else:
        made = draft.call("tensor_split.indices", x, (cut,), axis)
    return _put_together(draft, draft.items(made), axis)


@recipe("unbind", weight=3)
def unbind(draft: Draft, operator: str) -> Sequence[Ref]:
    x = draft.operand(lambda value: value.dim() > 1)
    axis = draft.axis(x, 1, lambda size: size <= 8)
    items = draft.items(draft.call("unbind.int", x, axis))
    if draft.chance(40):
        return [draft.call("stack.default", tuple(items[draft.integer(0, len(items) - 1) :]), axis)]
    return _some(draft, items)


def _put_together(draft: Draft, items: list[Ref], axis: int) -> Sequence[Ref]:
    """The parts, some of them, or all joined again in another order."""
    kind = draft.integer(0, 3)
    if kind == 0:
        return _some(draft, items)
    if kind == 1:
        return [draft.call("cat.default", tuple(items[::-1]), axis)]
    if kind == 2:
        changed = [draft.call(f"{draft.pick(('relu', 'sigmoid', 'sin'))}.default", items[0]), *items[1:]]
        return [draft.call("cat.default", tuple(changed), axis)]
    shapes = {draft.shape(item) for item in items}
    if len(shapes) > 1 or len(items) < 2:
        raise Rejected("parts of different sizes")
    return [draft.call(f"{draft.pick(('add', 'mul'))}.Tensor", items[0], items[-1])]


def _some(draft: Draft, items: list[Ref]) -> Sequence[Ref]:
    if draft.chance(50):
        return [draft.pick(items)]
    return items[:3]

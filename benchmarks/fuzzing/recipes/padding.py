"""Padding of every kind, of images and of other axes."""

from __future__ import annotations

from ..draft import Draft
from ..program import Ref
from .elementwise import operand
from .layers import image
from .registry import recipe


@recipe("pad", weight=4)
def pad(draft: Draft, operator: str) -> Ref:
    mode = draft.pick(("constant", "constant", "reflect", "replicate", "circular"))
    if mode == "constant":
        x = operand(draft)
        amounts = [draft.pick((0, 1, 1, 2, -1)) for _ in range(2 * draft.integer(1, max(1, min(3, draft.rank(x)))))]
        return draft.call("pad.default", x, tuple(amounts), mode, draft.pick((None, 0.0, 0.4)))
    x = image(draft, draft.pick((2, 1)), 2)
    return draft.call("pad.default", x, tuple(draft.pick((1, 0)) for _ in range(2 * draft.rank(x) - 4)), mode)


@recipe("constant_pad_nd", weight=2)
def constant(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    amounts = [draft.pick((0, 1, 2, -1)) for _ in range(2 * draft.integer(1, max(1, min(3, draft.rank(x)))))]
    return draft.call("constant_pad_nd.default", x, tuple(amounts), draft.pick((0.0, 0.3)))


@recipe(
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d", weight=3
)
def border(draft: Draft, operator: str) -> Ref:
    rank = int(operator[-2])
    x = image(draft, rank, 2)
    return draft.call(f"{operator}.default", x, tuple(draft.pick((1, 0)) for _ in range(2 * rank)))

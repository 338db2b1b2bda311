"""Windows of images and sequences, read into one axis and summed back."""

from __future__ import annotations

from ..draft import Draft
from ..program import Ref
from .layers import image, tuned
from .registry import recipe


@recipe("im2col col2im", weight=3)
def columns(draft: Draft, operator: str) -> Ref:
    """The windows of an image; perhaps as one axis of its own beside the channels, or put back where they were."""
    x = draft.fed(image(draft, 2, 2), 1)
    batch, channels, *size = draft.shape(x)
    kernel, stride, padding = tuned(draft, 2, (2, 1, 3)), tuned(draft, 2, (1, 2)), tuned(draft, 2, (0, 1))
    dilation = tuned(draft, 2, (1, 1, 2))
    read = draft.call("im2col.default", x, kernel, dilation, padding, stride)
    taps, places = kernel[0] * kernel[1], draft.shape(read)[-1]
    if operator == "col2im":
        if draft.chance(50):
            read = draft.call("relu.default", read)
        return draft.call("col2im.default", read, tuple(size), kernel, dilation, padding, stride)
    if draft.chance(30):
        return draft.call("view.default", read, (batch, channels, taps, places))
    return read


@recipe("unfold", weight=2)
def windows(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    axis = draft.axis(x, 2)
    size = draft.integer(1, min(4, draft.shape(x)[axis]))
    return draft.call("unfold.default", x, draft.pick((axis, axis - draft.rank(x))), size, draft.integer(1, 3))

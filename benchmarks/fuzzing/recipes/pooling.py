"""Pooling and resampling of images."""

from __future__ import annotations

from typing import Any

from ..draft import Draft
from ..program import Ref
from .layers import image, need, tuned
from .registry import recipe


def _rank(operator: str) -> int:
    return int(operator.partition("d_with")[0].rstrip("d_aten")[-1])


def _window(draft: Draft, x: Ref, rank: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, stride, padding (at most half the kernel)."""
    sizes = draft.shape(x)[2:]
    kernel = tuple(min(k, size) for k, size in zip(tuned(draft, rank, (2, 3)), sizes, strict=True))
    return kernel, tuned(draft, rank, (2, 1)), tuple(draft.integer(0, k // 2) for k in kernel)


@recipe("max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices", weight=4)
def largest(draft: Draft, operator: str) -> Ref:
    rank = _rank(operator)
    x = image(draft, rank, 2)
    if draft.chance(25):  # Padding of its own, as converted networks have it.
        sides = [draft.integer(0, 1) for _ in range(2 * rank)]
        x = draft.call("constant_pad_nd.default", x, tuple(sides), draft.pick((-50.0, 0.0, 0.3)))
    kernel, stride, padding = _window(draft, x, rank)
    made = draft.call(
        f"{operator}.default", x, kernel, stride, padding, tuned(draft, rank, (1, 1, 1, 2)), draft.chance(30)
    )
    return draft.items(made)[0] if operator.endswith("indices") else made


@recipe("avg_pool1d avg_pool2d avg_pool3d", weight=4)
def average(draft: Draft, operator: str) -> Ref:
    rank = _rank(operator)
    x = image(draft, rank, 2)
    kernel, stride, padding = _window(draft, x, rank)
    more: tuple[Any, ...] = () if rank == 1 else (draft.pick((None, None, 3)),)
    return draft.call(f"{operator}.default", x, kernel, stride, padding, draft.chance(30), not draft.chance(30), *more)


@recipe(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d",
    weight=4,
)
def adaptive(draft: Draft, operator: str) -> Ref:
    rank = _rank(operator)
    made = draft.call(f"{operator}.default", image(draft, rank), tuned(draft, rank, (1, 2, 3)))
    return draft.items(made)[0] if "max" in operator else made


@recipe(
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa",
    weight=4,
)
def resample(draft: Draft, operator: str) -> Ref:
    rank = int(operator.removesuffix("_aa")[-2])
    x = image(draft, rank)
    need(max(draft.shape(x)[2:]) <= 10, "large already")
    corners = () if "nearest" in operator else (draft.chance(30),)
    if draft.chance(50):
        return draft.call(f"{operator}.default", x, tuned(draft, rank, (4, 5, 3)), *corners)
    if draft.chance(50):
        return draft.call(f"{operator}.vec", x, tuned(draft, rank, (4, 5, 3)), *corners, None)
    return draft.call(f"{operator}.vec", x, None, *corners, (2.0,) * rank)


@recipe("grid_sampler grid_sampler_2d grid_sampler_3d", weight=3)
def sampled(draft: Draft, operator: str) -> Ref:
    """An image read at places that are stored, given, or computed from the image itself."""
    rank = {"grid_sampler_2d": 2, "grid_sampler_3d": 3}.get(operator) or draft.pick((2, 3))
    x = image(draft, rank)
    batch, channels = draft.shape(x)[:2]
    kind = draft.integer(0, 2)
    if kind == 0:
        grid = draft.store(batch, *tuned(draft, rank, (3, 4, 2)), rank, scale=0.6)
    elif kind == 1:
        grid = draft.input((batch, *tuned(draft, rank, (3, 4, 2)), rank))
    else:
        weight = draft.weight(rank, channels, fan_in=channels)
        grid = draft.call("linear.default", draft.call("movedim.int", x, 1, -1), weight, draft.optional(rank))
    modes = (0, 1, 2) if rank == 2 else (0, 1)
    return draft.call(f"{operator}.default", x, grid, draft.pick(modes), draft.pick((0, 1, 2)), draft.chance(50))


@recipe("affine_grid_generator", weight=2)
def moved(draft: Draft, operator: str) -> Ref:
    """An image read at the places of maps that are stored or computed; now and then the channels lie in the batch."""
    x = image(draft, 2)
    if draft.chance(50):
        x = draft.call("transpose.int", x, 0, 1)
    batch = draft.shape(x)[0]
    maps = draft.store(batch, 2, 3, scale=0.5)
    if draft.chance(40):
        features = draft.call("mean.dim", x, (1, 2, 3))
        maps = draft.call("mul.Tensor", maps, draft.call("reshape.default", features, (batch, 1, 1)))
    grid = draft.call(f"{operator}.default", maps, (batch, 1, *tuned(draft, 2, (3, 4, 2))), draft.chance(50))
    return draft.call("grid_sampler.default", x, grid, 0, draft.pick((0, 1)), draft.chance(50))

"""For every operator with a rule, networks around it. ``CASES[operator]`` is a list; no operator may be without one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from reconvene.passes.rules import registered

from .networks import Around, Between, Features, Joined

__all__ = ["CASES", "Case", "own_operators"]

A = torch.ops.aten
Tensor = torch.Tensor

IMAGE = (2, 3, 8, 8)
TOKENS = (2, 5, 6)
STEPS = (2, 3, 6)
"""For layers with a state, which are traced step by step."""


@dataclass(frozen=True)
class Case:
    """A network with the shapes of its inputs.

    `prunes` names the kinds of mask (see `channel_masks`) under which channels of the parameter `observed` go. Masks of
    kind M1 leave constants behind, which not every operator passes on.
    """

    label: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = IMAGE
    prunes: str = "M1 M2"
    observed: str = "before.weight"
    axis: int = 0
    inputs: Callable[[], tuple[Any, ...]] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def example(self) -> tuple[Any, ...]:
        """Inputs that fit."""
        return self.inputs() if self.inputs else (torch.randn(self.shape),)


CASES: dict[str, list[Case]] = {}


def case(
    operator: str, build: Callable[[], nn.Module], shape: tuple[int, ...] = IMAGE, label: str = "", **options: Any
) -> None:
    """Adds a case for ``aten.<operator>``."""
    listed = CASES.setdefault(f"aten.{operator}", [])
    listed.append(Case(label or str(len(listed)), build, shape, **options))


# Entry by entry ---------------------------------------------------------------------------------------------------


def called(where: Any, names: str) -> list[tuple[str, Any]]:
    """Functions by their names."""
    return [(name, getattr(where, name)) for name in names.split()]


def positive(x: Tensor) -> Tensor:
    """Between 0.5 and 1.5."""
    return torch.sigmoid(x) + 0.5


def inside(x: Tensor) -> Tensor:
    """Strictly between -0.9 and 0.9."""
    return torch.tanh(x) * 0.9


def unary(names: str, domain: Callable[[Tensor], Tensor] | None = None, *args: Any) -> None:
    """Each operator alone between two convolutions, and without padding, where constants fold into the bias."""
    for name in names.split():
        call = getattr(A, name)

        def inner(x: Tensor, call: Any = call) -> Tensor:
            result: Tensor = call(domain(x) if domain else x, *args)
            return result

        case(name, lambda inner=inner: Around(inner), label="padded")  # type: ignore[misc]
        case(name, lambda inner=inner: Around(inner, padding=0), label="unpadded")  # type: ignore[misc]


unary(
    "abs asinh atan ceil celu cos cosh elu erf erfc exp exp2 expm1 fix floor frac gelu hardshrink hardsigmoid hardswish "
    "hardtanh leaky_relu log_sigmoid mish nan_to_num neg negative relu relu6 round selu sigmoid sign silu sin sinh softplus "
    "softshrink square tan tanh trunc positive rrelu"
)
unary("log log10 log1p log2 reciprocal rsqrt sqrt", positive)
unary("acos asin atanh", inside)
unary("acosh", lambda x: positive(x) + 1)
unary("logit", lambda x: torch.sigmoid(x) * 0.9 + 0.05)
unary("clamp clip hardtanh", None, -0.4, 0.6)
unary("clamp_max", None, 0.3)
unary("clamp_min", None, 0.2)
unary("threshold", None, 0.1, 0.7)
unary("elu", None, 0.7, 1.3, 0.9)
unary("gelu", lambda x: F.gelu(x, approximate="tanh"))
unary("softplus", None, 2.0, 1.0)
unary("contiguous clone detach alias lift_fresh_copy")

case("logical_not", lambda: Around(lambda x: A.logical_not(x > 0.1).to(x.dtype)))
case("bitwise_not", lambda: Around(lambda x: A.bitwise_not(x > 0.1).to(x.dtype)))
case("to", lambda: Around(lambda x: (x > 0.1).to(torch.int32).to(x.dtype)))
case("to", lambda: Around(lambda x: (x * 3).to(torch.int64).to(x.dtype)), label="whole numbers")
case("to", lambda: Around(lambda x: x.to(torch.bool).to(x.dtype)), label="truth")
case("to", lambda: Joined(lambda a, b: a.to(b.sum((0, 2, 3))[:5])), label="like another", observed="left.weight")
case("_to_copy", lambda: Around(lambda x: A._to_copy(x)))
case("type_as", lambda: Joined(lambda a, b: a.type_as(b) + b), observed="left.weight")
case(
    "type_as", lambda: Joined(lambda a, b: a.type_as(b.sum((0, 2, 3))[:5])), label="other shape", observed="left.weight"
)
for name, module in {
    "dropout": nn.Dropout(0.4),
    "feature_dropout": nn.Dropout2d(0.4),
    "alpha_dropout": nn.AlphaDropout(0.4),
    "feature_alpha_dropout": nn.FeatureAlphaDropout(0.4),
}.items():
    case(name, lambda module=module: Around(lambda x, layer: layer(x), layer=module))  # type: ignore[misc]


def joined(name: str, inner: Callable[[Tensor, Tensor], Tensor], label: str = "", **options: Any) -> None:
    """An operator of two branches."""
    case(name, lambda: Joined(inner), label=label or "two branches", observed="left.weight", **options)


for name, call in called(A, "add sub subtract mul multiply maximum minimum fmax fmin hypot"):
    joined(name, lambda a, b, call=call: call(a, b))  # type: ignore[misc]
for name, call in called(A, "div divide true_divide fmod remainder xlogy"):
    joined(name, lambda a, b, call=call: call(a, positive(b)))  # type: ignore[misc]
for name, call in called(torch, "max min"):
    joined(name, lambda a, b, call=call: call(a, b))  # type: ignore[misc]
joined("pow", lambda a, b: A.pow(positive(a), b))
case("pow", lambda: Around(lambda x: A.pow(x, 2)), label="square")
case("pow", lambda: Around(lambda x: A.pow(2.0, x)), label="of a number")
joined("floor_divide", lambda a, b: A.floor_divide(a * 5, positive(b)))
joined("rsub", lambda a, b: A.rsub(a, b))
joined("add", lambda a, b: torch.add(a, b, alpha=-0.3), "scaled")
joined("add", lambda a, b: a + b.mean((2, 3), keepdim=True), "spread over the image")
joined("add", lambda a, b: a + b.mean(1, keepdim=True), "spread over channels", prunes="")
joined("mul", lambda a, b: torch.relu(a) * torch.sigmoid(b.mean((2, 3), keepdim=True)), "gate")
joined("mul", lambda a, b: a * b * 0.5, "by a number too")
case("mul", lambda: Around(lambda x: x * x), label="by itself")
case("mul", lambda: Around(lambda x: F.pad(x, (1, 1, 1, 1)) * 0.5), label="padded plane by a number")
case("add", lambda: Around(lambda x: x + 0.7), label="a number")
case("div", lambda: Around(lambda x: torch.div(x * 5, 2, rounding_mode="floor")), label="rounded")
joined("lerp", lambda a, b: torch.lerp(a, b, 0.3))
joined("addcmul", lambda a, b: torch.addcmul(a, a, b, value=0.4))
joined("addcdiv", lambda a, b: torch.addcdiv(a, a, positive(b), value=0.4))
joined("where", lambda a, b: torch.where(a > 0.1, a, b))
case("where", lambda: Around(lambda x: torch.where(x > 0.1, x, 0.5)), label="a number")
joined("masked_fill", lambda a, b: a.masked_fill(b > 0.2, 0.3))
for name, call in called(A, "eq ne not_equal lt less le gt greater ge"):
    joined(name, lambda a, b, call=call: call(a.round(), b.round()).to(a.dtype))  # type: ignore[misc]
for name, call in called(A, "bitwise_and bitwise_or bitwise_xor logical_and logical_or logical_xor"):
    joined(name, lambda a, b, call=call: call(a > 0, b > 0.2).to(a.dtype))  # type: ignore[misc]
for name, call in called(A, "__and__ __or__ __xor__"):
    joined(name, lambda a, b, call=call: call(a > 0, b > 0.2).to(a.dtype))  # type: ignore[misc]
    case(name, lambda call=call: Around(lambda x: call((x * 4).to(torch.int32), 3).to(x.dtype)), label="a number")  # type: ignore[misc]
for name, call in called(A, "__lshift__ __rshift__ bitwise_left_shift bitwise_right_shift"):
    case(name, lambda call=call: Around(lambda x: call((x * 9).to(torch.int32), 2).to(x.dtype)), label="a number")  # type: ignore[misc]
    joined(name, lambda a, b, call=call: call((a * 9).int(), (b > 0).int()).to(a.dtype))  # type: ignore[misc]

case("prelu", lambda: Around(lambda x, slope: slope(x), slope=nn.PReLU(8)), label="per channel")
case("prelu", lambda: Around(lambda x, slope: slope(x), slope=nn.PReLU()), label="one slope")
case("prelu", lambda: Features(lambda x, slope: slope(x), slope=nn.PReLU(8)), (3, 6), label="features")
case(
    "_prelu_kernel",
    lambda: Around(lambda x, slope: A._prelu_kernel(x, slope.weight.reshape(1, 8, 1, 1)), slope=nn.PReLU(8)),
)
case("glu", lambda: Around(lambda x: F.glu(x, 1), reads=4), label="channels")
case("glu", lambda: Around(lambda x: F.glu(x, -1)), label="image")

# Layers -----------------------------------------------------------------------------------------------------------

for rank, shape in {1: (2, 3, 12), 2: IMAGE, 3: (1, 3, 5, 5, 5)}.items():
    conv: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
    transposed: Any = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[rank]
    for label, make in {
        "plain": lambda conv=conv: conv(8, 8, 3),
        "padded": lambda conv=conv: conv(8, 8, 3, padding=1),
        "stride": lambda conv=conv: conv(8, 8, 3, stride=2, padding=1),
        "dilation": lambda conv=conv: conv(8, 8, 2, dilation=2, padding=1),
        "pointwise": lambda conv=conv: conv(8, 8, 1, bias=False),
        "pointwise, padded": lambda conv=conv: conv(8, 8, 1, padding=1),
        "groups": lambda conv=conv: conv(8, 8, 3, padding=1, groups=2),
        "groups, unpadded": lambda conv=conv: conv(8, 8, 3, groups=4, bias=False),
        "depthwise": lambda conv=conv: conv(8, 8, 3, padding=1, groups=8),
        "depthwise, unpadded": lambda conv=conv: conv(8, 8, 3, groups=8),
        "same": lambda conv=conv: conv(8, 8, 2, padding="same"),
        "valid": lambda conv=conv: conv(8, 8, 2, padding="valid"),
        "reflect": lambda conv=conv: conv(8, 8, 3, padding=1, padding_mode="reflect"),
        "replicate": lambda conv=conv: conv(8, 8, 3, padding=1, padding_mode="replicate"),
        "circular": lambda conv=conv: conv(8, 8, 3, padding=1, padding_mode="circular"),
    }.items():
        case(
            f"conv{rank}d",
            lambda make=make, rank=rank: Around(lambda x, layer: layer(x.relu()), rank, layer=make()),  # type: ignore[misc]
            shape,
            label=label,
        )
    for label, make in {
        "plain": lambda layer=transposed: layer(8, 8, 3),
        "stride": lambda layer=transposed: layer(8, 8, 3, stride=2, padding=1, output_padding=1),
        "groups": lambda layer=transposed: layer(8, 8, 3, stride=2, groups=2, output_padding=1),
        "depthwise": lambda layer=transposed: layer(8, 8, 2, stride=2, groups=8),
        "dilation": lambda layer=transposed: layer(8, 8, 2, dilation=2, bias=False),
        "wider": lambda layer=transposed: layer(8, 8, 1, padding=0),
    }.items():
        case(
            f"conv_transpose{rank}d",
            lambda make=make, rank=rank: Around(lambda x, layer: layer(x.relu()), rank, layer=make()),  # type: ignore[misc]
            shape,
            label=label,
        )
case(
    "conv2d",
    lambda: Around(lambda x, layer: layer(x), width=4, layer=nn.Conv2d(4, 8, 3, groups=4)),
    label="multiplier",
    observed="parts.layer.weight",
    prunes="M2",
)
case("conv2d", lambda: Around(lambda x: x, padding=(2, 0)), label="asymmetric padding")  # type: ignore[arg-type]


class Unbatched(nn.Module):
    """Convolutions on one image without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.sigmoid(self.before(x)))


case("conv2d", Unbatched, (3, 8, 8), label="no batch")


class Raw(nn.Module):
    """An operator with a weight, called by its own name."""

    def __init__(self, call: Callable[[Tensor, Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.weight, self.bias = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(6))
        self.call = call
        self.after = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.call(torch.sigmoid(self.before(x)), self.weight, self.bias))


case(
    "convolution",
    lambda: Raw(lambda x, w, b: A.convolution(x, w, b, [1, 1], [1, 1], [1, 1], False, [0, 0], 1), 6, 8, 3, 3),
    label="forward",
)
case(
    "convolution",
    lambda: Raw(lambda x, w, b: A.convolution(x, w, b, [2, 2], [1, 1], [1, 1], True, [1, 1], 1), 8, 6, 3, 3),
    label="transposed",
)
case("linear", lambda: Features(F.gelu), TOKENS, label="tokens")
case("linear", lambda: Features(torch.sigmoid), (3, 6), label="features")
case("linear", lambda: Features(torch.cos), (6,), label="one vector")
case(
    "linear",
    lambda: Around(lambda x, head: head(x.relu().mean((2, 3))), reads=None, head=nn.Linear(8, 5)),
    label="head",
)
case("embedding", lambda: Embedded(), inputs=lambda: (torch.randint(0, 11, (2, 5)),), observed="table.weight", axis=1)
case(
    "embedding",
    lambda: Embedded(padding_idx=0),
    inputs=lambda: (torch.randint(0, 11, (2, 5)),),
    observed="table.weight",
    axis=1,
    label="padding index",
)

for mode in ("sum", "mean", "max"):
    case(
        "embedding_bag",
        lambda mode=mode: Bags(mode=mode),  # type: ignore[misc]
        inputs=lambda: (torch.randint(0, 11, (2, 5)),),
        observed="table.weight",
        axis=1,
        label=mode,
    )
BAGS_OF_ROWS = (torch.tensor([3, 1, 2, 2, 10, 0, 5, 2, 2]), torch.tensor([0, 4, 4, 7, 9]))
for label, given, scaled in (
    ("scaled, of unequal lengths", {"mode": "sum", "padding_idx": 2}, True),
    ("padding alone, and an end", {"mode": "mean", "padding_idx": 2, "include_last_offset": True}, False),
):
    case(
        "embedding_bag",
        lambda given=given: Bags(**given),  # type: ignore[misc]
        inputs=lambda scaled=scaled: (*BAGS_OF_ROWS, torch.rand(9)) if scaled else BAGS_OF_ROWS,  # type: ignore[misc]
        observed="table.weight",
        axis=1,
        label=label,
    )


class Bags(nn.Module):
    """Bags of rows of a table, read by a linear layer."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table, self.after = nn.EmbeddingBag(11, 8, **options), nn.Linear(8, 4)

    def forward(self, x: Tensor, offsets: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        return self.after(F.gelu(self.table(x, offsets, scale)))


class Embedded(nn.Module):
    """A table of rows, read by linear layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table, self.middle, self.after = nn.Embedding(11, 8, **options), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(F.gelu(self.middle(self.table(x))))


# Normalisation ----------------------------------------------------------------------------------------------------

case("batch_norm", lambda: Around(lambda x, norm: torch.relu(norm(x)), norm=nn.BatchNorm2d(8)))
case(
    "batch_norm", lambda: Around(lambda x, norm: norm(x), norm=nn.BatchNorm2d(8, affine=False)), label="no affine part"
)
case(
    "batch_norm",
    lambda: Around(lambda x, norm: norm(x), norm=nn.BatchNorm2d(8, track_running_stats=False)),
    label="statistics of the batch",
    prunes="",
)
case("batch_norm", lambda: Features(lambda x, norm: norm(x), norm=nn.BatchNorm1d(8)), (4, 6), label="features")


def _native(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    result: Tensor = A.native_batch_norm(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, False, 0.1, 1e-5
    )[0]
    return result


def _legit(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    result: Tensor = A._native_batch_norm_legit_no_training(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, 0.1, 1e-5
    )[0]
    return result


case("native_batch_norm", lambda: Around(_native, norm=nn.BatchNorm2d(8)))
case("_native_batch_norm_legit_no_training", lambda: Around(_legit, norm=nn.BatchNorm2d(8)))
case("instance_norm", lambda: Around(lambda x, norm: norm(x), norm=nn.InstanceNorm2d(8)))
case("instance_norm", lambda: Around(lambda x, norm: norm(x), norm=nn.InstanceNorm2d(8, affine=True)), label="affine")
case(
    "instance_norm",
    lambda: Around(lambda x, norm: norm(x), norm=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
    label="stored statistics",
)
case(
    "group_norm",
    lambda: Around(lambda x, norm: norm(x), width=16, reads=16, norm=nn.GroupNorm(4, 16)),
    label="four groups",
)
case("group_norm", lambda: Around(lambda x, norm: norm(x), norm=nn.GroupNorm(8, 8)), label="one channel a group")
case("group_norm", lambda: Around(lambda x, norm: norm(x), norm=nn.GroupNorm(1, 8)), label="one group", prunes="M2")
case(
    "group_norm",
    lambda: Around(lambda x, norm: norm(x), norm=nn.GroupNorm(1, 8, affine=False)),
    label="one group, no affine part",
    prunes="",
)
case("group_norm", lambda: Features(lambda x, norm: norm(x), norm=nn.GroupNorm(1, 8)), (4, 6), "features", prunes="M2")
case("layer_norm", lambda: Features(lambda x, norm: norm(x), norm=nn.LayerNorm(8)), TOKENS, prunes="M2")
case(
    "layer_norm",
    lambda: Features(lambda x, norm: norm(x), norm=nn.LayerNorm(8, bias=False)),
    TOKENS,
    label="no bias",
    prunes="M2",
)
case(
    "layer_norm",
    lambda: Features(lambda x: F.layer_norm(x, (8,)).relu()),
    TOKENS,
    label="no weight",
    prunes="",
)
case(
    "layer_norm", lambda: Around(lambda x, norm: norm(x), norm=nn.LayerNorm([8, 8])), label="over the image", prunes=""
)
case("rms_norm", lambda: Features(lambda x, norm: norm(x), norm=nn.RMSNorm(8)), TOKENS, prunes="M2")
case("rms_norm", lambda: Features(lambda x: F.rms_norm(x, (8,))), TOKENS, label="no weight", prunes="M2")
case(
    "native_layer_norm", lambda: Features(lambda x: A.native_layer_norm(x, [8], None, None, 1e-5)[0]), TOKENS, prunes=""
)

# Pooling and resampling -------------------------------------------------------------------------------------------

for rank, shape in {1: (2, 3, 11), 2: (2, 3, 9, 8), 3: (1, 3, 7, 6, 6)}.items():
    average: Any = getattr(F, f"avg_pool{rank}d")
    largest: Any = getattr(F, f"max_pool{rank}d")
    for label, settings in {
        "plain": {"kernel_size": 2},
        "padded": {"kernel_size": 3, "stride": 2, "padding": 1},
        "padding not counted": {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        "ceil, padded": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        "ceil, padding not counted": {
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "ceil_mode": True,
            "count_include_pad": False,
        },
        **({"divisor": {"kernel_size": 2, "divisor_override": 3}} if rank > 1 else {}),
    }.items():
        case(
            f"avg_pool{rank}d",
            lambda call=average, settings=settings, rank=rank: Around(  # type: ignore[misc]
                lambda x: call(torch.sigmoid(x), **settings), rank
            ),
            shape,
            label=label,
        )
    for label, settings in {
        "plain": {"kernel_size": 2},
        "padded": {"kernel_size": 3, "stride": 2, "padding": 1},
        "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        "dilation": {"kernel_size": 2, "stride": 1, "dilation": 2},
    }.items():
        case(
            f"max_pool{rank}d",
            lambda call=largest, settings=settings, rank=rank: Around(lambda x: call(x, **settings), rank),  # type: ignore[misc]
            shape,
            label=label,
        )
    for kind in ("avg", "max"):
        pool: Any = getattr(F, f"adaptive_{kind}_pool{rank}d")
        case(
            f"adaptive_{kind}_pool{rank}d",
            lambda pool=pool, rank=rank: Around(lambda x: pool(x, 3), rank),  # type: ignore[misc]
            shape,
        )
    modes = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}[rank]
    for mode in ("nearest", "nearest-exact", *modes):
        operator = {"nearest": f"upsample_nearest{rank}d", "nearest-exact": f"_upsample_nearest_exact{rank}d"}.get(
            mode, f"upsample_{mode}{rank}d"
        )
        for size in ({"scale_factor": 2}, {"size": 5}):
            case(
                operator,
                lambda mode=mode, rank=rank, size=size: Around(  # type: ignore[misc]
                    lambda x: F.interpolate(torch.sigmoid(x), mode=mode, **size), rank
                ),
                shape,
                label=f"{mode} {size}",
            )
case(
    "upsample_bilinear2d",
    lambda: Around(lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True)),
)
for mode in ("bilinear", "bicubic"):
    case(
        f"_upsample_{mode}2d_aa",
        lambda mode=mode: Around(lambda x: F.interpolate(x, size=(5, 4), mode=mode, antialias=True)),  # type: ignore[misc]
    )
POINTS = 1.3 * torch.rand(2, 4, 3, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.3
"""Some of them outside of the image."""
for number, padding in enumerate(("zeros", "border", "reflection")):
    for operator, rank in (("grid_sampler", 2), ("grid_sampler", 3), ("grid_sampler_2d", 2), ("grid_sampler_3d", 3)):
        case(
            operator,
            lambda operator=operator, number=number, rank=rank: Around(  # type: ignore[misc]
                lambda x: getattr(A, operator)(
                    x, (POINTS[:, :, :, 0, :2] if rank == 2 else POINTS).to(x.dtype), 0, number, False
                ),
                rank,
            ),
            (2, 3, *(9, 8, 7)[:rank]),
            label=padding,
            prunes="M2" if padding == "zeros" else "M1 M2",
        )


class Moved(nn.Module):
    """Every channel of an image is moved by a map of its own: the channels lie in the batch."""

    def __init__(self, maps: int, width: int = 8) -> None:
        super().__init__()
        self.before, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.moves = nn.Parameter(torch.randn(maps, 2, 3) * 0.3)
        self.after = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        channels = self.norm(self.before(x)).transpose(0, 1)
        size = (channels.shape[0], 2, 8, 8)
        moves = self.moves.expand(size[0], 2, 3)
        moved = F.grid_sample(channels, F.affine_grid(moves, size, align_corners=False), align_corners=False)
        return self.after(moved.transpose(0, 1))


case("affine_grid_generator", lambda: Moved(8), label="a map for each channel", prunes="M2")
case("affine_grid_generator", lambda: Moved(1), label="one map", prunes="M2")
case("grid_sampler", lambda: Moved(8), label="channels in the batch", prunes="M2")
case("max_pool2d_with_indices", lambda: Around(lambda x: A.max_pool2d_with_indices(x, [3, 3], [2, 2], [1, 1])[0]))
case(
    "max_pool3d_with_indices", lambda: Around(lambda x: A.max_pool3d_with_indices(x, [2, 2, 2])[0], 3), (1, 3, 6, 6, 6)
)

# Padding ----------------------------------------------------------------------------------------------------------

LOWEST = torch.finfo(torch.float32).min
for label, (inner, kinds) in {
    "-infinity below and right": (
        lambda x: F.max_pool2d(F.pad(x.relu(), (0, 1, 0, 1), value=-math.inf), 3, 2),
        "M1 M2",
    ),
    "the lowest number": (lambda x: F.max_pool2d(F.pad(x.sigmoid(), (1, 1, 1, 1), value=LOWEST), 2), "M1 M2"),
    "zeros around a relu": (lambda x: F.max_pool2d(F.pad(x.relu(), (1, 1)), 3, 1, padding=1), "M1 M2"),
    "two frames": (lambda x: F.max_pool2d(F.pad(F.pad(x.relu(), (1, 0), value=-1.0), (0, 1, 1, 0)), 3, 2), "M1 M2"),
    "-infinity, dilation": (lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 2, 1, 0, 2), "M1 M2"),
    "-infinity, dropout": (
        lambda x: F.max_pool2d(F.dropout(F.pad(x, (1, 0), value=-math.inf), 0.3, False), 2),
        "M1 M2",
    ),
    "larger than the constants": (lambda x: F.max_pool2d(F.pad(x.tanh(), (1, 1, 1, 1), value=2.0), 3, 2), ""),
    "windows in the frame": (lambda x: F.max_pool2d(F.pad(x.relu(), (3, 0), value=-1.0), 2), ""),
}.items():
    case("max_pool2d", lambda inner=inner: Around(inner), label=f"frame of {label}", prunes=kinds)  # type: ignore[misc]
case(
    "max_pool1d",
    lambda: Around(lambda x: F.max_pool1d(F.pad(x, (2, 1), value=-math.inf), 4), 1),
    (2, 3, 11),
    label="frame",
)

for label, call in {
    "zeros": lambda x: F.pad(x, (1, 1, 1, 1)),
    "asymmetric": lambda x: F.pad(x, (0, 2, 1, 0)),
    "a value": lambda x: F.pad(x, (1, 1, 1, 1), value=0.7),
    "cropping": lambda x: F.pad(x, (-1, 1, -1, 0)),
    "one axis": lambda x: F.pad(x, (1, 1)),
    "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
    "twice": lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), (1, 0, 1, 0)),
    "average of a padded plane": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 2),
}.items():
    kinds = "" if label == "a value" else "M1 M2"
    for padding in (0, 1):
        case(
            "pad",
            lambda call=call, padding=padding: Around(call, padding=padding),  # type: ignore[misc]
            label=f"{label}, {'padded' if padding else 'unpadded'} reader",
            prunes=kinds,
        )
case("pad", lambda: Around(lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)), reads=13), label="channels")
case("pad", lambda: Around(lambda x: F.pad(x, (0, 0, 0, 0, 2, 3), value=0.4), reads=13), label="channels, a value")
case("pad", lambda: Around(lambda x: F.pad(x, (1, 1, 1, 1, 2, 3)), reads=13), label="channels and image", prunes="")
case("pad", lambda: Around(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)), reads=16), label="residual option A")
case("constant_pad_nd", lambda: Around(lambda x: A.constant_pad_nd(x, [1, 2, 0, 1], 0.3)), prunes="")
case("reflection_pad1d", lambda: Around(lambda x: A.reflection_pad1d(x, [1, 2]), 1), (2, 3, 12))
case("reflection_pad2d", lambda: Around(lambda x: A.reflection_pad2d(x, [1, 2, 2, 1])))
case("reflection_pad3d", lambda: Around(lambda x: A.reflection_pad3d(x, [1] * 6), 3), (1, 3, 4, 4, 4))
case("replication_pad1d", lambda: Around(lambda x: A.replication_pad1d(x, [1, 2]), 1), (2, 3, 12))
case("replication_pad2d", lambda: Around(lambda x: A.replication_pad2d(x, [1, 2, 2, 1])))
case("replication_pad3d", lambda: Around(lambda x: A.replication_pad3d(x, [1] * 6), 3), (1, 3, 4, 4, 4))

# Joining and taking apart -----------------------------------------------------------------------------------------


def around(
    name: str, inner: Callable[..., Any], label: str = "", shape: tuple[int, ...] = IMAGE, **options: Any
) -> None:
    """A case of `Around`; options it does not know are the case's own."""
    own = {key: options.pop(key) for key in ("prunes", "observed", "axis") if key in options}
    case(name, lambda: Around(inner, **options), shape, label, **own)


def both(inner: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """Sum of what an operator gives."""
    return lambda x: sum(inner(x)[1:], inner(x)[0])


for name, call in called(A, "cat concat concatenate"):
    case(name, lambda call=call: Joined(lambda a, b: call([a, b], 1), reads=16), observed="left.weight")  # type: ignore[misc]
case("cat", lambda: Around(lambda x: torch.cat([x, x.relu(), x], 1), reads=24), label="itself")
case("cat", lambda: Joined(lambda a, b: torch.cat([a, b], -1)), label="image", observed="left.weight", prunes="M2")
case("cat", lambda: Joined(lambda a, b: torch.cat([a, b], 0)), label="batch", observed="left.weight", prunes="M2")
around(
    "cat",
    lambda x: torch.cat([F.pad(x, (1, 1, 1, 1))[:, :, :6], F.pad(x, (1, 1, 1, 1))[:, :, 4:]], 1),
    "two cuts of a padded plane",
    prunes="M2",
    reads=16,
)
around(
    "cat",
    lambda x: (lambda p: torch.cat([p[..., ::2, ::2], p[..., 1::2, ::2], p[..., ::2, 1::2], p[..., 1::2, 1::2]], 1))(
        F.pad(x, (1, 1, 1, 1))
    ),
    "space to depth of a padded plane",
    prunes="M2",
    reads=32,
)
case("stack", lambda: Joined(lambda a, b: torch.stack([a, b], 2).amax(2)), observed="left.weight", prunes="M2")
for label, place in {"one after the other": 1, "in turns": 2}.items():
    case(
        "stack",
        lambda place=place: Joined(lambda a, b: torch.stack([a, b], place).flatten(1, 2), reads=16),  # type: ignore[misc]
        label=label,
        observed="left.weight",
    )
around("chunk", both(lambda x: x.chunk(2, 1)), reads=4)
around("chunk", lambda x: x.chunk(3, 1)[1], "one of unequal", reads=3)
around("chunk", both(lambda x: x.chunk(2, 2)), "image")
around("split", both(lambda x: x.split(4, 1)), reads=4)
around("split", lambda x: torch.cat(x.split(3, 1)[::-1], 1), "turned round")
around("split_with_sizes", lambda x: torch.cat([x.split([3, 5], 1)[1], x.split([2, 6], 1)[0]], 1), reads=7)
around("tensor_split", lambda x: torch.cat(x.tensor_split(3, 1)[:2], 1), reads=6)
around("tensor_split", lambda x: torch.cat(x.tensor_split([2, 5], 1)[1:], 1), "places", reads=6)
around("unbind", both(lambda x: x.reshape(2, 2, 4, 8, 8).unbind(1)), reads=4)
around("unbind", lambda x: torch.stack(x.unbind(1)[1:5], 1), "channels", reads=4, prunes="")

# Arranging --------------------------------------------------------------------------------------------------------

around("view", lambda x: x.view(2, 4, 16, 8), "channels into the image", reads=4, prunes="M2")
around("view", lambda x: x.view(2, 8, 64).view(2, 8, 4, 16), "image only")
around("reshape", lambda x: x.reshape(-1, 8, 4, 16), "free batch")
around("reshape", lambda x: x.reshape(2, 2, 4, 8, 8).sum(1), "two factors", reads=4, prunes="M2")
around("reshape", lambda x, head: head(x.reshape(2, 8 * 64)), "flat", reads=None, head=nn.Linear(512, 5))
around("reshape", lambda x: x.reshape(2, 6, -1), "cuts across", reads=None, shape=(2, 3, 6, 6), prunes="")
around("_unsafe_view", lambda x: A._unsafe_view(x, [2, 8, 16, 4]))
around("_reshape_alias", lambda x: A._reshape_alias(x, [2, 8, 16, 4], [512, 64, 4, 1]))
case("view_as", lambda: Joined(lambda a, b: a.contiguous().view_as(b) + 1), observed="left.weight")
case("reshape_as", lambda: Joined(lambda a, b: a.reshape_as(b) + 1), observed="left.weight")
around("flatten", lambda x, head: head(x.flatten(1)), reads=None, head=nn.Linear(512, 5))
around("flatten", lambda x, head: head(x.flatten(2).mean(2)), "image", reads=None, head=nn.Linear(8, 5))
around("flatten", lambda x: x.flatten(0, 1).unsqueeze(0), "into the batch", reads=None, prunes="")
around("unflatten", lambda x: x.unflatten(1, (2, 4)).sum(1), reads=4, prunes="M2")
around("unflatten", lambda x: x.unflatten(1, (-1, 4)).sum(2), "inner", reads=2, prunes="M2")
around("permute", lambda x, head: head(x.permute(0, 2, 3, 1)), reads=None, head=nn.Linear(8, 5))
around("permute", lambda x: torch.permute(x, (0, 1, 3, 2)), "image")
around("transpose", lambda x, head: head(x.transpose(1, 3)), reads=None, head=nn.Linear(8, 5))
around("transpose", lambda x: x.transpose(-1, 2), "image")
around("swapaxes", lambda x: A.swapaxes(x, 2, 3))
around("swapdims", lambda x: A.swapdims(x, 2, 3))
around("movedim", lambda x, head: head(x.movedim(1, -1)), reads=None, head=nn.Linear(8, 5))
around("movedim", lambda x: x.movedim((2, 3), (3, 2)), "two")
around("moveaxis", lambda x: A.moveaxis(x, [2], [3]))
case("t", lambda: Features(lambda x: x.t().relu().t()), (3, 6))
around("mT", lambda x: x.mT)
around("mH", lambda x: x.mH)
around("adjoint", lambda x: x.adjoint())
case("numpy_T", lambda: Features(lambda x: A.numpy_T(A.numpy_T(x).relu())), (3, 6))
around("unsqueeze", lambda x: x.unsqueeze(2).relu().squeeze(2))
around("squeeze", lambda x, head: head(x.mean((2, 3), keepdim=True).squeeze()), "all", reads=None, head=nn.Linear(8, 5))
around("squeeze", lambda x, head: head(x.mean((2, 3), True).squeeze((2, 3))), "two", reads=None, head=nn.Linear(8, 5))
around("expand", lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8))
around("expand", lambda x: x.mean((2, 3), keepdim=True).expand(2, 8, 8, 8), "literal")
case("expand_as", lambda: Joined(lambda a, b: a.mean((2, 3), True).expand_as(b) + 1), observed="left.weight")
around("broadcast_to", lambda x: A.broadcast_to(x.mean((2, 3), keepdim=True), [2, 8, 4, 4]))

# Picking ----------------------------------------------------------------------------------------------------------

around("slice", lambda x: x[:, 2:7], reads=5)
around("slice", lambda x: x[:, 1::3], "step", reads=3)
around("slice", lambda x: x[:, -3:], "from the end", reads=3)
around("slice", lambda x: x[:, :, 1:, ::2], "image")
around("slice", lambda x: torch.cat([x[:, 4:], x[:, :4]], 1), "swap")
around("narrow", lambda x: x.narrow(1, 3, 4), reads=4)


class Indexed(nn.Module):
    """Channels picked by a stored table."""

    def __init__(self, table: list[int]) -> None:
        super().__init__()
        self.before, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.after = nn.Conv2d(len(table), 4, 3, padding=1)
        self.register_buffer("table", torch.tensor(table))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.norm(self.before(x)).index_select(1, self.table))


case("index_select", lambda: Indexed([7, 3, 1, 0, 2, 4, 6, 5]), label="permutation")
case("index_select", lambda: Indexed([2, 2, 5, 1]), label="repeated")
around("roll", lambda x: x.roll(3, 2), "image")
around("roll", lambda x: x.roll(3, 1), "channels", prunes="")
around("roll", lambda x: x.roll((1, 2), (2, 3)), "two axes")
around("flip", lambda x: x.flip(3), "image")
around("flip", lambda x: x.flip(1), "channels", prunes="")
around("repeat", lambda x: x.repeat(1, 2, 1, 1), reads=16)
around("repeat", lambda x: x.repeat(1, 1, 2, 1), "image")
around("tile", lambda x: A.tile(x, [2, 1, 1]), reads=16)
around("repeat_interleave", lambda x: x.repeat_interleave(2, 1), reads=16)
around("repeat_interleave", lambda x: x.repeat_interleave(2, 3), "image")
around("select", lambda x, head: head(x[:, :, 3]), reads=None, head=nn.Conv1d(8, 4, 3))
around("select", lambda x: x[:, 3], "channel", reads=None, prunes="")
case("index", lambda: Biased(), (2, 5, 6))


class Biased(nn.Module):
    """Rows of a table, picked by a stored square of positions, added to features."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(6, 8), nn.Linear(8, 4)
        self.table = nn.Parameter(torch.randn(7, 8))
        self.register_buffer("rows", torch.arange(5) % 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.relu(self.before(x)) * self.table[self.rows])


# Writing at indices -----------------------------------------------------------------------------------------------

ROWS, DIAGONAL = torch.tensor([6, 0, 3, 0]), torch.eye(8) > 0


def at_rows(name: str, write: Callable[[Tensor, int, Tensor, Tensor], Tensor], prunes: str) -> None:
    """Writes along the image and along channels: what is written is computed beside, or a part of what is there."""
    joined(name, lambda a, b: write(a, 2, ROWS, b[:, :, 2:6]), "image", prunes="M2")
    joined(name, lambda a, b: write(a, 1, ROWS, b[:, 2:6]), "channels", prunes="")
    around(name, lambda x: write(x, -1, ROWS, x[..., :4]), "itself", prunes=prunes)


at_rows("index_add", lambda x, dim, rows, y: x.index_add(dim, rows, y, alpha=0.5), "M2")
at_rows("index_copy", lambda x, dim, rows, y: x.index_copy(dim, rows, y), "M1 M2")
around("index_fill", lambda x: x.index_fill(3, ROWS, 0.0), "image", prunes="M2")
around("index_fill", lambda x: A.index_fill(x, 2, ROWS, torch.tensor(0.3, dtype=x.dtype)), "a tensor", prunes="")
around("index_fill", lambda x: x.index_fill(1, ROWS, 0.0), "channels", prunes="")


def places(x: Tensor, *sizes: int) -> Tensor:
    """Rows of an image, spread over channels and columns."""
    return ROWS[: sizes[-2]].reshape(1, 1, -1, 1).expand(x.shape[0], x.shape[1], *sizes[-2:])


joined("scatter", lambda a, b: a.scatter(2, places(a, 4, 8), b), "image", prunes="M2")
joined("scatter", lambda a, b: a.scatter(2, places(a, 4, 5), b), "a corner of the image", prunes="M2")
joined("scatter", lambda a, b: a.scatter(2, places(a, 4, 8)[:, :5], b), "a corner of the channels", prunes="")
joined("scatter", lambda a, b: a.scatter(1, places(a, 4, 8), b), "channels", prunes="")
around("scatter", lambda x: x.scatter(2, places(x, 3, 8), 0.0), "a number", prunes="M2")
around("scatter", lambda x: x.scatter(2, places(x, 3, 8), x, reduce="add"), "a sum", prunes="M2")
around("scatter", lambda x: x.scatter(2, places(x, 3, 8), 2.0, reduce="multiply"), "a product", prunes="")
around("scatter", lambda x: x.scatter(3, places(x, 3, 8).mT, x.flip(3)), "itself")
around("scatter", lambda x: x.scatter(2, x.argmax(2, keepdim=True), 0.0), "where it is largest", prunes="M2")
joined("scatter_add", lambda a, b: a.scatter_add(1, places(a, 4, 8), b), "channels", prunes="")
joined("scatter_add", lambda a, b: a.scatter_add(2, places(a, 4, 8), b), "image", prunes="M2")
for reduce in ("sum", "prod", "mean", "amax", "amin"):
    joined(
        "scatter_reduce",
        lambda a, b, reduce=reduce: a.scatter_reduce(2, places(a, 4, 8), b, reduce, include_self=False),  # type: ignore[misc]
        reduce,
        prunes="M2",
    )
around("scatter_reduce", lambda x: x.scatter_reduce(2, places(x, 4, 8), x, "amax"), "largest of itself")
joined("index_put", lambda a, b: A.index_put(a, [None, None, ROWS], b[:, :, :4]), "image", prunes="M2")
joined("index_put", lambda a, b: A.index_put(a, [None, None, ROWS, ROWS], b[..., 0, :4], True), "pairs", prunes="M2")
joined("index_put", lambda a, b: A.index_put(a, [None, ROWS], b[:, :4]), "channels", prunes="")
joined(
    "index_put",
    lambda a, b: A.index_put(a, [None, None, ROWS[:2, None], ROWS[:3]], b[:, :, :2, :3]),
    "square",
    prunes="M2",
)
around("index_put", lambda x: A.index_put(x, [None, None, ROWS], x[:, :, :1, :1]), "spread")
around("index_put", lambda x: A.index_put(x, [x > 0.3], x.new_zeros(())), "a mask of everything", prunes="M2")
around("index_put", lambda x: A.index_put(x, [None, None, DIAGONAL], x[..., 0, :1]), "a mask of the image")
around("index_put", lambda x: A.index_put(x, [None, None, DIAGONAL[0], DIAGONAL[1]], x[..., 0, :1]), "two masks")
parted = lambda x: A.index_put(x, [ROWS[1:2], None, ROWS], x[0, :, :4].transpose(0, 1))  # noqa: E731
around("index_put", parted, "indices that are parted")
around("index", lambda x: A.index(x, [ROWS[1:2], None, ROWS]).transpose(0, 1)[None], "indices that are parted")


# Fourier transforms and complex numbers ---------------------------------------------------------------------------

joined("atan2", lambda a, b: torch.atan2(a, b), prunes="M1")  # At two zeros their signs decide.
joined("atan2", lambda a, b: torch.atan2(a, positive(b)), "to the right")

WINDOW = torch.hamming_window(8, dtype=torch.float64)
FT = torch.fft


def spectral(names: str, inner: Callable[[Tensor], Tensor], label: str = "", prunes: str = "M2") -> None:
    """A network for several operators: over the image, zeros stay zero."""
    for name in names.split():
        around(name, inner, label or name, prunes=prunes)


def short(x: Tensor) -> Tensor:
    """Rows of channels there and back; of one image, so that its channels are merged with nothing."""
    window = WINDOW.to(x.dtype)
    rows = torch.stft(x[0].flatten(1), 8, 4, window=window, return_complex=True)
    back: Tensor = torch.istft(rows * 2, 8, 4, window=window)
    return back.view(1, -1, 8, 8)


spectral("fft_fft", lambda x: FT.fft(x, dim=1).real, "channels", prunes="")
spectral("fft_fft fft_ifft real", lambda x: FT.ifft(FT.fft(x, dim=2) * (1 + 2j), n=8, dim=-2, norm="ortho").real)
spectral("fft_rfft fft_irfft", lambda x: FT.irfft(FT.rfft(x, n=10, norm="forward"), n=8))
spectral("fft_hfft fft_ihfft", lambda x: FT.hfft(FT.ihfft(x), n=8))
spectral("fft_fft2 fft_ifft2 imag", lambda x: FT.ifft2(FT.fft2(x) * 1j).imag)
spectral("fft_rfft2 fft_irfft2", lambda x: FT.irfft2(FT.rfft2(x), s=(8, 8)))
spectral("fft_fftn fft_ifftn", lambda x: FT.ifftn(FT.fftn(x, s=(8, 8)), dim=(-1, 0)).abs())
spectral("fft_rfftn fft_irfftn", lambda x: FT.irfftn(FT.rfftn(x, dim=(2, 3)), s=(8, 8)))
spectral("fft_fftshift fft_ifftshift", lambda x: FT.ifftshift(FT.fftshift(x, dim=-1), dim=(2, 3)), prunes="M1 M2")
spectral("fft_fftshift", lambda x: FT.fftshift(x), "channels", prunes="")
spectral("stft istft", short)
spectral(
    "view_as_real view_as_complex", lambda x: torch.view_as_real(torch.view_as_complex(torch.stack([x, x], -1)))[..., 1]
)
spectral("complex sgn", lambda x: torch.view_as_real(torch.complex(x, x.relu()).sgn())[..., 0], prunes="M1 M2")
spectral("complex", lambda x: torch.complex(x, torch.zeros_like(x)).exp().real, "real", prunes="M1 M2")
spectral("polar", lambda x: torch.polar(x, x * 3).imag)
spectral("angle", lambda x: torch.complex(x, x.cos() + 2).angle(), prunes="")
spectral("_conj resolve_conj", lambda x: FT.rfft(x).conj().resolve_conj().abs()[..., [0, 1, 2, 3, 4, 1, 2, 3]])
spectral("conj conj_physical", lambda x: A.conj(A.conj_physical(torch.complex(x, x * 0))).real, prunes="M1 M2")
spectral("resolve_neg", lambda x: A.resolve_neg(torch.complex(x, x).conj().imag))


class Remembering(nn.Module):
    """Adds what the call before saw, which is 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.after = nn.Conv2d(8, 4, 3, padding=1)
        self.register_buffer("seen", torch.zeros(2, 8, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.before(x))
        y = x + self.seen
        self.seen.copy_(x)
        return self.after(y)


case("copy_", Remembering, prunes="M2")
around("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), width=16, reads=4, prunes="M2")
around("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), reads=32)
around("im2col", lambda x: F.unfold(x, 3).reshape(2, 72, 6, 6), reads=72)
around("im2col", lambda x: F.unfold(x, 3, padding=1).reshape(2, 72, 8, 8), "padded", reads=72, prunes="M2")
around(
    "im2col", lambda x: F.unfold(x, 3, 1, 1).view(2, 8, 9, 64).amax(2).view(2, 8, 8, 8), "one of a window", prunes="M2"
)
around("im2col", lambda x: F.unfold(x[0], (2, 3), dilation=2, stride=(2, 1)).view(48, 3, 4), "no batch", reads=48)
around("col2im", lambda x: F.fold(x.flatten(2), (9, 9), 2), reads=2, prunes="M2")
around(
    "col2im",
    lambda x: F.fold(x[0].flatten(1), (8, 8), (2, 1), 2, (1, 0)),
    "no batch",
    reads=4,
    prunes="M2",
)
around("col2im", lambda x: F.fold(F.unfold(x, 3, padding=1), (8, 8), 3, padding=1), "there and back", prunes="M2")
around("unfold", lambda x: x.unfold(2, 3, 2).unfold(3, 2, 2).sum((-1, -2)), "image", prunes="M2")
around("unfold", lambda x: x.unfold(2, 4, 4).flatten(3), "rows side by side")
around("unfold", lambda x: x.unfold(1, 3, 1).amax(-1), "channels", reads=6, prunes="")

# Reductions -------------------------------------------------------------------------------------------------------

for name, call in called(torch, "sum nansum mean nanmean amax amin"):
    around(
        name,
        lambda x, head, call=call: head(call(x, (2, 3))),
        "image",
        reads=None,
        head=nn.Linear(8, 5),
        prunes="M2" if "sum" in name else "M1 M2",
    )
    around(
        name,
        lambda x, call=call: call(torch.sigmoid(x), 1, keepdim=True),
        "channels",
        reads=1,
        prunes="M1 M2" if name == "mean" else "",
    )
around("sum", lambda x: x.relu().sum(1, keepdim=True), "channels after relu", reads=1)
around("sum", lambda x: x.relu().sum(), "everything", reads=None)
around("mean", lambda x: x.relu().mean(), "everything", reads=None)
around("mean", lambda x: x.relu().mean((1, 2), dtype=torch.float64), "channels and image", reads=None)
around("mean", lambda x: x.relu().mean(1) + x.sigmoid().mean(1), "constants too", reads=None)


def root_mean_square(x: Tensor, dim: int = -1) -> Tensor:
    """RMS normalisation, spelled out."""
    return x * torch.rsqrt(x.pow(2).mean(dim, keepdim=True) + 1e-6)


case("mean", lambda: Features(root_mean_square), TOKENS, label="RMS normalisation", prunes="M2")
around("mean", lambda x: root_mean_square(x.relu(), 1), "RMS normalisation of images")
around("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x.relu(), dim=1, keepdim=True), reads=1)
around("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True), "image", prunes="M2")
around(
    "linalg_vector_norm",
    lambda x: torch.linalg.vector_norm(x.relu(), 0, dim=1, keepdim=True),
    "count",
    reads=1,
    prunes="",
)
around("norm", lambda x: A.norm(x.relu(), 2, [1], True), reads=1)
around("any", lambda x: A.any((x > 0.5), 1, True).to(x.dtype), reads=1, prunes="")
around("all", lambda x: A.all((x > -0.5), 3, True).to(x.dtype), "image", prunes="")
for name, call in called(torch, "max min"):
    around(name, lambda x, call=call: call(x, 3).values, "image", reads=None, prunes="")
    around(name, lambda x, call=call: call(x, 3, keepdim=True).values, "image, read")
    around(name, lambda x, call=call: call(x, 1).values, "channels", reads=None, prunes="")
    around(name, lambda x, call=call: call(x), "everything", reads=None, prunes="")
for name, call in called(torch, "argmax argmin"):
    around(name, lambda x, call=call: call(x, 1, keepdim=True).to(x.dtype), "channels", reads=1, prunes="")
    around(name, lambda x, call=call: call(x, 3, keepdim=True).to(x.dtype), "image", prunes="")
for name, call in called(torch, "var std"):
    around(name, lambda x, call=call: call(x, (2, 3), keepdim=True), "image", prunes="")
    around(name, lambda x, call=call: call(x, 1, keepdim=True), "channels", reads=1, prunes="")
around("prod", lambda x: x.prod(3, keepdim=True), prunes="")
around("logsumexp", lambda x: x.logsumexp((2, 3), keepdim=True), prunes="")
for name, call in called(torch, "var_mean std_mean"):
    around(name, lambda x, call=call: sum(call(x, (2, 3), keepdim=True)), prunes="")
for name, call in {
    "softmax": torch.softmax,
    "log_softmax": torch.log_softmax,
    "_softmax": lambda x, dim: A._softmax(x, dim, False),
    "_log_softmax": lambda x, dim: A._log_softmax(x, dim, False),
    "cumsum": torch.cumsum,
    "cumprod": torch.cumprod,
    "logcumsumexp": torch.logcumsumexp,
}.items():
    around(name, lambda x, call=call: call(x, 3), "image", prunes="M2" if name in ("cumsum", "cumprod") else "")
    around(name, lambda x, call=call: call(x, 1), "channels", prunes="")
for name, call in called(torch, "cummax cummin"):
    around(name, lambda x, call=call: call(x, 1).values, "channels", prunes="")
    around(name, lambda x, call=call: call(x, 2).indices.to(x.dtype), "places", prunes="")
    around(name, lambda x, call=call: call(x, 3).values, "image")

# Products of computed tensors -------------------------------------------------------------------------------------


def tokens(name: str, inner: Callable[..., Any], label: str = "", **options: Any) -> None:
    """A case of `Between`: query, key and value from linear layers."""
    own = {key: options.pop(key) for key in ("prunes", "observed", "axis") if key in options}
    case(name, lambda: Between(inner, **options), TOKENS, label, **{"observed": "value.weight", **own})


def heads(x: Tensor, count: int) -> Tensor:
    """(batch, tokens, channels) as (batch, heads, tokens, channels a head), sizes written out as in real models."""
    return x.reshape(2, 5, count, x.shape[-1] // count).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    """The inverse of `heads`."""
    return x.transpose(1, 2).reshape(2, 5, x.shape[1] * x.shape[3])


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention written with matrix products."""
    scores = torch.matmul(heads(q, 4), heads(k, 4).transpose(-1, -2)) / 2.0
    return merged(torch.matmul(scores.softmax(-1), heads(v, 4)))


tokens("matmul", attention, "attention")
tokens("matmul", lambda q, k, v: torch.matmul(torch.relu(q).transpose(1, 2), v), "features by features", prunes="M2")
tokens("matmul", lambda q, k, v: torch.matmul(v.relu(), k.relu().transpose(1, 2)), "tokens by tokens", reads=5)
tokens("matmul", lambda q, k, v: torch.matmul(v.relu(), k[0, 0].relu()), "by a vector", reads=5)
tokens("bmm", lambda q, k, v: torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v))
tokens("bmm", lambda q, k, v: torch.bmm(torch.bmm(q.relu(), k.relu().transpose(1, 2)), v.relu()), "linear attention")
case(
    "mm", lambda: Between(lambda q, k, v: torch.mm(torch.mm(q, k.t()).softmax(-1), v)), (5, 6), observed="value.weight"
)
case("mv", lambda: Between(lambda q, k, v: torch.mv(v.relu(), k[0].relu()), reads=5), (5, 6), observed="value.weight")
tokens("einsum", lambda q, k, v: torch.einsum("bqc,bkc->bqk", v.relu(), k.relu()), reads=5)
tokens(
    "einsum",
    lambda q, k, v: torch.einsum("bqk,bkc->bqc", torch.einsum("bqc, bkc -> bqk", q, k).softmax(-1), v),
    "attention",
)
tokens("einsum", lambda q, k, v: torch.einsum("bqc->bcq", v), "one operand", reads=5, prunes="")
tokens("einsum", lambda q, k, v: torch.einsum("bqc,bqc,bqc->bqc", q, k, v), "three operands", prunes="")
tokens(
    "scaled_dot_product_attention",
    lambda q, k, v: merged(F.scaled_dot_product_attention(*(heads(t, 4) for t in (q, k, v)))),
)
tokens(
    "scaled_dot_product_attention",
    lambda q, k, v: merged(F.scaled_dot_product_attention(*(heads(t, 4) for t in (q, k, v)), is_causal=True)),
    "causal",
)
tokens(
    "scaled_dot_product_attention",
    lambda q, k, v: merged(F.scaled_dot_product_attention(heads(q, 4), heads(k, 2), heads(v, 2), enable_gqa=True)),
    "grouped queries",
    narrow=4,
)
tokens(
    "scaled_dot_product_attention",
    lambda q, k, v: merged(
        F.scaled_dot_product_attention(heads(q, 4), heads(k, 4), heads(v, 4), attn_mask=torch.ones(5, 5).tril().bool())
    ),
    "mask",
)
tokens(
    "scaled_dot_product_attention",
    lambda q, k, v: merged(
        F.scaled_dot_product_attention(
            *(heads(t, 4) for t in (q, k, v)), attn_mask=torch.linspace(-1, 1, 100, dtype=q.dtype).reshape(4, 5, 5)
        )
    ),
    "mask for each head",
)
tokens(
    "scaled_dot_product_attention",
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(5, 5).tril().bool())[:, 2:],
    "mask, first queries not read",
)
tokens(
    "scaled_dot_product_attention",
    lambda q, k, v: F.scaled_dot_product_attention(torch.cos(k[:1, :1] * 0 + q[:1] * 0), k, v, is_causal=True)[:, 2:],
    "causal, first queries not read",
)

# Made on the spot -------------------------------------------------------------------------------------------------

around("zeros", lambda x: torch.cat([x, torch.zeros(2, 3, 8, 8, dtype=x.dtype)], 1), reads=11)
around("ones", lambda x: torch.cat([x, torch.ones(2, 3, 8, 8, dtype=x.dtype)], 1), reads=11)
around("ones", lambda x: x + torch.ones(1, 8, 1, 1, dtype=x.dtype), "added")
around("full", lambda x: x * torch.full((1, 8, 1, 1), 0.3, dtype=x.dtype))
around("new_zeros", lambda x: x + x.new_zeros(2, 8, 8, 8))
around("new_ones", lambda x: torch.cat([x, x.new_ones(2, 2, 8, 8)], 1), reads=10)
around("new_full", lambda x: torch.cat([x, x.new_full((2, 2, 8, 8), 0.3)], 1), reads=10)
around("zeros_like", lambda x: torch.maximum(x, torch.zeros_like(x)))
around("ones_like", lambda x: x + torch.ones_like(x))
around("full_like", lambda x: torch.maximum(x, torch.full_like(x, 0.2)))

# Recurrent layers and cells: input features fold into biases; a unit that is zero forever goes --------------------


def recurrent(name: str, layer: Callable[..., nn.Module]) -> None:
    """A layer with a state, with one or two layers and directions."""
    for directions in (1, 2):
        for layers in (1, 2):

            def build(directions: int = directions, layers: int = layers) -> nn.Module:
                made = layer(8, 8, num_layers=layers, bidirectional=directions == 2, batch_first=True)
                return Features(lambda x, layer: layer(x)[0], reads=8 * directions, layer=made)

            label = f"{layers}-layers-{directions}-directions"
            case(name, build, STEPS, label=label)
            units = "parts.layer.weight_hh_l0"
            case(name, build, STEPS, label=f"{label}-units", prunes="M2", observed=units)
            case(name, build, STEPS, label=f"{label}-states", prunes="M2", observed=units, axis=1)


recurrent("gru", nn.GRU)
recurrent("lstm", nn.LSTM)
recurrent("rnn_tanh", nn.RNN)
recurrent("rnn_relu", lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options))
case(
    "gru",
    lambda: Features(lambda x, layer: layer(x)[0], layer=nn.GRU(8, 8, bias=False, batch_first=True)),
    STEPS,
    label="without-biases",
    observed="parts.layer.weight_hh_l0",
)
case(
    "lstm",
    lambda: Features(lambda x, layer: torch.cat([part[-1] for part in layer(x)[1]], 1), reads=16, layer=nn.LSTM(8, 8)),
    STEPS,
    label="last-states",
    prunes="M2",
    observed="parts.layer.weight_hh_l0",
)
for directions in (1, 2):
    for layers in (1, 2):

        def projected(directions: int = directions, layers: int = layers) -> nn.Module:
            made = nn.LSTM(8, 10, layers, bidirectional=directions == 2, batch_first=True, proj_size=6)
            return Features(lambda x, layer: layer(x)[0], reads=6 * directions, layer=made)

        label = f"projected-{layers}-layers-{directions}-directions"
        case("lstm", projected, STEPS, label=label)
        units = {"observed": "parts.layer.weight_hh_l0", "prunes": "M2"}
        case("lstm", projected, STEPS, label=f"{label}-units", **units)
        case("lstm", projected, STEPS, label=f"{label}-projections", observed="parts.layer.weight_hr_l0")


class Steps(nn.Module):
    """A cell that runs through a sequence in a loop, after a layer and before another."""

    def __init__(self, cell: nn.Module, remembers: bool = True) -> None:
        super().__init__()
        self.before, self.cell, self.after = nn.Linear(6, 8), cell, nn.Linear(8, 4)
        self.remembers = remembers

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in self.before(x).unbind(1):
            state = self.cell(step, state if self.remembers else None)
        assert state is not None
        return self.after(state[0] if isinstance(state, tuple) else state)


for name, cell in {
    "gru_cell": nn.GRUCell,
    "lstm_cell": nn.LSTMCell,
    "rnn_tanh_cell": nn.RNNCell,
    "rnn_relu_cell": lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options),
}.items():

    def stepping(cell: Any = cell, **options: Any) -> nn.Module:
        return Steps(cell(8, 8, **options))

    case(name, stepping, STEPS, label="features")
    case(name, stepping, STEPS, label="units", prunes="M2", observed="cell.weight_hh")
    case(name, stepping, STEPS, label="states", prunes="M2", observed="cell.weight_hh", axis=1)
    case(
        name,
        lambda stepping=stepping: stepping(bias=False),  # type: ignore[misc]
        STEPS,
        label="no biases",
        observed="cell.weight_hh",
    )
    case(name, lambda cell=cell: Steps(cell(8, 8), False), STEPS, label="forgetful")  # type: ignore[misc]


def own_operators() -> set[str]:
    """Operators this package has rules for; other tests of the same process may have registered more."""
    return {name for name, rule in registered().items() if type(rule).__module__.startswith("reconvene.")}

"""Calls whose arguments an importer can misread, on one image. ``FUNCTIONS`` are compiled, ``REFUSED`` are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, tensor
from torch.nn import functional as F

__all__ = ["FUNCTIONS", "IMAGE", "REFUSED"]

IMAGE = torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(0))

Function = Callable[[Tensor], Tensor]


def ramp(*shape: int, scale: float = 0.01) -> Tensor:
    """Weights that are all different."""
    return scale * torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def points(*extents: int) -> Tensor:
    """A grid to sample at, with some points outside of the image."""
    lines = [torch.linspace(-1.2, 1.1, extent) for extent in extents]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)[None].expand(2, -1, -1, -1)


POSITIONS: dict[str, Function] = {
    "the last": lambda x: x[-1],
    "one from the end": lambda x: x[:, -2],
    "the last along the last axis": lambda x: x[..., -1],
    "indices from the end": lambda x: x[:, tensor([0, -1, 3])],
    "pairs of indices from the end": lambda x: x[tensor([0, -1]), tensor([1, -2])],
    "a matrix of indices": lambda x: x[:, :, tensor([[0, -1], [2, 3]])],
    "found indices from the end": lambda x: torch.arange(10.0)[x.argmax(-1) - 10],
    "index_select": lambda x: x.index_select(1, tensor([0, 5, 2])),
    "narrow from the end": lambda x: x.narrow(1, -3, 2),
    "roll": lambda x: x.roll(-3, 2),
    "roll two axes": lambda x: x.roll((1, -2), (2, 3)),
    "roll all": lambda x: x.roll(5),
    "flip": lambda x: x.flip(-1, 1),
    "slices with steps": lambda x: x[:, 1:-1:2, ::3],
    "a slice beyond the end": lambda x: x[:, 2:100],
    "diagonal": lambda x: x.diagonal(-1, 2, 3),
    "diagonal of turned axes": lambda x: x.diagonal(2, -2, -1),
    "unbind": lambda x: torch.stack(x.unbind(-2), 0),
    "parts of given sizes": lambda x: torch.cat(x.split([1, 2, 3], 1)[::-1], 1),
    "a rest": lambda x: torch.cat(x.split(4, 1)[::-1], 1),
    "chunks": lambda x: torch.cat(x.chunk(4, -1)[::-1], -1),
    "tensor_split": lambda x: torch.cat(torch.tensor_split(x, 4, -1)[::-1], -1),
    "gather": lambda x: x.gather(-1, x.argsort(-1)),
    "embedding": lambda x: F.embedding(x.argmax(-1), ramp(10, 4)),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 1),
    "lower triangle": lambda x: x.tril(-1),
    "upper triangle": lambda x: x.triu(2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x[:, :4], 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 3),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "movedim": lambda x: x.movedim(1, -1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "one_hot": lambda x: F.one_hot(x.argmax(-1), 10),
    "pad by reflection": lambda x: F.pad(x, (1, 2, 3, 1), "reflect"),
    "pad by copies": lambda x: F.pad(x, (1, 2, 3, 1), "replicate"),
    "pad around": lambda x: F.pad(x, (1, 2, 3, 1), "circular"),
    "pad and crop": lambda x: F.pad(x, (-1, 2, -2, 0)),
    "pad with a value": lambda x: F.pad(x, (1, 1, 0, 2), value=-3.5),
    "pad channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "meshgrid": lambda x: x[0, 0] + sum(torch.meshgrid(torch.arange(10.0), torch.arange(8.0), indexing="xy")),
}

STATISTICS: dict[str, Function] = {
    "cumsum": lambda x: x.cumsum(-2),
    "cumprod": lambda x: x.cumprod(-1),
    "topk": lambda x: x.topk(3, -1)[0],
    "topk of the smallest": lambda x: x.topk(3, 1, largest=False)[0],
    "where topk is": lambda x: x.topk(3, -1)[1],
    "sort": lambda x: x.sort(-1, descending=True)[0],
    "where sort is": lambda x: x.sort(1)[1],
    "argsort": lambda x: x.argsort(-1, descending=True),
    "argmax of all": lambda x: x.argmax(),
    "argmin": lambda x: x.argmin(1, keepdim=True),
    "max": lambda x: x.max(-1)[0],
    "where max is": lambda x: x.max(-1)[1],
    "amax": lambda x: x.amax((1, -1)),
    "amin": lambda x: x.amin(-1, keepdim=True),
    "amax of all": lambda x: x.amax(),
    "median": lambda x: x.median(-1)[0],
    "variance": lambda x: x.var((1, 3)),
    "variance of all": lambda x: x.var(),
    "biased variance": lambda x: x.var(-1, unbiased=False, keepdim=True),
    "deviation": lambda x: x.std((2, 3), correction=0),
    "variance and mean": lambda x: torch.cat(torch.var_mean(x, (2, 3))),
    "norm 1": lambda x: x.norm(1, dim=1),
    "norm 2": lambda x: x.norm(dim=(2, 3)),
    "norm 3": lambda x: x.norm(3),
    "norm of infinity": lambda x: x.norm(float("inf"), dim=-1),
    "normalize": lambda x: F.normalize(x, p=1, dim=-1),
    "cosine": lambda x: F.cosine_similarity(x, x + 1, dim=1),
    "logsumexp": lambda x: x.logsumexp((2, 3)),
    "bucketize": lambda x: torch.bucketize(x, tensor([-1.0, 0.0, 1.0])),
    "bucketize right": lambda x: torch.bucketize(x.round(), tensor([-1.0, 0.0, 1.0]), right=True),
    "product": lambda x: x.prod(1),
    "any": lambda x: (x > 2).any(1),
    "all": lambda x: (x > -2).all(-1),
}

ALGEBRA: dict[str, Function] = {
    "baddbmm": lambda x: torch.baddbmm(x[:, 0, :, :8], x[:, 1], x[:, 2].transpose(1, 2), beta=0.5, alpha=2.0),
    "addmm": lambda x: torch.addmm(x[0, 0, :, :8], x[0, 1], x[0, 2].t(), beta=0.3, alpha=1.7),
    "addcmul": lambda x: torch.addcmul(x, x, x + 1, value=0.3),
    "addcdiv": lambda x: torch.addcdiv(x, x, x * x + 1, value=0.3),
    "lerp": lambda x: torch.lerp(x, x + 1, 0.3),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "matrix and vector": lambda x: x @ ramp(10),
    "cross": lambda x: torch.cross(x[:, :3], x[:, 3:], dim=1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x + 1, x - 1, scale=0.3),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x + 1, x - 1, is_causal=True),
    "attention with a bias": lambda x: F.scaled_dot_product_attention(x, x + 1, x - 1, attn_mask=ramp(8, 8)),
    "group_norm": lambda x: F.group_norm(x, 2, ramp(6), torch.ones(6), eps=0.1),
    "group_norm alone": lambda x: F.group_norm(x, 3),
    "instance_norm": lambda x: F.instance_norm(x, weight=ramp(6), bias=torch.ones(6)),
    "layer_norm": lambda x: F.layer_norm(x, (10,)),
    "layer_norm over three axes": lambda x: F.layer_norm(x, (6, 8, 10)),
    "layer_norm with weights over two axes": lambda x: F.layer_norm(x, (8, 10), ramp(8, 10), ramp(8, 10)),
    "rms_norm": lambda x: F.rms_norm(x, (10,), ramp(10)),
    "batch_norm of the batch": lambda x: F.batch_norm(x, None, None, training=True),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "grouped convolution": lambda x: F.conv2d(x, ramp(6, 3, 3, 3), groups=2, padding=1),
    "dilated convolution": lambda x: F.conv2d(x, ramp(4, 6, 3, 3), dilation=2, padding=(2, 1)),
    "convolution with stride": lambda x: F.conv2d(x, ramp(4, 6, 2, 3), stride=(2, 1), padding="valid"),
    "same convolution of even size": lambda x: F.conv2d(x, ramp(4, 6, 2, 4), padding="same"),
    "transposed convolution": lambda x: F.conv_transpose2d(x, ramp(6, 4, 3, 3), stride=2, padding=1, output_padding=1),
    "grouped transposed convolution": lambda x: F.conv_transpose2d(x, ramp(6, 2, 3, 3), groups=3, stride=2),
    "dilated transposed convolution": lambda x: F.conv_transpose2d(x, ramp(6, 2, 3, 3), dilation=2),
    "average that rounds up": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average without padding": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "both": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average with a divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "maximum that rounds up": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "dilated maximum": lambda x: F.max_pool2d(x, 2, 2, dilation=2),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, (3, 7)),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, (4, 5)),
    "maximum of unequal windows": lambda x: F.adaptive_max_pool2d(x, (3, 4)),
    "where it is in unequal windows": lambda x: F.adaptive_max_pool2d(x, (3, 4), return_indices=True)[1],
    "lp_pool": lambda x: F.lp_pool2d(x.abs(), 2, 2),
    "sampled": lambda x: F.grid_sample(x, points(5, 6), align_corners=False),
    "nearest samples": lambda x: F.grid_sample(x, points(5, 6), mode="nearest", align_corners=True),
    "reflected samples": lambda x: F.grid_sample(x, points(5, 6), padding_mode="reflection", align_corners=False),
    "nearest to a size": lambda x: F.interpolate(x, (5, 13)),
    "nearest by a fraction": lambda x: F.interpolate(x, scale_factor=1.7),
    "nearest of bytes": lambda x: F.interpolate((x.abs() * 50).to(torch.uint8), (300, 13)),
    "exactly nearest": lambda x: F.interpolate(x, (5, 13), mode="nearest-exact"),
    "bilinear to a size": lambda x: F.interpolate(x, (5, 13), mode="bilinear"),
    "bilinear by a fraction": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bilinear between corners": lambda x: F.interpolate(x, (5, 13), mode="bilinear", align_corners=True),
    "bicubic": lambda x: F.interpolate(x, (5, 13), mode="bicubic"),
    "bicubic between corners": lambda x: F.interpolate(x, (5, 13), mode="bicubic", align_corners=True),
    "linear": lambda x: F.interpolate(x[0], 7, mode="linear"),
    "trilinear": lambda x: F.interpolate(x[None], (3, 9, 4), mode="trilinear"),
    "area": lambda x: F.interpolate(x, (4, 3), mode="area"),
}

FUNCTION_BY_FUNCTION: dict[str, Function] = {
    "threshold": lambda x: F.threshold(x, 0.3, -2.0),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.7),
    "hardshrink": lambda x: F.hardshrink(x, 0.3),
    "softshrink": lambda x: F.softshrink(x, 0.3),
    "softplus": lambda x: F.softplus(x, 2.0, 0.5),
    "prelu": lambda x: F.prelu(x, ramp(6, scale=0.1)),
    "elu": lambda x: F.elu(x, 0.5),
    "celu": lambda x: F.celu(x, 0.5),
    "selu": F.selu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "glu": lambda x: F.glu(x, 1),
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "round": lambda x: torch.round(x * 5),
    "round halves": lambda x: torch.round(torch.arange(-2.5, 3.0) + 0 * x[0, 0, 0, :6]),
    "round decimals": lambda x: x.round(decimals=2),
    "nan_to_num": lambda x: torch.nan_to_num(x / (x > 0)),
    "masked_fill": lambda x: x.masked_fill(x > 0, -1.5),
    "where": lambda x: torch.where(x > 0, 1.0, x),
    "xlogy": lambda x: torch.xlogy(x, x * x),
    "atan2": lambda x: torch.atan2(x, x + 1),
    "log2": lambda x: torch.log2(x * x + 1),
    "power of a number": lambda x: 2.0**x,
    "negative power": lambda x: (x.abs() + 1) ** -2,
    "power of a tensor": lambda x: x.abs() ** x,
    "to integers": lambda x: (x * 3).int().float(),
    "to half and back": lambda x: x.half().float(),
}

FUNCTIONS: dict[str, Function] = POSITIONS | STATISTICS | ALGEBRA | FUNCTION_BY_FUNCTION

REFUSED: dict[str, Function] = {
    "where maximum pooling found it": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "resized without aliasing": lambda x: F.interpolate(x, (5, 4), mode="bilinear", antialias=True),
    "bytes between others": lambda x: F.interpolate((x.abs() * 50).to(torch.uint8), (5, 13), mode="bilinear"),
    "erfinv": lambda x: torch.erfinv(x.tanh() * 0.9),
    "power of integers": lambda x: 2 ** x.argmax(-1),
}

"""Compiled code computes what PyTorch does for every value: near zero, far out, far from zero, infinite, and NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconvene.backends.compile import compile
from reconvene.backends.importing.decompositions import importable

from ..support.numbers import GRID, UNARY, wrong

BASE = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
NAN, INFINITE = BASE.clone(), BASE.clone()
NAN[0, 1, 2, 3] = NAN[1, 0, 0, 0] = NAN[1, 3, 5, 7] = math.nan
INFINITE[0, 1, 2, 3], INFINITE[1, 0, 0, 0] = math.inf, -math.inf
INFINITE[0, 2], INFINITE[1, :, 1, 2], INFINITE[0, :2, 2, 2:6] = -math.inf, -math.inf, -math.inf
SPREAD = {
    "numbers": BASE,
    "numbers about 1e3": BASE + 1e3,
    "numbers about 1e4": BASE + 1e4,
    "one number": torch.full_like(BASE, 200.3),
    "small numbers": BASE * 1e-20,
}
EVERYTHING = {**SPREAD, "large numbers": BASE * 1e19, "NaN": NAN, "infinities": INFINITE}


@pytest.mark.parametrize("shape", [(1, 8, 2, 7), (2, 7, 8)], ids=["images", "what has no kernel of ours"])
def test_functions_of_single_elements(shape: tuple[int, ...]) -> None:
    assert not wrong(UNARY, torch.randn(shape), {"the grid": GRID.reshape(shape)}, each=True)


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(),
    "sum of channels": lambda x: x.sum(1),
    "mean": lambda x: x.mean(),
    "mean of an image": lambda x: x.mean((2, 3)),
    "mean of rows": lambda x: x.mean(-1, keepdim=True),
    "variance": lambda x: x.var(),
    "variance of channels": lambda x: x.var(1, correction=0),
    "variance and mean": lambda x: torch.var_mean(x, (1, 2))[0],
    "standard deviation": lambda x: x.std(-1, keepdim=True),
    "deviation and mean": lambda x: torch.std_mean(x, -1)[0],
    "length": lambda x: x.norm(),
    "length of rows": lambda x: torch.linalg.vector_norm(x, 1, -1),
    "largest size": lambda x: torch.linalg.vector_norm(x, math.inf, -1),
    "least size": lambda x: torch.linalg.vector_norm(x, -math.inf, -1),
    "softmax": lambda x: x.softmax(-1),
    "softmax of channels": lambda x: x.softmax(1),
    "logarithm of softmax": lambda x: x.log_softmax(-1),
    "logarithm of sums": lambda x: x.logsumexp(-1),
    "largest": lambda x: x.max(),
    "least": lambda x: x.min(),
    "largest of channels": lambda x: x.amax(1),
    "least of rows": lambda x: x.amin(-1),
    "largest and where": lambda x: x.max(1)[0],
    "where it is largest": lambda x: x.max(1)[1],
    "least and where": lambda x: x.min(-1)[0],
    "where it is least": lambda x: x.min(-1)[1],
    "index of the largest": lambda x: x.argmax(1),
    "index of the least": lambda x: x.argmin(1, keepdim=True),
    "index of the largest of all": lambda x: x.argmax(),
    "sums so far": lambda x: x.cumsum(-1),
    "sorted": lambda x: x.sort(-1)[0],
    "sorted channels, downwards": lambda x: x.sort(1, descending=True)[0],
    "order": lambda x: x.sort(dim=-1, stable=True)[1],
    "two largest": lambda x: x.topk(2, 1)[0],
    "two least": lambda x: x.topk(2, largest=False)[0],
    "median": lambda x: x.median(-1)[0],
    "median of numbers": lambda x: x.nanmedian(-1)[0],
    "mean of numbers": lambda x: x.nanmean(-1),
    "third": lambda x: x.kthvalue(3, -1)[0],
    "quantile": lambda x: x.quantile(0.3, dim=-1),
    "maximum pooling": lambda x: F.max_pool2d(x, 2),
    "maximum pooling with padding": lambda x: F.max_pool2d(x, 3, 2, 1),
    "maximum pooling of rows": lambda x: F.max_pool1d(x[0], 3, 1, 1),
    "maximum pooling of volumes": lambda x: F.max_pool3d(x[None], 3, 2, 1),
    "adaptive maximum pooling": lambda x: F.adaptive_max_pool2d(x, 2),
    "adaptive maximum pooling of uneven parts": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "adaptive maximum pooling of rows": lambda x: F.adaptive_max_pool1d(x[0], 3),
    "adaptive maximum pooling of volumes": lambda x: F.adaptive_max_pool3d(x[None], (3, 4, 3)),
    "average pooling": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "largest after rectification": lambda x: torch.relu(x).amax((2, 3)),
}


def test_reductions() -> None:
    assert not wrong(REDUCTIONS, BASE, EVERYTHING, each=False)


def test_long_sums_are_as_exact_as_pytorchs() -> None:
    x = torch.rand(1, 2, 150_001, generator=torch.Generator().manual_seed(0)) + 1000
    sums: dict[str, Callable[[Tensor], Tensor]] = {
        "sum": lambda x: x.sum(-1),
        "mean": lambda x: x.mean(-1),
        "variance": lambda x: x.var(-1),
        "sums so far": lambda x: x.cumsum(-1),
        "mean of an image": lambda x: x[:, :, 1:].reshape(1, 2, 300, 500).mean((2, 3)),
    }
    assert not wrong(sums, x, {"numbers about 1000": x}, each=True)


NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "instance norm": F.instance_norm,
    "instance norm of rows": lambda x: F.instance_norm(x[0]),
    "group norm": lambda x: F.group_norm(x, 2),
    "group norm with weights": lambda x: F.group_norm(x, 2, *torch.linspace(1, 2, 8).to(x.dtype).reshape(2, 4)),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "layer norm of images": lambda x: F.layer_norm(x, x.shape[1:]),
    "batch norm of the batch": lambda x: F.batch_norm(x, None, None, training=True),
    "RMS norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "local response norm": lambda x: F.local_response_norm(x, 3),
    "to length one": lambda x: F.normalize(x, dim=1),
    "cosine similarity": lambda x: F.cosine_similarity(x, x.flip(-1), dim=-1),
    "spelled out": lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt(),
}


@pytest.mark.parametrize("width", [8, 48, 5])
def test_normalizations_far_from_zero(width: int) -> None:
    repeated = {kind: x.repeat(1, 1, 1, 6)[..., :width].contiguous() for kind, x in SPREAD.items()}
    assert not wrong(NORMALIZATIONS, repeated["numbers"], repeated, each=False)


def test_what_is_constant_is_normalized_to_zero() -> None:
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU()).eval()
    built = compile(model, (torch.randn(1, 3, 16, 16),), check=False)
    assert float(built.run(torch.full((1, 3, 16, 16), 200.3)).abs().max()) < 1e-6


class _Moving(nn.Module):
    """Statistics of the batch, which move those that are kept, also in evaluation."""

    def __init__(self, by_image: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.by_image = by_image

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        kept = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return (
            F.instance_norm(x, *kept, use_input_stats=True) if self.by_image else F.batch_norm(x, *kept, training=True)
        )


@pytest.mark.parametrize("by_image", [False, True], ids=["batch norm", "instance norm"])
def test_statistics_of_the_batch_move_those_that_are_kept(by_image: bool) -> None:
    model, x = _Moving(by_image).eval(), BASE * 3 + 5
    program = torch.export.export(model, (x,)).run_decompositions(importable())
    decomposed = program.module()
    with torch.no_grad():
        assert torch.allclose(decomposed(x), model(x), atol=1e-5)
    for name, buffer in decomposed.named_buffers():
        assert torch.allclose(buffer, model.get_buffer(name).to(buffer.dtype), atol=1e-6), name
    assert float((model.norm.running_var - 1).abs().max()) > 0.5


COUNTS: dict[str, Callable[[Tensor], Tensor]] = {
    "how many": lambda x: (x > 0).sum(),
    "how many in a row": lambda x: (x > 0).sum(1, keepdim=True),
    "how many, as a float": lambda x: (x > 0).sum(1, dtype=torch.float32),
    "how many so far": lambda x: (x > 0).cumsum(1),
    "product of bits": lambda x: (x > -3).prod(1),
    "product of all bits": lambda x: (x > -9).prod(),
    "product of bits so far": lambda x: (x > -3).cumprod(1),
    "share": lambda x: (x > 0).float().mean(1),
    "sum of integers": lambda x: x.int().sum(1),
    "sum of integers in their type": lambda x: x.int().sum(1, dtype=torch.int32),
    "sum of small integers": lambda x: (x.int() * 9).to(torch.int8).sum(1),
    "sum of small integers in their type": lambda x: (x.int() * 9).to(torch.int8).sum(1, dtype=torch.int8),
    "sum of bytes": lambda x: (x.abs().int() * 20).to(torch.uint8).sum(),
    "integers so far": lambda x: x.int().cumsum(1),
    "product of integers": lambda x: x.to(torch.int16).prod(1),
    "product of long integers": lambda x: x.long().prod(0),
    "bits added": lambda x: (x > 0) + (x < 1),
    "bits multiplied": lambda x: (x > 0) * (x < 1),
    "larger bit": lambda x: torch.maximum(x > 0, x > 1),
    "smaller bit": lambda x: torch.minimum(x > 0, x > 1),
    "bits and numbers": lambda x: (x > 0) * x + (x > 1),
    "any": lambda x: (x > 2).any(),
    "any of a row": lambda x: (x > 2).any(1),
    "all": lambda x: (x > -9).all(),
    "all of a row": lambda x: (x > 0).all(1, keepdim=True),
    "any integer": lambda x: x.int().any(1),
    "all bytes": lambda x: x.abs().to(torch.uint8).all(1),
    "any number": lambda x: x.any((0, 1)),
    "largest bit": lambda x: (x > 0).amax(1),
    "largest bit and where": lambda x: (x > 0).max(1)[1],
    "least bit": lambda x: (x > 0).min(),
    "least integer": lambda x: torch.where(x > 0, -(2**31), x.int()).int().min(1)[0],
    "sorted bits": lambda x: (x > 0).sort(1)[0],
    "differences": lambda x: x.long().diff(dim=1),
    "how many are not zero": lambda x: x.int().count_nonzero(1),
    "the other bits": lambda x: ~(x > 0),
    "the other integers": lambda x: ~x.int(),
    "shifted to the left": lambda x: x.int() << 3,
    "shifted to the right": lambda x: (x.long() * 100) >> 2,
    "shifted by each other": lambda x: torch.full_like(x, 1, dtype=torch.int32) << x.abs().int(),
    "shifted out": lambda x: (x.int() << 40) + (x.int() >> 40),
}


def test_booleans_and_integers_are_counted_in_pytorchs_types() -> None:
    x = torch.tensor([[-7.0, -5.0, -1.0, 0.0, 1.0, 2.0, 3.0, 6.0], [2.0, 3.0, 8.0, 1.0, 4.0, 0.5, 1.5, 2.5]])
    assert not wrong(COUNTS, x, {"numbers": x, "minus them": -x}, each=True)


@pytest.mark.parametrize("width", [1, 2, 3, 100, 1025])
def test_sorting_is_stable(width: int) -> None:
    x = torch.randint(0, 9, (3, width), generator=torch.Generator().manual_seed(0)).float()
    x[0, width // 2] = math.nan
    orders: dict[str, Callable[[Tensor], Tensor]] = {
        "upwards": lambda x: x.sort(dim=-1, stable=True)[1],
        "downwards": lambda x: x.sort(dim=-1, stable=True, descending=True)[1],
        "columns": lambda x: x.sort(dim=0, stable=True)[1],
        "integers": lambda x: x.nan_to_num().int().sort(dim=-1, stable=True)[0],
    }
    assert not wrong(orders, x, {"digits": x}, each=True)


FUSED = {
    "ReLU": nn.ReLU(),
    "ReLU6": nn.ReLU6(),
    "clamp": nn.Hardtanh(-2, 2),
    "leaky": nn.LeakyReLU(0.1),
    "SiLU": nn.SiLU(),
    "GELU": nn.GELU(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "pooled": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "hard": nn.Sequential(nn.Hardswish(), nn.Hardsigmoid()),
}


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(3, 8, 3), nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, 20, 1)],
    ids=["direct", "depthwise", "pointwise"],
)
def test_nan_comes_through_what_is_fused_into_a_convolution(layer: nn.Module) -> None:
    models = nn.ModuleList([nn.Sequential(layer, activation) for activation in FUSED.values()]).eval()
    functions = {name: (lambda x, model=model: model(x)) for name, model in zip(FUSED, models, strict=True)}
    x = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[0, 1, 4, 4] = math.nan
    built = compile(_Heads(models), (x,), winograd="off", check=False)
    for name, found in zip(functions, built.run(broken), strict=True):
        expected = functions[name](broken)
        assert bool(expected.isnan().any()) and torch.equal(found.isnan(), expected.isnan()), name
        assert torch.allclose(found.nan_to_num(), expected.nan_to_num(), atol=1e-5), name


def test_nan_comes_through_a_rectifier_after_winograds_algorithm() -> None:
    """It is in all outputs of its tile, of which PyTorch's are some."""
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()).eval()
    x = torch.randn(1, 16, 12, 12)
    x[0, 3, 5, 5] = math.nan
    found = compile(model, (torch.randn(1, 16, 12, 12),), winograd="4x4").run(x)
    with torch.no_grad():
        expected = model(x)
    assert bool((found.isnan() | ~expected.isnan()).all())
    assert torch.allclose(found[~found.isnan()], expected[~found.isnan()], atol=1e-4)


class _Heads(nn.Module):
    def __init__(self, models: nn.ModuleList) -> None:
        super().__init__()
        self.models = models

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(model(x) for model in self.models)


class Halves(nn.Module):
    """Arithmetic of float16, with numbers, with each other, and with wider ones."""

    def forward(self, x: Tensor, y: Tensor, wide: Tensor) -> tuple[Tensor, ...]:
        sums = x + y, x - 0.1, x + 2, torch.add(x, y, alpha=3)
        return *sums, x * y, x / 3, x**2, torch.where(x > y, x, y), x.clamp(-0.5, 0.5), x + wide, x > 0.5


def test_float16_stays_float16() -> None:
    x, y = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).half()
    given = (x, y, torch.ones(5))
    built = compile(Halves(), given)
    wanted = Halves()(*given)
    found = tuple(map(torch.as_tensor, built.run(*given)))
    assert [value.dtype for value in found] == [value.dtype for value in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)

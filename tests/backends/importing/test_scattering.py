"""Writing at indices is what PyTorch does, with indices that occur several times, on one thread and on two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, tensor
from torch.nn import functional as F

from reconvene.backends.compile import compile

from ...support.together import Together, differences

NAN, INFINITY = float("nan"), float("inf")


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


IMAGE = numbers(2, 6, 8, 10)
MASK = tensor([True, False, True, True, False, True])
PLACES = tensor([[0, 1, 1], [2, 0, 2]])


def assigned(place: Any, value: Any) -> Callable[[Tensor], Tensor]:
    """``x[place] = value``, where either may be found from x."""

    def call(x: Tensor) -> Tensor:
        found = value(x) if callable(value) else value
        x = x.clone()
        x[place(x) if callable(place) else place] = found
        return x

    return call


def changed(change: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        x = x.clone()
        change(x)
        return x

    return call


ASSIGNMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": assigned(tensor([0, 1]), 0.0),
    "columns by a list": assigned((slice(None), [0, -1]), 5.0),
    "one value for pairs": assigned((0, tensor([1, 1]), 2), 4.0),
    "pairs apart": assigned((tensor([0, 1]), slice(None), tensor([3, -4])), 9.0),
    "a slice with steps": assigned((slice(None), slice(1, 5, 2)), 3.0),
    "a slice from itself": assigned((..., slice(None, None, 3)), lambda x: x[..., 1:5]),
    "a part of a row from another": assigned((slice(None), -1, slice(2, 4)), lambda x: x[:, 0, 2:4]),
    "a row": assigned((slice(None), 0), 1.0),
    "the last": assigned((..., -1), lambda x: x[..., 0]),
    "all at a mask": assigned(lambda x: x > 0, 0.0),
    "channels at a mask": assigned((slice(None), MASK), 7.0),
    "channels at a mask one by one": assigned((slice(None), MASK), lambda x: x[:, :4] * 2),
    "sum at indices": changed(lambda x: x[:, :, tensor([0, 2])].add_(1)),
    "sum in place": changed(lambda x: x.__setitem__(tensor([0]), x[tensor([0])] + 1)),
    "the diagonal": lambda x: x[0, 0, :8, :8].clone().fill_diagonal_(3.0),
    "a diagonal": changed(lambda x: x.diagonal(1, 2, 3).zero_()),
    "a view of a view": changed(lambda x: x[:, 1:].transpose(1, 2)[:, :3].mul_(2)),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, x.flip(0).reshape(-1)),
    "masked_scatter of one mask for all": lambda x: x.masked_scatter(x[0, 0] > 0, x.reshape(-1) * 2),
    "masked_fill": lambda x: x.masked_fill(MASK[:, None, None], 2.0),
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :3] * 2, 1, 1, 6, 2),
    "slice_scatter of nothing": lambda x: torch.slice_scatter(x, x[:, :0], 1, 3, 3),
    "select_scatter": lambda x: torch.select_scatter(x, x[:, 0], 1, -2),
    "diagonal_scatter": lambda x: torch.diagonal_scatter(x, x[:, :, :8, 0], 1, -2, -1),
    "as_strided_scatter": lambda x: torch.as_strided_scatter(x, x[0, 0, :3, :4], (3, 4), (7, 2), 5),
    "bits": lambda x: torch.zeros(2, 5, dtype=torch.bool).scatter(1, PLACES, True) & (x[0, 0, :2, :5] > 0),
    "rows of nothing": lambda x: x.index_add(0, torch.zeros(0, dtype=torch.int64), x[:0]),
}

GIVEN: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "index_put": (lambda x, i, v: x.index_put((i,), v), (numbers(8, 10), tensor([0, 3, -1]), numbers(3, 10))),
    "summed": (
        lambda x, i, v: x.index_put((i,), v, accumulate=True),
        (numbers(8, 10), tensor([0, 0, 3, -1, 0]), numbers(5, 10)),
    ),
    "summed at pairs": (
        lambda x, i, j, v: x.index_put((i, j), v, accumulate=True),
        (IMAGE, tensor([0, 0, 1, -1, 0]), tensor([2, 2, 3, -1, 2]), numbers(5, 8, 10)),
    ),
    "one value summed": (
        lambda x, i: x.index_put((i,), torch.ones((), dtype=x.dtype), accumulate=True),
        (IMAGE, tensor([0, 0, -1])),
    ),
    "pairs by rows and columns": (
        lambda x, i, j, v: torch.ops.aten.index_put(x, [None, i, j], v),
        (IMAGE, tensor([[0], [3]]), tensor([1, -1, 2]), numbers(2, 2, 3, 10)),
    ),
    "pairs that are apart": (
        lambda x, i, v: torch.ops.aten.index_put(x, [None, i, None, i], v),
        (IMAGE, tensor([0, 3]), numbers(2, 2, 8)),
    ),
    "summed at a mask": (lambda x, v: x.index_put((x > 0,), v, accumulate=True), (IMAGE, tensor(3.0))),
    "index_add": (
        lambda x, i, v: x.index_add(1, i, v, alpha=2), (IMAGE, tensor([0, 2, 0]), numbers(2, 3, 8, 10))
    ),
    "index_add of integers": (
        lambda x, i, v: x.index_add(0, i, v), (tensor([1, 2, 3]), tensor([0, 2, 0]), tensor([5, 6, 7]))
    ),
    "index_copy": (lambda x, i, v: x.index_copy(-1, i, v), (IMAGE, tensor([0, 2]), numbers(2, 6, 8, 2))),
    "index_fill": (lambda x, i: x.index_fill(2, i, -1.0), (IMAGE, tensor([0, 2]))),
    "index_reduce": (
        lambda x, i, v: x.index_reduce(1, i, v, "amax"), (IMAGE, tensor([0, 2, 0]), numbers(2, 3, 8, 10))
    ),
    "index_reduce alone": (
        lambda x, i, v: x.index_reduce(1, i, v, "mean", include_self=False),
        (IMAGE, tensor([0, 2, 0]), numbers(2, 3, 8, 10)),
    ),
    "put": (lambda x, i, v: x.put(i, v, accumulate=True), (IMAGE, tensor([0, 0, -1]), numbers(3))),
    "scatter": (lambda x, i, v: x.scatter(0, i[:1], v), (numbers(3, 3), PLACES, numbers(2, 3))),
    "scatter of a number": (lambda x, i: x.scatter(1, i, 3.0), (numbers(2, 5), PLACES)),
    "scatter into a corner": (
        lambda x, i, v: x.scatter(0, i, v), (numbers(3, 7), tensor([[0, 1], [2, 2]]), numbers(2, 4))
    ),
    "scatter into the first rows of all": (
        lambda x, i, v: x.scatter(1, i, v), (numbers(2, 5, 3), PLACES[:, None].expand(2, 1, 3), numbers(2, 4, 3))
    ),
    "scatter with a sum": (
        lambda x, i, v: x.scatter(1, i, v, reduce="add"), (numbers(2, 5), PLACES, numbers(2, 3))
    ),
    "scatter with a product": (lambda x, i: x.scatter(1, i, 2.0, reduce="multiply"), (numbers(2, 5), PLACES)),
    "one hot": (lambda i: torch.zeros(4, 7).scatter_(1, i[:, None], 1.0), (tensor([0, 3, 3, 6]),)),
    "scatter_add": (lambda x, i, v: x.scatter_add(1, i, v), (numbers(2, 5), PLACES, numbers(2, 3))),
    "scatter_add into a corner": (
        lambda x, i, v: x.scatter_add(0, i, v), (numbers(3, 7), PLACES.repeat(2, 1), numbers(5, 4))
    ),
    "scatter_add along the middle": (
        lambda x, i, v: x.scatter_add(1, i, v),
        (numbers(2, 4, 3), tensor([[[0, 1, 1], [0, 0, 0]], [[3, 2, 2], [3, 3, 3]]]), numbers(2, 2, 3)),
    ),
    "messages to nodes": (
        lambda x, source, target: torch.zeros(5, 64, dtype=x.dtype).index_add(0, target, x[source]),
        (numbers(5, 64), tensor([0, 1, 1, 4, 2, 2, 0]), tensor([1, 1, 0, 3, 3, 3, 1])),
    ),
    "mean of integers": (
        lambda x, i, v: x.scatter_reduce(1, i, v, "mean"),
        (torch.arange(10).reshape(2, 5), tensor([[0, 1, 1], [2, 2, 2]]), tensor([[7, -8, 9], [-1, -2, 5]])),
    ),
    "greatest with NaN": (
        lambda x, i, v: x.scatter_reduce(1, i, v, "amax").isnan(),
        (numbers(2, 5), PLACES, tensor([[1.0, NAN, 3.0], [NAN, 1.0, -INFINITY]])),
    ),
    **{
        f"{reduce}, {'with' if included else 'without'} what is there": (
            lambda x, i, v, reduce=reduce, included=included: x.scatter_reduce(1, i, v, reduce, include_self=included),
            (numbers(2, 5), tensor([[0, 1, 1], [2, 2, 2]]), numbers(2, 3) + 1),
        )
        for reduce in ("sum", "prod", "mean", "amax", "amin")
        for included in (True, False)
    },
}  # fmt: skip


def test_what_is_written_is_what_pytorch_writes() -> None:
    cases = {name: (call, (IMAGE,)) for name, call in ASSIGNMENTS.items()} | GIVEN
    assert not differences(cases)


WRITES: list[Callable[..., Tensor]] = [
    lambda x, i, v: x.index_add(0, i, v),
    lambda x, i, v: x.index_put((i,), v),
    lambda x, i, v: x.scatter_add(0, i[:, None].expand(-1, 192), v),
]


def test_several_threads_write_the_same_in_the_same_order() -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(0, 3, (500,), generator=generator)
    values = torch.randn(500, 192, generator=generator) * 10.0 ** torch.randint(-6, 6, (500, 1), generator=generator)
    inputs = (torch.zeros(3, 192), place, values)
    runs = []
    for threads in (1, 2):
        built = compile(Together(WRITES, [3] * 3), inputs * 3, choose="default", threads=threads)
        runs += [built.run(*inputs * 3) for _ in range(3)]
    for run in runs[1:]:
        assert all(torch.equal(first, again) for first, again in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("beyond", [3, -4, 10**12, -(10**12)])
def test_an_index_outside_writes_nothing(beyond: int) -> None:
    inputs = (torch.zeros(3, 192), tensor([0, 1]), torch.ones(2, 192))
    built = compile(Together(WRITES, [3] * 3), inputs * 3, choose="default")
    outside = (torch.zeros(3, 192), tensor([0, beyond]), torch.ones(2, 192))
    for found in built.run(*outside * 3):
        assert torch.equal(found, F.pad(torch.ones(1, 192), (0, 0, 0, 2)))

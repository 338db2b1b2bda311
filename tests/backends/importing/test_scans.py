"""Cumulative operators, bags of embeddings, contractions and branches are PyTorch's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn import functional as F

import reconvene
from reconvene.frontend.base.errors import CaptureError

from ...support.together import differences

NAN, INFINITY = float("nan"), float("inf")


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


IMAGE = numbers(2, 3, 8, 10)

SCANS: dict[str, Callable[[Tensor], Any]] = {
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(-1),
    "cumsum backwards": lambda x: x.flip(-2).cumsum(-2).flip(-2),
    "cummax with equal ones": lambda x: torch.cummax((x * 2).round(), -1),
    "cummin with equal ones": lambda x: torch.cummin((x * 2).round(), 1),
    "cummax with infinity": lambda x: torch.cummax(torch.where(x < 1, -INFINITY, x), -1)[1],
    "cummax of integers": lambda x: torch.cummax((x * 3).long(), 2),
    "cummin of bits": lambda x: torch.cummin(x > 0, 2),
    "cummax of one": lambda x: torch.cummax(x[:, :1], 1),
    "cummax with NaN": lambda x: torch.cummax(torch.where((x > 1) & (x < 1.2), NAN, x), -1)[1],
    "where cummax is NaN": lambda x: torch.cummax(torch.where((x > 1) & (x < 1.2), NAN, x), -1)[0].isnan(),
    "logcumsumexp": lambda x: torch.logcumsumexp(x * 30, -1),
    "logcumsumexp from nothing": lambda x: torch.logcumsumexp(torch.where(x < 1, -INFINITY, x), -1).exp(),
}

ROWS, TABLE, BEGINS = tensor([0, 3, 3, 6, 1, 2]), numbers(7, 5), tensor([0, 2, 2, 5])
BAGS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    **{
        f"{mode}, {name}": (lambda i, w, mode=mode, given=given: F.embedding_bag(i, w, mode=mode, **given), (rows, TABLE))
        for mode in ("sum", "mean", "max")
        for name, rows, given in (
            ("runs", ROWS, {"offsets": BEGINS}),
            ("runs with their end", ROWS, {"offsets": tensor([0, 2, 2, 5, 6]), "include_last_offset": True}),
            ("runs with padding", ROWS, {"offsets": BEGINS, "padding_idx": 3}),
            ("a matrix", ROWS.reshape(2, 3), {}),
        )
    },
    "weighted": (
        lambda i, o, w, p: F.embedding_bag(i, w, o, mode="sum", per_sample_weights=p),
        (ROWS, BEGINS, TABLE, numbers(6)),
    ),
}  # fmt: skip

EQUATIONS = (
    "ij,jk->ik", "ij,jk", "ij,jk,kl->il", "ij->ji", "ij->", "ij->j", "ii->i", "ii", "i,j->ij", "i,i->", "i,i->i",
    "bij,bjk->bik", "b...j,j->b...", "...ij,...jk->...ik", "bhqd,bhkd->bhqk", "bii->bi", "biji->bj", "ij,kl->ijkl",
    "ij,ij,ij->i", "a...a->a...", "ij,j", "i...,i->...", "abc,cd,de->abe", "ii,jj->ij", "iij,jk->ik", "a,b,c->abc",
)  # fmt: skip
SIZES = dict(zip("abcdehijklq", (2, 3, 4, 5, 2, 2, 3, 4, 5, 2, 3), strict=True))


def contraction(equation: str) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """With axes of 2 and 3 for an ellipsis."""
    operands = []
    for letters in equation.partition("->")[0].split(","):
        sizes = [(2, 3) if part == "." else (SIZES[part],) for part in letters.replace("...", ".")]
        operands.append(numbers(*itertools.chain(*sizes)))
    return lambda *given: torch.einsum(equation, *given), tuple(operands)


PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    **{equation: contraction(equation) for equation in EQUATIONS},
    "tensordot": (lambda x, y: torch.tensordot(x, y, ([1, 2], [0, 1])), (numbers(2, 3, 4), numbers(3, 4, 5))),
    "integers": (lambda x, y: x @ y, (torch.arange(24).reshape(2, 3, 4), torch.arange(20).reshape(4, 5))),
    "addbmm": (lambda x, y, z: torch.addbmm(x, y, z, beta=0.5), (numbers(3, 5), numbers(2, 3, 4), numbers(2, 4, 5))),
    "addmv": (lambda x, y, z: torch.addmv(x, y, z, alpha=0.5), (numbers(3), numbers(3, 4), numbers(4))),
    **{
        f"distances of order {p}": (lambda x, y, p=p: torch.cdist(x, y, p), (numbers(3, 4), numbers(6, 4)))
        for p in (0.0, 1.0, 2.0, 3.0, INFINITY)
    },
    "distances of one list": (F.pdist, (numbers(5, 4),)),
}  # fmt: skip


@pytest.mark.parametrize("cases", [{name: (call, (IMAGE,)) for name, call in SCANS.items()}, BAGS, PRODUCTS],
                         ids=["scans", "bags", "contractions"])  # fmt: skip
def test_they_are_those_of_pytorch(cases: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]) -> None:
    assert not differences(cases)


class Branching(nn.Module):
    """Of two pairs of branches one is within the other; each has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 4), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def small(x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cond(x.mean() > 0, lambda x: self.first(x), lambda x: x[..., :4].log(), (x,)), x * 3

        return torch.cond(x.abs().sum() > 100, lambda x: (self.second(x), x + 1), small, (x,))  # type: ignore[no-any-return]


class Shared(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return torch.cond(n > 0, lambda x, n: x.long() // n, lambda x, n: x.long(), (x, n))  # type: ignore[no-any-return]


def test_of_two_branches_the_one_that_holds_is_taken() -> None:
    torch.manual_seed(0)
    model, x = Branching().eval(), numbers(2, 3, 10)
    built = reconvene.compile(model, (x,))
    for given in (x, x * 100, x.abs() * 0.1 + 0.1, -x.abs() * 0.1):
        for found, wanted in zip(built.run(given), model(given), strict=True):
            assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_branch_that_divides_integers_is_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"aten.floor_divide' at .*test_scans.* divides integers") as caught:
        reconvene.compile(Shared(), (IMAGE, tensor(2)))
    assert "\n" not in str(caught.value)

"""Reading at indices is what PyTorch's advanced indexing means, in every form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn import functional as F

from reconvene.backends.compile import compile
from reconvene.frontend.base.errors import CaptureError

from ...support.together import Together, differences

IMAGE = torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(0))
TABLE = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
ROWS, COLUMNS = tensor([0, 1, 5]), tensor([2, -2, 0])

FIXED: dict[str, Callable[[Tensor], Any]] = {
    "a pair behind two axes": lambda x: x[:, :, ROWS, COLUMNS],
    "a pair between others": lambda x: x[:, ROWS, COLUMNS],
    "a pair of the first axes": lambda x: x[tensor([1, 0, -1]), COLUMNS],
    "a pair apart, which comes first": lambda x: x[:, ROWS, :, COLUMNS],
    "a pair apart from the batch": lambda x: x[tensor([0, 1, 1]), :, COLUMNS],
    "three": lambda x: x[:, ROWS, tensor([3, 3, -1]), COLUMNS],
    "three of which one is apart": lambda x: x[tensor([0, 1, 1]), ROWS, :, COLUMNS],
    "four": lambda x: x[tensor([0, 1, 1]), ROWS, COLUMNS, COLUMNS],
    "rows by columns": lambda x: x[:, :, tensor([[0], [1], [5]]), tensor([2, 2, 0, 1])],
    "of different ranks": lambda x: x[:, tensor([[[0, 1]], [[1, 2]]]), tensor([[2], [0], [3]])],
    "all of one axis beside another": lambda x: x[torch.arange(2)[:, None], :, torch.arange(8)],
    "one value beside several": lambda x: x[:, tensor(2), COLUMNS],
    "with slices": lambda x: x[:, 1:, ROWS, 2:9:3],
    "with a new axis between": lambda x: x[:, ROWS, None, COLUMNS],
    "with a new axis before": lambda x: x[:, None, ROWS, :, ROWS],
    "with a number": lambda x: x[:, ROWS, 3],
    "with a number apart": lambda x: x[0, :, ROWS],
    "of the batch": lambda x: x[tensor([1, 0, 1, -1])],
    "a value": lambda x: x[:, tensor(3)],
    "lists": lambda x: x[:, [0, -1], [1, 2]],
    "of bits": lambda x: (x > 0)[:, ROWS, COLUMNS],
    "gather along the last axis": lambda x: x.gather(-1, x.argsort(-1)[..., :3]),
    "take_along_dim": lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1),
    "a row for each image": lambda x: x[torch.arange(2), x[:, :, 0, 0].argmax(1)],
}  # fmt: skip

GIVEN: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "a pair of inputs": (lambda x, i, j: x[:, :, i, j], (IMAGE, tensor([[0, 1], [-1, 7]]), tensor([2, -10]))),
    "a matrix": (lambda x, i: x[:, i], (IMAGE, tensor([[0, 1], [-1, 5]]))),
    "in 32 bits": (lambda x, i: x[:, i], (IMAGE, tensor([0, -1], dtype=torch.int32))),
    "of integers": (lambda x, i: x[i, i], (torch.arange(12).reshape(3, 4), tensor([0, -1, 2]))),
    "gather from a corner": (
        lambda x, i: x.gather(1, i), (IMAGE, tensor([[[[1, 5], [2, 0]]]]).expand(2, 1, 2, 2).contiguous()),
    ),
    "take": (lambda x, i: x.take(i), (IMAGE, tensor([[0, -1], [500, 7]]))),
    "take_along_dim of one row for all": (
        lambda x, i: torch.take_along_dim(x, i, 1), (IMAGE, tensor([[[[1, 2, 3, 0, 0, 0, 0, 0, 0, 1]]]])),
    ),
    "take_along_dim of all": (lambda x, i: torch.take_along_dim(x, i), (IMAGE, tensor([0, 959, 7]))),
    "index_select": (lambda x, i: x.index_select(-1, i), (IMAGE, tensor([3, 3, 9, 0]))),
    "index_select of a number": (lambda x, i: x.index_select(0, i), (tensor(3.0), tensor([0]))),
    "embedding": (F.embedding, (tensor([[0, 3], [2, 2]]), TABLE)),
    "embedding of one": (F.embedding, (tensor(2), TABLE)),
    "embedding in 32 bits": (F.embedding, (tensor([[0, 3]], dtype=torch.int32), TABLE)),
}  # fmt: skip


def test_indices_are_read_as_pytorch_reads_them() -> None:
    assert not differences({name: (call, (IMAGE,)) for name, call in FIXED.items()} | GIVEN)


def test_an_index_outside_reads_the_nearest_row_and_no_other_memory() -> None:
    reads = [
        lambda x, i: x[i],
        lambda x, i: x.index_select(0, i),
        lambda x, i: F.embedding(i, x),
        lambda x, i: x.gather(0, i[:, None].expand(-1, 5)),
        lambda x, i: x[i, i.clamp(0, 4)],
    ]
    together = Together(reads, [2] * len(reads))
    inside = (TABLE, tensor([0, 3])) * len(reads)
    beyond = (TABLE, tensor([10**6, -(10**12)])) * len(reads)
    for found in compile(together, inside, choose="default").run(*beyond)[:4]:
        assert torch.equal(found, TABLE[[-1, 0]])


@pytest.mark.parametrize("call", [lambda x: x[x > 0], lambda x: x[:, x[0, :, 0, 0] > 0].sum()], ids=["all", "an axis"])
def test_a_mask_as_an_index_is_refused_by_name(call: Callable[[Tensor], Tensor]) -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return call(x)

    with pytest.raises(CaptureError, match=r"aten.index' at .*test_indexing.*as many values as it has ones") as caught:
        compile(Masked(), (IMAGE,))
    assert "\n" not in str(caught.value)

"""Chains of moves that join a varying batch with heads for a while are written without joining them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from tests.support.pruning import prune

BATCH = ({0: Dim.DYNAMIC},)


class Moves(nn.Module):
    def __init__(self, moves: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.moves = moves

    def forward(self, x: Tensor) -> Tensor:
        return self.moves(x)


PARTED: dict[str, Callable[[Tensor], Tensor]] = {
    "heads beside the batch": lambda x: x.view(x.shape[0] * 6, 4, 5).view(x.shape[0], 6, 4, 5),
    "as MultiheadAttention": lambda x: (
        x.transpose(0, 1).reshape(6, x.shape[0] * 4, 5).transpose(0, 1).view(x.shape[0], 4, 6, 5)
    ),
    "cut elsewhere": lambda x: x.view(x.shape[0] * 2, 3, 20).view(x.shape[0], 6, 4, 5).transpose(1, 2),
    "with an axis of one": lambda x: x.reshape(x.shape[0] * 6, 20).view(x.shape[0], 1, 6, 20).permute(0, 2, 1, 3),
    "joined twice": lambda x: x.view(-1, 20).view(x.shape[0], 6, 20).view(-1, 5).view(x.shape[0], 24, 5),
}

LEFT: dict[str, Callable[[Tensor], Tensor]] = {
    "joined in the end": lambda x: x.view(x.shape[0] * 6, 4, 5).transpose(1, 2),
    "cut across the batch": lambda x: x.view(4, -1, 5).transpose(0, 1).reshape(-1, 5),
    "read in between": lambda x: x.view(x.shape[0] * 6, 20).sin().view(x.shape[0], 6, 20),
}


def joined(module: torch.fx.GraphModule) -> bool:
    """Whether some value has an axis that is a multiple of the batch."""
    sizes = [size for node in module.graph.nodes for size in getattr(node.meta.get("val"), "shape", ())]
    return any(not isinstance(size, int) and not size.node.expr.is_Symbol for size in sizes)


@pytest.mark.parametrize("moves", PARTED.values(), ids=PARTED.keys())
def test_what_is_parted_again_is_never_joined(moves: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(3, 6, 4, 5)
    before = capture(Moves(moves), (x,), BATCH)
    after = canonicalize(before)
    assert joined(before) and not joined(after)
    for batch in (2, 3, 7):
        x = torch.randn(batch, 6, 4, 5)
        assert torch.equal(after(x), moves(x))


@pytest.mark.parametrize("moves", LEFT.values(), ids=LEFT.keys())
def test_other_chains_stay_as_they_are(moves: Callable[[Tensor], Tensor]) -> None:
    before = capture(Moves(moves), (torch.randn(3, 6, 4, 5),), BATCH)
    after = canonicalize(before)
    calls = [[str(node.target) for node in module.graph.nodes] for module in (before, after)]
    assert calls[0] == calls[1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(8, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        return self.out(self.attention(x, x, x, need_weights=False)[0])


def test_heads_go_as_with_a_fixed_batch() -> None:
    torch.manual_seed(0)
    model, x = Attention().eval(), torch.randn(2, 5, 8)
    fixed = prune(capture(model, (x,), "fixed"), (x,))
    free = prune(capture(model, (x,)), (x,))
    assert free.after.parameters == fixed.after.parameters < free.before.parameters / 2
    more = torch.randn(4, 5, 8)
    torch.testing.assert_close(free.module(more)[:2], fixed.module(more[:2]))

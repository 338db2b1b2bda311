"""Rules that hold only for some values of another operand: masks that hide all, sums of masks that are zero, no spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact
from reconvene.passes.outcome import Compaction

from ..support.models import masked_copy

INF = float("inf")
DOUBLE = {"dtype": torch.float64}
X = torch.randn(3, 5, 8, **DOUBLE)
FULL = torch.ones(3, 5, dtype=torch.bool)
EMPTY_ROW = torch.tensor([[True] * 5, [False] * 5, [True, False, True, False, False]])
NO_ROW = torch.zeros(3, 5, dtype=torch.bool)


class Attention(nn.Module):
    """Two heads, of which one has constant values; masked by `attend`."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.attend = attend
        self.register_buffer("causal", torch.ones(5, 5, dtype=torch.bool).tril())
        self.register_buffer("later", torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -INF))

    def forward(self, x: Tensor, *masks: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = (layer(x).view(n, t, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y: Tensor = self.o(self.attend(self, q, k, v, *masks).transpose(1, 2).reshape(n, t, 8))
        return y


def sdpa(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])


def sdpa_added(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    bias = torch.zeros_like(keep, dtype=q.dtype).masked_fill(~keep, -INF)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[:, None, None, :].expand(-1, 1, 5, 5))


def sdpa_lowest(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    bias = (1.0 - keep[:, None, None, :].to(q.dtype)) * torch.finfo(torch.float32).min
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def spelled(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    scores = (q @ k.transpose(-2, -1) / 2).masked_fill(~keep[:, None, None, :], -INF)
    return scores.softmax(-1) @ v


def spelled_lowest(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    scores = (q @ k.transpose(-2, -1) / 2).masked_fill(~keep[:, None, None, :], -1e9)
    return scores.softmax(-1) @ v


def spelled_safe(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    scores = (q @ k.transpose(-2, -1) / 2).masked_fill(~keep[:, None, None, :], -INF)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def weighted(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    weights = (q @ k.transpose(-2, -1)).softmax(-1) * keep[:, None, None, :]
    return weights / (weights.sum(-1, keepdim=True) + 1e-9) @ v


def causal(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def stored(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=model.causal[None, None])


def stored_added(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / 2 + model.later).softmax(-1) @ v


def stored_filled(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / 2
    return scores.masked_fill(model.causal[None, None, :5, :5].logical_not(), -INF).softmax(-1) @ v


def exactly_compacted(model: nn.Module, masks: dict[str, Tensor], *calls: tuple[Tensor, ...]) -> Compaction:
    """Compacts for the first call, and compares on all; NaNs and infinities have to be the same ones."""
    model = model.double().eval()
    result = compact(capture(model, calls[0]), calls[0], masks)
    reference = masked_copy(model, masks)
    for inputs in calls:
        with torch.no_grad():
            wanted, found = reference(*inputs), result.module(*inputs)
        same = (wanted == found) | (wanted.isnan() & found.isnan())
        gap = torch.where(same, 0.0, (wanted - found).abs())
        assert float(gap.max()) <= 1e-12 * float(
            wanted[wanted.isfinite()].abs().max() if wanted.isfinite().any() else 1.0
        )
    return result


HEAD = {"v.weight": torch.tensor([False] * 4 + [True] * 4)}
CALLS = tuple((X, keep) for keep in (FULL, EMPTY_ROW, NO_ROW))


@pytest.mark.parametrize("attend", [sdpa, sdpa_added, spelled, spelled_safe, weighted])
@pytest.mark.parametrize("bias", [True, False])
def test_a_mask_may_hide_every_key(attend: Callable[..., Tensor], bias: bool) -> None:
    masks = HEAD if bias else HEAD | {"v.bias": HEAD["v.weight"]}
    result = exactly_compacted(Attention(attend), masks, *CALLS)
    assert "random" in result.certificate.kinds
    assert "one row false" in result.certificate.kinds
    assert len(result.module.get_parameter("v.weight")) == (8 if bias else 4)


@pytest.mark.parametrize(
    "attend", [sdpa_lowest, spelled_lowest, causal, stored, stored_added, stored_filled], ids=lambda f: f.__name__
)
def test_constants_pass_where_every_query_sees_a_key(attend: Callable[..., Tensor]) -> None:
    result = exactly_compacted(Attention(attend), HEAD, *CALLS)
    assert len(result.module.get_parameter("v.weight")) == 4


def given_sdpa(model: Any, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=scores[:, None, None, :].expand(-1, 2, 5, 5))


def given_twice(model: Any, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=scores.view(3, 1, 1, 5) + model.later)


def given_spelled(model: Any, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / 2 + scores[:, None, None, :]).softmax(-1) @ v


def given_product(model: Any, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
    added = scores[:, None, None, :].expand(-1, 2, 5, 5).reshape(6, 5, 5)
    weights = torch.baddbmm(added, q.flatten(0, 1), k.flatten(0, 1).transpose(-2, -1)).softmax(-1)
    return (weights.nan_to_num(0.0) @ v.flatten(0, 1)).view(3, 2, 5, 4)


def given_joined(model: Any, q: Tensor, k: Tensor, v: Tensor, scores: Tensor) -> Tensor:
    joined = torch.cat([scores[:, :2] * 2.0, scores[:, 2:]], 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=joined[:, None, None, :])


GIVEN = [given_sdpa, given_twice, given_spelled, given_product, given_joined]


@pytest.mark.parametrize("attend", GIVEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("example", [torch.zeros(3, 5, **DOUBLE), torch.randn(3, 5, **DOUBLE)], ids=["zeros", "bias"])
def test_numbers_added_to_scores_are_masks_whatever_the_example_holds(
    attend: Callable[..., Tensor], example: Tensor
) -> None:
    calls = [(X, example)] + [(X, torch.zeros_like(example).masked_fill(~keep, -INF)) for _, keep in CALLS]
    result = exactly_compacted(Attention(attend), HEAD, *calls)
    assert {"all true", "one row false"} <= set(result.certificate.kinds)
    assert len(result.module.get_parameter("v.weight")) == 8


def test_numbers_that_a_model_reads_elsewhere_are_no_masks() -> None:
    def shared(model: Any, q: Tensor, k: Tensor, v: Tensor, numbers: Tensor) -> Tensor:
        scores = numbers[:, None, None, :].expand(-1, 1, 5, 5)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=scores) * numbers.sum()

    numbers = torch.randn(3, 5, **DOUBLE)
    result = exactly_compacted(Attention(shared), HEAD, (X, numbers))
    assert "one row false" not in result.certificate.kinds


def test_the_batch_may_grow_with_its_mask() -> None:
    model = Attention(sdpa).double().eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    graph = capture(model, (X, FULL), ({0: batch}, ({0: batch},)))
    result = compact(graph, (X, FULL), HEAD)
    assert any("other sizes" in kind for kind in result.certificate.kinds)
    assert ("4x5x8", "4x5") in result.certificate.inputs


class Pooled(nn.Module):
    """Tokens are reduced to one vector by a mask, between two layers."""

    def __init__(self, pool: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.hidden, self.out, self.pool = nn.Linear(8, 12), nn.Linear(12, 4), pool

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        y: Tensor = self.out(self.pool(self.hidden(x), keep))
        return y


GONE = torch.arange(12) % 2 == 0
CHANNELS = {"hidden.weight": GONE, "hidden.bias": GONE}


def total(h: Tensor, keep: Tensor) -> Tensor:
    return (h * keep.unsqueeze(-1)).sum(1)


@pytest.mark.parametrize(
    ("pool", "width"),
    [
        (lambda h, keep: total(h, keep) / keep.sum(1, keepdim=True).clamp(min=1), 6),
        (lambda h, keep: total(h, keep) / (keep.sum(1, keepdim=True) + 1e-9), 6),
        (lambda h, keep: total(h, keep) * (1 / keep.sum(1, keepdim=True).clamp(min=1)), 6),
        (lambda h, keep: h.masked_fill(~keep.unsqueeze(-1), 0.0).mean(1), 6),
        (lambda h, keep: torch.where(keep.unsqueeze(-1), h, 0.0).mean(1), 6),
        (lambda h, keep: total(h, keep) / keep.sum(1, keepdim=True), 12),
        (lambda h, keep: total(h, keep) * (1 / keep.sum(1, keepdim=True)), 12),
        (lambda h, keep: total(h, keep) * keep.sum(1, keepdim=True).log(), 12),
        (lambda h, keep: total(h, keep) * torch.where(keep.any(1, keepdim=True), 1.0, INF), 12),
        (lambda h, keep: h.masked_fill(~keep.unsqueeze(-1), -INF).amax(1), 12),
        (lambda h, keep: h.sum(1) * keep.to(h.dtype).std(1, keepdim=True).reciprocal(), 12),
        (lambda h, keep: F.glu(torch.cat([h.sum(1), (h.sum(1) / keep.sum(1, keepdim=True))], -1), -1), 12),
    ],
)
def test_a_zero_goes_only_where_it_stays_zero(pool: Callable[[Tensor, Tensor], Tensor], width: int) -> None:
    result = exactly_compacted(Pooled(pool), CHANNELS, *CALLS)
    assert len(result.module.get_parameter("hidden.weight")) == width


def test_a_weight_of_zero_reads_what_may_be_infinite() -> None:
    class Columns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.out = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.out(torch.cat([self.first(x), self.second(x).log()], -1))
            return y

    columns = torch.ones(4, 12, dtype=torch.bool)
    columns[:, 6:] = columns[:, :2] = False
    result = exactly_compacted(Columns(), {"out.weight": columns}, (X,))
    assert len(result.module.get_parameter("second.weight")) == 6


@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_a_constant_channel_without_spread_is_its_bias_only_with_an_epsilon(eps: float) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.norm = nn.Conv2d(3, 8, 1, bias=False), nn.InstanceNorm2d(8, eps=eps, affine=True)
            self.after = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.after(self.norm(self.before(x)))
            return y

    model = Normalised()
    nn.init.normal_(model.norm.bias)
    images = torch.randn(2, 3, 6, 6, **DOUBLE)
    result = exactly_compacted(model, {"before.weight": torch.arange(8) % 2 == 0}, (images,))
    assert len(result.module.get_parameter("before.weight")) == (4 if eps else 8)


@pytest.mark.parametrize("ids", [torch.tensor([[1, 2, 3], [4, 5, 6]])])
def test_ids_vary_within_their_table_and_rows_of_padding_are_tried(ids: Tensor) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.hidden, self.out = nn.Embedding(9, 8, padding_idx=0), nn.Linear(8, 12), nn.Linear(12, 4)

        def forward(self, ids: Tensor) -> Tensor:
            mask = ids.ne(0).unsqueeze(-1)
            y: Tensor = self.out((self.hidden(self.table(ids)) * mask).sum(1) / mask.sum(1).clamp(min=1))
            return y

    padded = torch.tensor([[0, 0, 0], [8, 7, 0]])
    result = exactly_compacted(Tokens(), CHANNELS, (ids,), (padded,))
    assert result.certificate.kinds[:3] == ("as given", "random", "one row false")
    assert len(result.module.get_parameter("hidden.weight")) == 6


def test_an_input_that_the_model_does_not_take_is_left_out() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(8, 12), nn.Linear(12, 4)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.functional.one_hot(lengths - 1, 5)
            y: Tensor = self.out(self.hidden(x).relu()) * packed.sum()
            return y

    result = exactly_compacted(Picky(), CHANNELS, (X, torch.tensor([3, 5, 1])))
    assert "as given" in result.certificate.kinds
    assert len(result.module.get_parameter("hidden.weight")) == 6


@pytest.mark.parametrize(
    "mask",
    [
        lambda x: torch.ones(5, 5).tril().bool(),
        lambda x: torch.full((5, 5), -INF, dtype=x.dtype).triu(1),
        lambda x: x.new_full((5, 5), -INF).triu(1),
        lambda x: torch.arange(5)[None] <= torch.arange(5)[:, None],
        lambda x: torch.zeros(5, 5, dtype=x.dtype).masked_fill(torch.ones(5, 5).triu(1) > 0, -INF),
        lambda x: torch.where(torch.eye(5, dtype=torch.bool), 0.0, -1e9).to(x.dtype),
    ],
)
@pytest.mark.parametrize("spelled_out", [False, True])
def test_a_mask_that_a_forward_pass_makes_is_known(mask: Callable[[Tensor], Tensor], spelled_out: bool) -> None:
    def attend(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        made = mask(q)
        if not spelled_out:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=made)
        scores = q @ k.transpose(-2, -1)
        return (scores.masked_fill(~made, -INF) if made.dtype is torch.bool else scores + made).softmax(-1) @ v

    result = exactly_compacted(Attention(attend), HEAD, *CALLS)
    assert len(result.module.get_parameter("v.weight")) == 4


def test_a_mask_that_is_made_of_a_stored_one_is_known() -> None:
    def attend(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=model.causal.tril(1))

    result = exactly_compacted(Attention(attend), HEAD, *CALLS)
    assert len(result.module.get_parameter("v.weight")) == 4


def test_a_computed_mask_that_hides_a_row_is_known_too() -> None:
    def attend(model: Any, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(5, 5).tril(-1).bool())

    result = exactly_compacted(Attention(attend), HEAD, *CALLS)
    assert len(result.module.get_parameter("v.weight")) == 8


def test_a_layer_that_may_read_infinity_keeps_what_its_zero_rows_would_make_of_it() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.hidden, self.out = nn.Linear(4, 6), nn.Linear(1, 8), nn.Linear(14, 3)

        def forward(self, x: Tensor, count: Tensor) -> Tensor:
            share = (x.square().sum(1, keepdim=True) + 1) / count[
                :, None
            ]  # One feature, infinite where nothing is counted.
            y: Tensor = self.out(torch.cat([self.first(x), self.hidden(share)], 1).relu())
            return y

    x, count = torch.randn(3, 4, **DOUBLE), torch.tensor([2, 1, 3])
    masks = {"hidden.weight": torch.arange(8) > 6, "first.weight": torch.arange(6) > 2}
    result = exactly_compacted(Scaled(), masks, (x, count), (x, torch.tensor([0, 1, 0])))
    assert len(result.module.get_parameter("first.weight")) == 3
    assert len(result.module.get_parameter("hidden.weight")) == 8


@pytest.mark.parametrize(
    "pick",
    [
        lambda h: h[:, torch.tensor([1, 3])],
        lambda h: h[torch.tensor([2, 0])],
        lambda h: h[torch.tensor([2, 0]), torch.tensor([[1], [4]])],
        lambda h: h.cumsum(1),
        lambda h: h.cumprod(0),
    ],
)
def test_zeros_stay_where_rows_are_picked_or_added_up(pick: Callable[[Tensor], Tensor]) -> None:
    result = exactly_compacted(Pooled(lambda h, keep: pick(h)), CHANNELS, (X, FULL))
    assert len(result.module.get_parameter("hidden.weight")) == 6


@pytest.mark.parametrize(("kept", "width"), [(lambda h, n: h.mean(1), 6), (lambda h, n: h.mean(1) / n, 12)])
def test_what_an_earlier_call_left_is_finite_where_every_call_leaves_finite_numbers(
    kept: Callable[[Tensor, Tensor], Tensor], width: int
) -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(8, 12), nn.Linear(12, 4)
            self.register_buffer("last", torch.ones(3, 5))

        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            h = self.hidden(x) * self.last.unsqueeze(-1)
            self.last.copy_(kept(x.transpose(1, 2), keep.sum(1, keepdim=True)))
            y: Tensor = self.out(h)
            return y

    model = Remembers().double().eval()
    result = compact(capture(model, (X, FULL)), (X, FULL), CHANNELS)
    assert len(result.module.get_parameter("hidden.weight")) == width

"""Graphs that write to buffers: what a buffer holds now is no constant, and the certificate makes several calls in turn."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import compact, prune
from reconvene.frontend.base.errors import InputError
from reconvene.passes.running import Runner
from tests.support.stateful import STATEFUL, frames

CALLS = 4


def in_turn(module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [module(x.clone()).clone() for x in inputs]


class Hidden(nn.Module):
    """A hidden layer of sixteen channels, of which one is a constant 0, and buffers that are written."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.a.weight[3] = 0
            self.a.bias[3] = 0
        self.register_buffer("gate", torch.zeros(16))
        self.register_buffer("scale", torch.zeros(3, 16))
        self.register_buffer("chosen", torch.arange(8))

    def hidden(self, x: Tensor) -> Tensor:
        return self.a(x).relu()


class Gated(Hidden):
    """All zeros in the first call."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.hidden(x) * self.gate)
        self.gate.add_(1)
        return y


class ScaledWeight(Hidden):
    """A weight that is computed from a written buffer."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.b.weight * self.scale
        self.scale.add_(1)
        return nn.functional.linear(self.hidden(x), weight, self.b.bias)


class AllAtOnce(Hidden):
    """Several buffers that one call writes."""

    def forward(self, x: Tensor) -> Tensor:
        torch._foreach_add_([self.scale, self.gate], 1)
        return nn.functional.linear(self.hidden(x) * self.gate, self.b.weight * self.scale)


class Chosen(Hidden):
    """Channels that a written index takes."""

    def forward(self, x: Tensor) -> Tensor:
        part = self.hidden(x).index_select(1, self.chosen)
        self.chosen.copy_((self.chosen + 1) % 16)
        return self.b(torch.cat([part, part], 1))


class SpreadCopy(Hidden):
    """One number that is copied to all of a buffer, which is read as long as it is."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.hidden(x)
        self.gate.copy_(y.mean())
        return self.b(y * self.gate[:16].flip(0))


class OtherType(Hidden):
    """Numbers that are rounded by the type of the buffer they are copied to."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.hidden(x)
        self.chosen.copy_(y[0, :8] * 9)
        return self.b(y) * self.chosen.sum()


@pytest.mark.parametrize("kind", [Gated, ScaledWeight, AllAtOnce, Chosen, SpreadCopy, OtherType])
def test_what_a_buffer_holds_now_is_no_constant(kind: Any) -> None:
    model, inputs = kind().eval(), frames(CALLS)
    before = copy.deepcopy(model.state_dict())
    result = compact(model, (inputs[0],))
    expected = in_turn(copy.deepcopy(model), inputs)
    for found, wanted in zip(in_turn(result.module, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["gated", "rotated in a layer", "written twice", "two names"])
def test_a_compacted_graph_has_a_state_of_its_own(name: str) -> None:
    model, inputs = STATEFUL[name](), frames(CALLS)
    result = compact(model, (inputs[0],))
    expected = in_turn(copy.deepcopy(model), inputs)
    in_turn(model, inputs)
    for found, wanted in zip(in_turn(result.module, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_check_makes_several_calls_in_turn() -> None:
    result = compact(STATEFUL["counter"](), tuple(frames(1)))
    first, second, third = Runner(result.module, torch.float64).values((torch.ones(3, 4, dtype=torch.float64),))
    assert [float(value[0, 0]) for value in (first, second, third)] == [1, 2, 3]
    assert float(result.module.get_buffer("calls")) == 0


def test_a_check_leaves_the_statistics_of_a_norm_alone() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(4).double(), nn.Linear(4, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True))

    graph = torch.export.export(Trained(), (torch.randn(3, 4).double(),)).module()
    Runner(graph, torch.float64).values((torch.randn(3, 4).double(),))
    assert float(graph.get_buffer("norm.running_mean").abs().max()) == 0


class Causal(nn.Module):
    """A causal convolution that keeps the last frames of its stream."""

    def __init__(self, inputs: int, outputs: int, how: str, begin: float) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv1d(inputs, outputs, 3), how
        self.register_buffer("cache", torch.full((1, inputs, 2), begin))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([self.cache, x], 2)
        if self.how == "copied":
            self.cache.copy_(seen[:, :, -2:])
        elif self.how == "assigned":
            self.cache = seen[:, :, -2:]
        elif self.how == "all of it":
            self.cache[:] = seen[:, :, -2:]
        elif self.how == "computed in place":
            self.cache.mul_(0).add_(seen[:, :, -2:])
        else:
            self.cache[:, :, :1] = self.cache[:, :, 1:]
            self.cache[:, :, 1:] = x[:, :, -1:]
        return self.conv(seen)


def stream(how: str, begin: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    widths = [4, 16, 16, 3]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [Causal(inputs, outputs, how, begin), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


SOUND = [torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(CALLS)]


def masked(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    copied = copy.deepcopy(model)
    tensors = dict(copied.named_parameters())
    with torch.no_grad():
        for name, keep in masks.items():
            tensors[name].mul_(keep.view(*keep.shape, *[1] * (tensors[name].dim() - keep.dim())))
    return copied


@pytest.mark.parametrize("how", ["copied", "assigned", "all of it", "computed in place"])
def test_channels_of_a_stream_go_with_those_of_its_cache(how: str) -> None:
    model = stream(how)
    result = prune(model, (SOUND[0],), sparsity=0.5)
    assert result.module.get_parameter("2.conv.weight").shape == (8, 8, 3)
    assert result.module.get_buffer("2.cache").shape == (1, 8, 2)
    expected = in_turn(masked(model, dict(result.plan.masks)), SOUND)
    for found, wanted in zip(in_turn(result.module, SOUND), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    again = compact(result.module, (SOUND[0],))
    assert again.report.after.parameters == result.report.after.parameters
    fresh = compact(stream(how), (SOUND[0],), plan=result.plan)
    for found, wanted in zip(in_turn(fresh.module, SOUND), expected, strict=True):
        torch.testing.assert_close(found, wanted)


class Recalled(nn.Module):
    """Copies into a buffer what `makes` makes of it, and reads it after that as `reads` does."""

    def __init__(self, makes: Any, reads: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.makes, self.reads = nn.Linear(4, 16), nn.Linear(16, 3), makes, reads
        self.register_buffer("seen", torch.zeros(2, 16))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.copy_(self.makes(self.seen, self.first(x)))
        return self.last(self.reads(self.seen))


@pytest.mark.parametrize(
    ("makes", "reads"),
    [
        (lambda seen, y: (seen * 0.5 + y).tanh(), lambda seen: seen),
        (lambda seen, y: seen * 0.5 + y, lambda seen: seen.view(2, 4, 4).flatten(1) + seen[1:]),
        (lambda seen, y: (seen[:1] - y)[:1], lambda seen: seen.relu()),
        (lambda seen, y: (y * 0.5).double() + seen, lambda seen: seen * 2),
    ],
    ids=["as it is", "through views", "one row for all", "cast"],
)
def test_a_buffer_that_is_read_after_a_copy_loses_channels(makes: Any, reads: Any) -> None:
    model = Recalled(makes, reads).eval()
    inputs = [torch.randn(2, 4) for _ in range(CALLS)]
    keep = torch.arange(16) % 2 == 0
    masks = {"first.weight": keep[:, None].expand(16, 4), "first.bias": keep}
    result = compact(model, (inputs[0],), masks)
    assert result.module.get_buffer("seen").shape == (2, 8)
    expected = in_turn(masked(model, masks), inputs)
    for found, wanted in zip(in_turn(result.module, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_cache_that_begins_otherwise_keeps_its_channels() -> None:
    """A channel that is always 0 is not one whose first frames are 1."""
    model = stream("copied", begin=1.0)
    keep = torch.ones(16, dtype=torch.bool)
    keep[:8] = False
    result = compact(model, (SOUND[0],), {"0.conv.weight": keep, "0.conv.bias": keep})
    assert result.module.get_buffer("2.cache").shape == (1, 16, 2)
    expected = in_turn(masked(model, {"0.conv.weight": keep, "0.conv.bias": keep}), SOUND)
    for found, wanted in zip(in_turn(result.module, SOUND), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_cache_that_is_written_in_parts_stays_memory() -> None:
    model = stream("in parts")
    with pytest.raises(InputError, match="writes in place to memory that other values share"):
        prune(model, (SOUND[0],), sparsity=0.5)


class Chain(nn.Module):
    """What one buffer keeps comes from another, so that a constant of the first call is none of the third."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        for name in ("first", "second", "third"):
            self.register_buffer(name, torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(self.third)
        self.third.copy_(self.second)
        self.second.copy_(self.first)
        self.first.copy_(x)
        return y


def test_a_constant_of_the_first_calls_is_found_not_to_be_one() -> None:
    x = [torch.randn(1, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    model = Chain().eval()
    result = compact(model, (x[0],))
    assert result.module.get_parameter("layer.weight").shape == (3, 4)
    for found, wanted in zip(in_turn(result.module, x), in_turn(copy.deepcopy(model), x), strict=True):
        torch.testing.assert_close(found, wanted)

"""Layers solved anew: exact where what went can be made of what stays, and refused by name where they cannot be solved."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.compaction import compact
from reconvene.passes.outcome import Compaction
from reconvene.passes.recovery.least_squares import LeastSquares, recover

EXACT = LeastSquares(ridge=0.0)
IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_copies(layer: nn.Module) -> nn.Module:
    """Its second half of channels is three times the first: what reads them needs only one of the two."""
    with torch.no_grad():
        half = layer.weight.shape[0] // 2
        layer.weight[half:] = 3 * layer.weight[:half]
        if layer.bias is not None:
            layer.bias[half:] = 3 * layer.bias[:half]
    return layer


def removed(model: nn.Module, name: str, channels: int, inputs: Tensor = IMAGES) -> tuple[CapturedModule, Compaction]:
    """The graph, and what is left of it without the second half of the channels that a layer makes."""
    graph = capture(model.double().eval(), (inputs[:2],))
    keep = torch.arange(channels) < channels // 2
    masks = {key: keep for key in (f"{name}.weight", f"{name}.bias") if key in dict(graph.named_parameters())}
    return graph, compact(graph, (inputs[:2],), masks)


READERS: dict[str, Callable[[], nn.Module]] = {
    "convolution with a bias": lambda: nn.Conv2d(8, 5, 3, padding=1),
    "convolution, strided and dilated": lambda: nn.Conv2d(8, 5, 3, stride=2, dilation=2, padding=2),
    "transposed convolution": lambda: nn.ConvTranspose2d(8, 5, 2, stride=2),
    "convolution before normalisation": lambda: nn.Sequential(nn.Conv2d(8, 5, 1, bias=False), nn.BatchNorm2d(5)),
    "convolution without a place for an offset": lambda: nn.Sequential(nn.Conv2d(8, 5, 1, bias=False), nn.ReLU()),
    "behind a depthwise convolution": lambda: nn.Sequential(shared_kernel(), nn.Conv2d(8, 5, 1)),
    "linear": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5)),
}


def shared_kernel() -> nn.Module:
    """A depthwise convolution that treats both halves alike, so that copies stay copies."""
    layer = nn.Conv2d(8, 8, 3, groups=8, bias=False)
    with torch.no_grad():
        layer.weight[4:] = layer.weight[:4]
    return layer


@pytest.mark.parametrize("reader", READERS)
def test_what_can_be_made_of_what_stays_is_exact(reader: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(with_copies(nn.Conv2d(3, 8, 3)), nn.ReLU(), READERS[reader](), nn.ReLU())
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    graph, small = removed(model, "0", 8)
    found, recovery = recover(graph, small.module, small.plan, [(IMAGES,)], EXACT)
    expected = model(IMAGES)
    assert (small.module(IMAGES) - expected).abs().max() > 0.01
    torch.testing.assert_close(found(IMAGES), expected)
    (layer,) = recovery.layers
    assert layer.before > 0.01 and layer.after < 1e-6 and not recovery.refusals


def test_later_layers_make_good_what_earlier_ones_could_not() -> None:
    """Two layers in a row lose channels: the second is solved on what the first gives by then."""
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1)
    ).double()  # fmt: skip
    graph = capture(model, (IMAGES[:2],))
    masks = {name: torch.arange(8) < 6 for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    small = compact(graph, (IMAGES[:2],), masks)
    found, recovery = recover(graph, small.module, small.plan, [(IMAGES,)], EXACT)
    assert [layer.name for layer in recovery.layers] == ["2.weight", "4.weight"]
    expected = model(IMAGES).detach()
    error = float(
        (found(IMAGES).detach() - expected).norm() / (expected - expected.mean((0, 2, 3), keepdim=True)).norm()
    )
    assert recovery.layers[1].after == pytest.approx(error, rel=1e-6)  # All positions were taken: they are few.
    assert all(layer.after < layer.before for layer in recovery.layers)


def test_nothing_given_is_changed() -> None:
    torch.manual_seed(3)
    graph, small = removed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)), "0", 8)
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in (graph, small.module)]
    found, _ = recover(graph, small.module, small.plan, [(IMAGES,)], LeastSquares())
    for module, values in zip((graph, small.module), before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())
    assert not torch.equal(found.get_parameter("2.weight"), small.module.get_parameter("2.weight"))
    assert torch.equal(found.get_parameter("0.weight"), small.module.get_parameter("0.weight"))
    assert {name: value.shape for name, value in found.state_dict().items()} == {
        name: value.shape for name, value in small.module.state_dict().items()
    }


def test_several_calls_are_as_good_as_one() -> None:
    torch.manual_seed(4)
    graph, small = removed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)), "0", 8)
    one, _ = recover(graph, small.module, small.plan, [(IMAGES,)], EXACT)
    several, recovery = recover(graph, small.module, small.plan, [(IMAGES[:5],), (IMAGES[5:],)], EXACT)
    torch.testing.assert_close(one.get_parameter("2.weight"), several.get_parameter("2.weight"))
    assert recovery.layers[0].rows == 12 * 36


def test_statistics_are_estimated_anew() -> None:
    """A depthwise layer behind the removal reads as much as before, and its normalisation sees what it saw."""
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1),
        nn.BatchNorm2d(4),
    )  # fmt: skip
    graph, small = removed(model, "0", 8)
    kept, _ = recover(graph, small.module, small.plan, [(IMAGES,)], LeastSquares())
    found, _ = recover(graph, small.module, small.plan, [(IMAGES,)], LeastSquares(statistics="estimated"))
    assert torch.equal(kept.get_buffer("3.running_var"), graph.get_buffer("3.running_var"))
    seen = [part(IMAGES) for part in (up_to(found, "batch_norm"), up_to(graph, "batch_norm"))]
    small_moments, dense_moments = (torch.var_mean(value, (0, 2, 3), unbiased=False) for value in seen)
    ratio = small_moments[0] / dense_moments[0]
    torch.testing.assert_close(found.get_buffer("3.running_var"), graph.get_buffer("3.running_var") * ratio)
    mean = graph.get_buffer("3.running_mean") + small_moments[1] - dense_moments[1]
    torch.testing.assert_close(found.get_buffer("3.running_mean"), mean)


def up_to(module: CapturedModule, name: str) -> Callable[[Tensor], Tensor]:
    """What the call of that name normalises."""
    from reconvene.passes.running import Recorder

    node = next(node for node in module.graph.nodes if node.name == name)

    def run(images: Tensor) -> Tensor:
        recorder = Recorder(module, None)
        recorder.values((images,))
        seen: Tensor = recorder.seen[node.args[0].name]
        return seen

    return run


class Twice(nn.Module):
    """One weight, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.read = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.relu(self.make(x))
        return self.read(made) + self.read(made.flip(-1))


class SharedBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.make, self.read, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1), nn.Conv2d(3, 5, 1)
        self.other.bias = self.read.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.relu(self.make(x))) + self.other(x)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Twice(), "read.weight: .* its weight has 2 readers"),
        (SharedBias(), "read.weight: .* its bias has another reader"),
    ],
)
def test_layers_that_cannot_be_solved_are_named(model: nn.Module, reason: str) -> None:
    graph, small = removed(model, "make", 8)
    found, recovery = recover(graph, small.module, small.plan, [(IMAGES,)], LeastSquares())
    assert not recovery.layers and "No layer" in recovery.summary
    (refusal,) = recovery.refusals
    assert re.search(reason, refusal)
    torch.testing.assert_close(found(IMAGES), small.module(IMAGES))


def test_kernels_that_are_too_large_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconvene.passes.recovery.readers.MOST_COLUMNS", 30)
    graph, small = removed(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 3)), "0", 8)
    _, recovery = recover(graph, small.module, small.plan, [(IMAGES,)], LeastSquares())
    assert recovery.refusals == ("2.weight: not solved anew, because one output reads 36 numbers, and 30 are the most",)


def test_inputs_on_which_values_overflow_leave_the_layer_as_it_was() -> None:
    graph, small = removed(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1)), "0", 8)
    found, recovery = recover(graph, small.module, small.plan, [(IMAGES * 1e308,)], LeastSquares())
    assert "not finite" in recovery.refusals[0]
    assert torch.equal(found.get_parameter("2.weight"), small.module.get_parameter("2.weight"))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.make, self.read = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.read(torch.relu(self.make(x))) + self.calls


def test_networks_with_state_are_refused() -> None:
    graph, small = removed(Counting(), "make", 8)
    with pytest.raises(InputError, match="without state, and this one writes to 'calls'"):
        recover(graph, small.module, small.plan, [(IMAGES,)], LeastSquares())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": -1}, "ridge is -1"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"ridge": "much"}, "ridge is 'much'"),
        ({"rows": 0}, "rows is 0"),
        ({"ridge": True}, "ridge is True"),
        ({"statistics": "new"}, "no choice 'new' of statistics"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LeastSquares(**options)

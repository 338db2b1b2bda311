"""Layers of a captured module are what people take them for: hooked, frozen, changed, replaced, pruned, counted on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel, update_bn

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule, changed_layer
from reconvene.passes.compaction import compact

from ..support.models import assert_same_outputs, randomise

X = torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.cells = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(self.norm(self.conv(x)).relu().flatten(2).transpose(1, 2))[0]


def network() -> nn.Module:
    return randomise(nn.Sequential(Block(), nn.Linear(6, 5), nn.Dropout(0.5))).double()


@pytest.fixture(scope="module")
def fresh() -> CapturedModule:
    return capture(network(), (X,))


@pytest.fixture
def module(fresh: CapturedModule) -> CapturedModule:
    return copy.deepcopy(fresh)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, (3, 1), stride=(2, 1), padding="valid", dilation=2, groups=2, bias=False),
            nn.BatchNorm2d(8, momentum=None), nn.ReLU6(), nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, groups=2),
            nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.PReLU(6), nn.MaxPool2d(2), nn.GroupNorm(2, 6),
            nn.Hardswish(), nn.Dropout2d(0.2), nn.AvgPool2d(2, 1, 1), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.GELU("tanh"), nn.Linear(24, 5, bias=False), nn.LayerNorm(5, eps=1e-3), nn.ELU(0.5),
            nn.RReLU(0.1, 0.2), nn.Softmax(1),
        ),
        (2, 4, 12, 12),
    ),
    "signals": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 4, 3, padding="same"), nn.BatchNorm1d(4, affine=False), nn.SiLU(), nn.ConvTranspose1d(4, 4, 3),
            nn.MaxPool1d(2), nn.Tanh(), nn.AvgPool1d(2), nn.Sigmoid(), nn.AlphaDropout(0.1), nn.Mish(), nn.Hardsigmoid(),
        ),
        (2, 3, 16),
    ),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4, track_running_stats=False), nn.ReLU(inplace=True)),
        (2, 2, 5, 5, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_their_class_names_and_options(name: str) -> None:
    make, shape = LAYERS[name]
    model = randomise(make()).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    module = capture(model, (x,))
    assert changed_layer(module) is None
    for path, layer in model.named_children():
        assert type(module.get_submodule(path)) is type(layer)
    assert module.state_dict().keys() == model.state_dict().keys()
    assert_same_outputs(model(x), module(x), 0)


def test_a_layer_has_the_width_that_is_left() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))).double()
    module = compact(
        capture(model, (X,)),
        (X,),
        {
            "0.weight": torch.arange(8) % 4 != 1,
            "0.bias": torch.arange(8) % 4 != 1,
            "1.weight": torch.arange(8) % 4 != 1,
            "1.bias": torch.arange(8) % 4 != 1,
        },
    ).module
    first, norm, last = module.children()
    assert isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(last, nn.Conv2d)
    assert (first.out_channels, norm.num_features, last.in_channels) == (6, 6, 6)


def test_hooks_on_layers_fire(module: CapturedModule) -> None:
    calls: list[str] = []
    conv, linear = module.get_submodule("0.conv"), module.get_submodule("1")
    handles = [
        conv.register_forward_pre_hook(lambda *_: calls.append("before")),
        conv.register_forward_hook(lambda _, inputs, output: calls.append(f"after {tuple(output.shape)}")),
        linear.register_full_backward_hook(lambda *_: calls.append("backward")),
    ]
    module(X).sum().backward()
    assert calls == ["before", "after (4, 8, 4, 4)", "backward"]
    for handle in handles:
        handle.remove()
    seen: list[type] = []
    with register_module_forward_hook(lambda part, *_: seen.append(type(part))):
        module(X)
    assert {nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.Dropout} < set(seen)
    assert changed_layer(module) is None


def test_a_hook_that_changes_an_output_is_captured(module: CapturedModule) -> None:
    module.get_submodule("0.conv").register_forward_hook(lambda _, inputs, output: output * 2)
    again = capture(module)
    assert_same_outputs(module(X), again(X))
    assert changed_layer(again) is None


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
     "register_full_backward_pre_hook", "register_backward_hook"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["0", "0.cells"])
def test_a_hook_that_could_not_fire_is_refused(module: CapturedModule, register: str, path: str) -> None:
    with pytest.raises(NotImplementedError, match=r"in the graph one by one; take a layer"):
        getattr(module.get_submodule(path), register)(lambda *_: None)


def test_the_module_itself_is_hooked_and_its_parts_cannot_be_called(module: CapturedModule) -> None:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    module(X)
    assert calls == [1]
    with pytest.raises(NotImplementedError, match="cannot call"):
        module.get_submodule("0")(X)


def zero_linear(part: nn.Module) -> None:
    if isinstance(part, nn.Linear):
        nn.init.zeros_(part.weight)


def test_what_people_do_to_all_layers_of_a_kind_is_done(module: CapturedModule) -> None:
    module.apply(zero_linear)
    assert torch.equal(module(X), module.get_parameter("1.bias").expand(4, 16, 5))
    module.train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    before = module.get_buffer("0.norm.running_mean").clone()
    module(X)
    assert torch.equal(before, module.get_buffer("0.norm.running_mean"))


def test_a_changed_dropout_holds_and_is_captured(module: CapturedModule) -> None:
    layer = module.get_submodule("2")
    assert isinstance(layer, nn.Dropout)
    layer.p = 1.0
    assert not module.train()(X).any() and module.eval()(X).any()
    assert changed_layer(module) == "'2': its p is 1.0, not 0.5"
    assert not capture(module).train()(X).any()


class Adapted(nn.Module):
    """A layer with a low-rank correction."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer, self.down, self.up = layer, nn.Linear(layer.in_features, 2), nn.Linear(2, layer.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.up(self.down(x))


@pytest.mark.parametrize(
    "replace", [Adapted, lambda layer: nn.Sequential(nn.Dropout(0.1), nn.Linear(layer.in_features, 10))]
)
def test_a_replaced_layer_runs_and_is_captured(module: CapturedModule, replace: Callable[[Any], nn.Module]) -> None:
    setattr(module, "1", replace(module.get_submodule("1")))
    module = module.double().eval()
    found = compact(capture(module), (X,)).module
    assert_same_outputs(module(X), found(X), 1e-10)
    assert found.state_dict().keys() == module.state_dict().keys()


def trained_step(module: nn.Module) -> None:
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        module(X).square().sum().backward()
        optimiser.step()


WEIGHTS: dict[str, Callable[[CapturedModule], object]] = {
    "pruned": lambda module: prune.l1_unstructured(module.get_submodule("0.conv"), "weight", 0.5),
    "pruned recurrent": lambda module: prune.l1_unstructured(module.get_submodule("0.cells"), "weight_ih_l0", 0.5),
    "weight norm": lambda module: parametrizations.weight_norm(module.get_submodule("1")),
    "recurrent": lambda module: parametrize.register_parametrization(
        module.get_submodule("0.cells"), "weight_hh_l0", nn.Tanh()
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_computed_train_and_are_captured(module: CapturedModule, name: str) -> None:
    WEIGHTS[name](module)
    trained_step(module)
    assert changed_layer(module) is not None
    again = capture(module)
    assert_same_outputs(module(X), again(X), 1e-12)
    assert_same_outputs(module(X), compact(again, (X,)).module(X), 1e-12)


def test_averages_of_weights_get_their_statistics(module: CapturedModule) -> None:
    average = AveragedModel(module)
    average.update_parameters(module)
    update_bn([X, X + 1], average)
    norm = average.module.get_submodule("0.norm")
    conv = module.get_submodule("0.conv")
    assert norm.num_batches_tracked == 2
    expected = (conv(X).mean((0, 2, 3)) + conv(X + 1).mean((0, 2, 3))) / 2
    assert_same_outputs(expected, norm.running_mean)


def test_types_and_devices_follow() -> None:
    module = capture(LAYERS["volumes"][0]().double(), (torch.randn(LAYERS["volumes"][1], dtype=torch.float64),))
    assert {value.dtype for value in module.float().parameters()} == {torch.float32}
    assert module(torch.randn(LAYERS["volumes"][1])).dtype is torch.float32
    assert {value.device.type for value in module.to("meta").parameters()} == {"meta"}
    module.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in module.parameters())


# Checks that layers make when they are called


REFUSED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "batch norm": (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), (4,)),
    "images of one": (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)), (4, 6, 6)),
    "instance norm": (
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.InstanceNorm2d(4, track_running_stats=True)),
        (4, 6, 6),
    ),
}


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, self.training)


REFUSED["functional"] = (Functional(), (4,))


@pytest.mark.parametrize("name", REFUSED)
def test_one_value_per_channel_is_refused_in_training_as_eager_does(name: str) -> None:
    model, shape = REFUSED[name]
    module = compact(capture(model.eval(), (torch.randn(4, *shape),)), (torch.randn(4, *shape),)).module
    before = copy.deepcopy(module.state_dict())
    messages = []
    for tried in (model.train(), module.train()):
        with pytest.raises(ValueError, match="Expected more than 1") as caught:
            tried(torch.randn(1, *shape))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    statistics = {key: value for key, value in module.state_dict().items() if "running" in key}
    assert statistics and all(torch.equal(before[key], value) for key, value in statistics.items())
    assert module.eval()(torch.randn(1, *shape)).isfinite().all()


def test_statistics_over_all_batches_go_on_after_compaction() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=None))).double().train()
    model(X)
    module = compact(capture(model, (X,)), (X,)).module
    assert module.get_buffer("1.num_batches_tracked") == 1
    for tried in (model.train(), module.train()):
        tried(X + 1)
        tried(X * 2)
    for name, buffer in model.named_buffers():
        assert_same_outputs(buffer.double(), module.get_buffer(name).double(), 1e-12)

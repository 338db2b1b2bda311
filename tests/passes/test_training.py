"""The compacted module trains: flags, names, dropout, and the gradients of one step on the channels that are left."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.compaction import compact
from reconvene.passes.outcome import Compaction

from ..support.models import assert_same_outputs, channel_masks, masked_copy, randomise, view_of

DOUBLE = {"dtype": torch.float64}


class Network(nn.Module):
    """A residual network with a squeeze-excite gate, normalisation and dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.branch, self.branch_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem_norm(self.stem(x)).relu()
        z = self.branch_norm(self.branch(y))
        z = z * self.excite(self.squeeze(z.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head(self.dropout((y + z).relu().mean((2, 3))))


def compacted(model: nn.Module, kind: str) -> tuple[Compaction, nn.Module]:
    """The compaction of a float64 model and the masked original."""
    model = model.double()
    example = (torch.randn(4, 3, 8, 8, **DOUBLE),)
    masks = channel_masks(view_of(model, example), kind)
    return compact(capture(model, example), example, masks), masked_copy(model, masks)


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss that reads every output."""
    model.zero_grad()
    model(x).pow(2).mul(torch.arange(1, 4, **DOUBLE)).sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def kept_part(tensor: Tensor, kept: dict[int, Tensor]) -> Tensor:
    """The entries of an original tensor that are left."""
    for axis, index in kept.items():
        tensor = tensor.index_select(axis, index)
    return tensor


@pytest.mark.parametrize("training", [True, False], ids=["batch statistics", "stored statistics"])
def test_gradients_of_a_step_equal_the_masked_models(training: bool) -> None:
    result, reference = compacted(randomise(Network()), "M2")
    x = torch.randn(4, 3, 8, 8, **DOUBLE)
    expected = gradients(reference.train(training), x)
    found = gradients(result.module.train(training), x)
    assert set(found) == set(expected)
    for name, gradient in found.items():
        part = kept_part(expected[name], result.plan.kept.get(name, {}))
        assert_same_outputs(part, gradient, 1e-10)


def test_batch_statistics_after_a_step_equal_the_masked_models() -> None:
    result, reference = compacted(randomise(Network()), "M2")
    x = torch.randn(4, 3, 8, 8, **DOUBLE)
    with torch.no_grad():
        assert_same_outputs(reference.train()(x), result.module.train()(x))
        assert_same_outputs(reference.eval()(x), result.module.eval()(x))
    expected = dict(reference.named_buffers())
    for name, buffer in result.module.named_buffers():
        if "running" in name:
            assert_same_outputs(kept_part(expected[name], result.plan.kept.get(name, {})), buffer)


def test_gradients_with_constant_channels_equal_where_weights_read_live_channels() -> None:
    """Under M1 a carrier stands for several channels, so what makes the carrier itself gets the sum of their gradients."""
    result, reference = compacted(randomise(Network()), "M1")
    x = torch.randn(4, 3, 8, 8, **DOUBLE)
    expected, found = gradients(reference.eval(), x), gradients(result.module.eval(), x)
    live = {
        name: (parameter != 0).flatten(1).any(1)
        for name, parameter in result.module.named_parameters()
        if parameter.dim() > 1
    }
    for name in ("stem.weight", "branch.weight", "squeeze.weight", "excite.weight", "head.weight"):
        part = kept_part(expected[name], result.plan.kept.get(name, {}))
        assert_same_outputs(part[live[name]], found[name][live[name]], 1e-10)


def test_parameters_keep_their_names_and_stay_parameters() -> None:
    result, reference = compacted(randomise(Network()), "M2")
    original = dict(reference.named_parameters())
    assert set(dict(result.module.named_parameters())) == set(original)
    assert set(dict(result.module.named_buffers())) <= set(dict(reference.named_buffers()))


def test_what_was_frozen_stays_frozen() -> None:
    model = randomise(Network())
    model.stem.requires_grad_(False)
    result, _ = compacted(model, "M2")
    assert {name for name, p in result.module.named_parameters() if not p.requires_grad} == {"stem.weight"}


def test_the_result_shares_no_tensor_with_the_model() -> None:
    model = randomise(Network())
    result, _ = compacted(model, "M2")
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in result.module.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_dropout_is_active_in_training_only() -> None:
    result, _ = compacted(randomise(Network(0.5)), "M2")
    x = torch.randn(4, 3, 8, 8, **DOUBLE)
    module = result.module
    assert torch.equal(module.eval()(x), module.eval()(x))
    assert not torch.equal(module.train()(x), module.train()(x))
    assert torch.equal(module.eval()(x), module.eval()(x))


def test_flags_reach_the_module() -> None:
    result, _ = compacted(randomise(Network()), "M2")
    assert not result.module.training
    assert result.module.train().training
    assert not result.module.eval().training


def test_a_deep_copy_is_a_captured_module_of_its_own() -> None:
    result, _ = compacted(randomise(Network()), "M2")
    twin = copy.deepcopy(result.module)
    assert isinstance(twin, CapturedModule)
    x = torch.randn(4, 3, 8, 8, **DOUBLE)
    assert torch.equal(twin(x), result.module(x))
    twin.train()
    assert not result.module.training
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert result.module(x).abs().sum() > 0


def test_norms_without_stored_statistics_are_the_same_in_training_and_inference() -> None:
    class Norms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.batch, self.instance = nn.BatchNorm2d(8, track_running_stats=False), nn.InstanceNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.instance(self.batch(self.first(x))))

    model = randomise(Norms()).double()
    x = torch.randn(4, 3, 8, 8, **DOUBLE)
    module = capture(model, (x,))
    for mode in (True, False):
        assert_same_outputs(model.train(mode)(x), module.train(mode)(x))


def test_instance_norm_with_stored_statistics_follows_the_flag() -> None:
    model = randomise(nn.InstanceNorm2d(3, affine=True, track_running_stats=True)).double()
    x = torch.randn(4, 3, 8, 8, **DOUBLE)
    module = capture(model, (x,))
    assert_same_outputs(model.eval()(x), module.eval()(x))
    assert_same_outputs(model.train()(x), module.train()(x))

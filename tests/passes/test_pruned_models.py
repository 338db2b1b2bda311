"""Models that torch.nn.utils.prune or parametrisations have been at are taken as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact

from ..support.models import assert_same_outputs, randomise, widths

DOUBLE = {"dtype": torch.float64}


class Network(nn.Module):
    """Two convolutions with normalisation, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.norm(self.first(x)).relu()).sigmoid()
        return self.head(y.mean((2, 3)))


def check(model: nn.Module, masks: Any = None) -> Any:
    """Compacts without further masks and compares with the model itself."""
    example = (torch.randn(2, 3, 8, 8, **DOUBLE),)
    result = compact(capture(model, example), example, masks)
    unseen = torch.randn(2, 3, 8, 8, **DOUBLE)
    with torch.no_grad():
        assert_same_outputs(model(unseen), result.module(unseen))
    return result


def pruned(permanent: bool, method: str) -> nn.Module:
    """A model pruned by PyTorch's own tools, the same for every call."""
    torch.manual_seed(1)
    model = randomise(Network()).double()
    for layer in (model.first, model.second):
        if method == "random":
            prune.random_structured(layer, "weight", 0.5, dim=0)
        else:
            prune.ln_structured(layer, "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(model.head, "weight", 0.3)
    if permanent:
        for layer in (model.first, model.second, model.head):
            prune.remove(layer, "weight")
    return model


@pytest.mark.parametrize("permanent", [False, True], ids=["with hooks", "made permanent"])
@pytest.mark.parametrize("method", ["random", "norm"])
def test_filters_pruned_by_pytorch_are_removed(method: str, permanent: bool) -> None:
    result = check(pruned(permanent, method))
    assert widths(result) == {"first": 4, "second": 4, "head": 5}
    assert "first.weight" in dict(result.module.named_parameters())
    assert not any("mask" in name or "orig" in name for name in result.module.state_dict())


def test_both_ways_give_the_same_model() -> None:
    first, second = (check(pruned(permanent, "norm")) for permanent in (False, True))
    assert first.after == second.after
    for name, parameter in first.module.named_parameters():
        assert torch.equal(parameter, second.module.get_parameter(name))


def test_pruned_weights_stay_trainable() -> None:
    result = check(pruned(False, "norm"))
    assert all(parameter.requires_grad for parameter in result.module.parameters())


def test_masks_on_top_of_pytorchs_name_the_weight() -> None:
    model = pruned(False, "norm")
    example = (torch.randn(2, 3, 8, 8, **DOUBLE),)
    result = compact(capture(model, example), example, {"second.weight": torch.arange(8) > 6})
    reference = pruned(True, "norm")
    with torch.no_grad():
        reference.get_parameter("second.weight")[:7] = 0
        assert_same_outputs(reference(*example), result.module(*example))


def test_input_channels_pruned_by_pytorch_are_removed() -> None:
    model = randomise(Network()).double()
    prune.ln_structured(model.second, "weight", 0.5, n=2, dim=1)
    assert widths(check(model))["first"] == 4


def test_parametrised_weights_become_plain_ones() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", (torch.arange(8) > 3).reshape(8, 1, 1, 1))

        def forward(self, weight: Tensor) -> Tensor:
            return weight * self.mask

    model = randomise(Network()).double()
    parametrize.register_parametrization(model.first, "weight", Halved())
    result = check(model)
    assert widths(result)["first"] == 4
    assert "first.weight" in dict(result.module.named_parameters())


def test_parametrisations_that_write_in_place_are_exact() -> None:
    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            mask = torch.ones_like(weight)
            mask[:4] = 0
            return weight * mask

    model = randomise(Network()).double()
    parametrize.register_parametrization(model.first, "weight", Halved())
    assert widths(check(model))["second"] == 8


@pytest.mark.parametrize("kind", ["spectral", "weight", "orthogonal", "old weight", "old spectral"])
def test_normalised_weights_are_exact(kind: str) -> None:
    wrap: Any = {
        "spectral": parametrizations.spectral_norm,
        "weight": parametrizations.weight_norm,
        "orthogonal": parametrizations.orthogonal,
        "old weight": nn.utils.weight_norm,
        "old spectral": nn.utils.spectral_norm,
    }[kind]
    model = randomise(Network())
    with torch.no_grad():
        model.head.weight[:, :3] = 0
    wrap(model.second)
    result = check(model.double().eval())
    assert widths(result)["second"] == 5
    assert "second.weight" in dict(result.module.named_parameters())


def test_masks_of_the_head_remove_what_only_it_reads() -> None:
    model = randomise(Network()).double()
    with torch.no_grad():
        model.head.weight[:, :3] = 0
    assert widths(check(model))["second"] == 5


def test_weights_with_noise_are_not_baked_in() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.conv2d(x, self.weight * 0 + torch.rand_like(self.weight))

    module = capture(Noisy().double(), (torch.randn(1, 3, 4, 4, **DOUBLE),))
    x = torch.ones(1, 3, 4, 4, **DOUBLE)
    canonical = canonicalize(module)
    assert not torch.equal(canonical(x), canonical(x))

"""Zeros are recognised in any network, whoever made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune

from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact
from reconvene.passes.structures import find_structure

IMAGE = (torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)),)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8)
    ).eval()


def structures(model: nn.Module, masks: dict[str, torch.Tensor] | None = None) -> dict[str, str | None]:
    found = compact(capture(model, IMAGE), IMAGE, masks)
    return {layer.name: layer.structure for layer in found.zeros}


def test_a_network_without_zeros_has_nothing_to_tell() -> None:
    assert compact(capture(net(), IMAGE), IMAGE).zeros == ()


def by_torch(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[2], "weight", amount=0.7)


def by_torch_made_permanent(model: nn.Sequential) -> None:
    by_torch(model)
    prune.remove(model[2], "weight")


def by_custom_mask(model: nn.Sequential) -> None:
    """Of a parametrisation that torch keeps: 2:4 along the input channels, which no method of its own makes."""
    weight = model[2].weight.detach()
    prune.custom_from_mask(model[2], "weight", find_structure("2:4").mask(weight.abs(), 0))


def by_file(model: nn.Sequential) -> None:
    """Weights with zeros, loaded from somewhere."""
    state = model.state_dict()
    state["2.weight"] = find_structure("pattern:4").project(state["2.weight"], 0.8)
    model.load_state_dict(state)


@pytest.mark.parametrize(
    ("zeroed", "structure"),
    [
        (by_torch, "unstructured"),
        (by_torch_made_permanent, "unstructured"),
        (by_custom_mask, "2:4"),
        (by_file, "pattern:4"),
    ],
)
def test_zeros_of_convolutions(zeroed: Callable[[nn.Sequential], None], structure: str) -> None:
    model = net()
    zeroed(model)
    assert structures(model) == {"0.weight": None, "2.weight": structure, "5.weight": None}


@pytest.mark.parametrize(
    ("block", "zeros", "structure", "squash"),
    [
        ((1, 4), 2, "2:4", False),
        ((1, 4), 4, "block-row:4", False),
        ((4, 1), 4, "row-block:4", True),
        ((1, 1), 1, "unstructured", True),
    ],
)
def test_zeros_of_torch_ao_pruning(block: tuple[int, int], zeros: int, structure: str, squash: bool) -> None:
    """Its sparsifiers, before and after masks are made permanent."""
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    level = 1.0 if zeros < 4 and block == (1, 4) else 0.5
    sparsifier = WeightNormSparsifier(sparsity_level=level, sparse_block_shape=block, zeros_per_block=zeros)
    sparsifier.prepare(model, [{"tensor_fqn": "2.weight"}])
    sparsifier.step()
    if squash:
        sparsifier.squash_mask()
    inputs = (torch.randn(1, 16),)
    found: Any = compact(capture(model, inputs), inputs)
    assert [(layer.name, layer.structure) for layer in found.zeros] == [
        ("0.weight", None), ("2.weight", structure), ("4.weight", None),
    ]  # fmt: skip
    assert found.zeros[1].zeros == 128 - (256 - found.zeros[1].weights)  # Rows and columns without a weight are gone.


def test_zeros_of_masks_and_what_they_take() -> None:
    model = net()
    mask = find_structure("row-block:4").mask(model[2].weight.detach().square(), 0.75)
    found = compact(capture(model, IMAGE), IMAGE, {"2.weight": mask})
    layer = next(layer for layer in found.zeros if layer.name == "2.weight")
    assert (layer.structure, layer.weights, layer.zeros, layer.shape) == ("row-block:4", 2304, 1728, (16, 16, 3, 3))
    assert layer.storage == {"dense": 9216, "csr": 576 * 4 + 576 + 17 * 2, "block rows": 576 * 4 + 144 + 5}
    assert found.zeros[0].storage == {"dense": 1728} and found.zeros[0].structure is None


def test_what_can_go_as_channels_goes_and_the_rest_is_told() -> None:
    """Half of the filters of the second convolution are zero, and of the first one as many as nobody reads."""
    model = net()
    prune.ln_structured(model[2], "weight", amount=0.5, n=2, dim=1)
    with torch.no_grad():
        model[0].weight[:, :, 0] = 0
    found = compact(capture(model, IMAGE), IMAGE)
    assert [(layer.shape, layer.structure) for layer in found.zeros] == [
        ((8, 3, 3, 3), "row-block:8"), ((16, 8, 3, 3), None), ((8, 16), None),
    ]  # fmt: skip


def test_few_zeros_are_told_and_stored_dense() -> None:
    model = net()
    with torch.no_grad():
        model[2].weight[3, 4, 1, 1] = 0
    found = compact(capture(model, IMAGE), IMAGE).zeros[1]
    assert (found.structure, found.zeros) == ("unstructured", 1) and list(found.storage) == ["dense"]

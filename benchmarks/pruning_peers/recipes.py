"""How Torch-Pruning is used: plainly, and in the ways that it offers where that does not get through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["RECIPES", "Recipe", "pruner_of"]

CLASSES = 1000


@dataclass(frozen=True)
class Recipe:
    """One way to use Torch-Pruning.

    Attributes:
        name: what the table calls it.
        done: what it does, for the page.
        fits: returns if a network, by name, is of the kind it is for.
        options: further arguments of the pruner.
        repair: what the user updates in the pruned network by hand.
    """

    name: str
    done: str
    fits: Callable[[str], bool]
    options: Callable[[nn.Module], dict[str, Any]]
    repair: Callable[[nn.Module], None] = lambda network: None


def classifiers(network: nn.Module) -> list[nn.Module]:
    """The layers that make the classes, or whatever else is the output, which must keep its width."""
    weighted = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    found = [layer for layer in weighted if layer.weight.shape[0] == CLASSES]
    return found or weighted[-1:]


def _halves(network: nn.Module) -> dict[str, Any]:
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    return {"out_channel_groups": dict.fromkeys(layers, 2)}


def _update_selective_kernels(network: nn.Module) -> None:
    from timm.layers import SelectiveKernel

    for module in network.modules():
        if isinstance(module, SelectiveKernel):
            module.in_channels = sum(path.conv.in_channels for path in module.paths)


def _update_mixed_convolutions(network: nn.Module) -> None:
    from timm.layers import MixedConv2d

    for module in network.modules():
        if isinstance(module, MixedConv2d):
            module.splits = [convolution.weight.shape[1] * convolution.groups for convolution in module.values()]


def _without_mixed_convolutions(network: nn.Module) -> dict[str, Any]:
    from timm.layers import MixedConv2d

    return {"ignored_layers": [module for module in network.modules() if isinstance(module, MixedConv2d)]}


def _swin_pruners(network: nn.Module) -> dict[str, Any]:
    import torch_pruning as tp
    from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention

    class Attention(tp.BasePruningFunc):
        """Its input is that of ``qkv``, its output that of ``proj``; heads keep their width."""

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            tp.prune_linear_out_channels(layer.proj, idxs)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            tp.prune_linear_in_channels(layer.qkv, idxs)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.proj.out_features)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.qkv.in_features)

    class Merging(tp.BasePruningFunc):
        """Four neighbours beside each other, normalised and reduced."""

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            tp.prune_linear_out_channels(layer.reduction, idxs)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            width = self.get_in_channels(layer)
            repeated = [index + neighbour * width for neighbour in range(4) for index in idxs]
            tp.prune_linear_in_channels(layer.reduction, repeated)
            tp.prune_layernorm_out_channels(layer.norm, repeated)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.reduction.out_features)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.reduction.in_features) // 4

    return {
        "customized_pruners": {ShiftedWindowAttention: Attention(), PatchMerging: Merging()},
        "root_module_types": (nn.Conv2d, nn.Linear, PatchMerging),
    }


def _only_perceptrons(network: nn.Module) -> dict[str, Any]:
    from torchvision.ops import MLP

    hidden = {id(module[0]) for module in network.modules() if isinstance(module, MLP)}
    weighted = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return {"ignored_layers": [module for module in weighted if id(module) not in hidden]}


RECIPES = (
    Recipe(
        "plain",
        "`BasePruner` with `GroupMagnitudeImportance(p=2)`, `pruning_ratio=0.5`, the classifier in `ignored_layers`",
        lambda name: True,
        lambda network: {},
    ),
    Recipe(
        "channel groups",
        "`out_channel_groups` of two everywhere, because the selective kernels split their input into halves that must "
        "lose equally many; their attribute `in_channels` updated afterwards, as the README asks for static attributes",
        lambda name: "skresnet" in name,
        _halves,
        _update_selective_kernels,
    ),
    Recipe(
        "static attributes",
        "plain, and the attribute `splits` of the mixed convolutions updated afterwards",
        lambda name: "mixnet" in name,
        lambda network: {},
        _update_mixed_convolutions,
    ),
    Recipe(
        "mixed convolutions ignored",
        "the mixed convolutions in `ignored_layers`, and `splits` updated",
        lambda name: "mixnet" in name,
        _without_mixed_convolutions,
        _update_mixed_convolutions,
    ),
    Recipe(
        "customized pruners",
        "`customized_pruners` for window attention and patch merging, as in its example for the Swin of another library",
        lambda name: name.startswith("swin"),
        _swin_pruners,
    ),
    Recipe(
        "only the MLPs",
        "every layer but the first of each MLP in `ignored_layers`",
        lambda name: name.startswith("swin"),
        _only_perceptrons,
    ),
)
"""In the order they are tried; the first that gives a network which runs is the one the table shows."""


def pruner_of(network: nn.Module, inputs: tuple[torch.Tensor, ...], recipe: Recipe) -> Any:
    """Torch-Pruning's pruner for the recipe."""
    import torch_pruning as tp

    options = recipe.options(network)
    ignored = [*classifiers(network), *options.pop("ignored_layers", ())]
    # Its default arguments are mutable and remember the last network.
    fresh: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
    return tp.pruner.BasePruner(
        network,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
        **(fresh | options),
    )

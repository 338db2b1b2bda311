"""Networks the benchmarks run on: torchvision's builders, untrained, with every statistic and constant randomised."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from reconvene.frontend.networks.papers import resnet20_cifar, vgg16_cifar
from reconvene.frontend.networks.pretrained import efficientnet_lite0
from reconvene.passes.dependency import DependencyView
from reconvene.passes.pruning.decisions import masks_of
from reconvene.passes.pruning.methods.one_shot import Random
from reconvene.passes.pruning.scores import Evidence

__all__ = ["EXACTNESS", "build", "image_size", "masked_copy", "masks_for", "randomise"]

EXACTNESS = (
    "alexnet vgg11 vgg11_bn resnet18 squeezenet1_1 mobilenet_v2 mobilenet_v3_small shufflenet_v2_x0_5 mnasnet0_5 "
    "efficientnet_b0 regnet_x_400mf regnet_y_400mf densenet121 googlenet inception_v3 resnext50_32x4d "
    "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large convnext_tiny vit_b_32 swin_t"
).split()
"""The classifiers and segmenters exactness is shown on."""

_SEGMENTATION = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")
_DECLARED: list[torch.library.Library] = []


def torchvision_models() -> Any:
    """``torchvision.models``, importable beside a CPU build of torch too: its two missing operators are declared."""
    if not _DECLARED:
        try:
            import torchvision.models as models
        except RuntimeError:
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _DECLARED.append(library)
    import torchvision.models as models

    return models


def build(name: str, seed: int = 0) -> nn.Module:
    """A network in inference mode, untrained: by torchvision's name, or one of ours.

    Ours are ``vgg16_cifar``, ``resnet20_cifar``, and ``efficientnet_lite0``, which has its weights.
    """
    torch.manual_seed(seed)
    ours = {"vgg16_cifar": vgg16_cifar, "resnet20_cifar": resnet20_cifar, "efficientnet_lite0": efficientnet_lite0}
    if name in ours:
        return ours[name]().eval()
    models = torchvision_models()
    if name in _SEGMENTATION:
        network: nn.Module = getattr(models.segmentation, name)(weights=None, weights_backbone=None)
    else:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        network = getattr(models, name)(**options)
    return network.eval()


def image_size(name: str, small: bool) -> int:
    """The resolution the network was designed for, or the smallest sensible one."""
    if name in ("vgg16_cifar", "resnet20_cifar"):
        return 32
    if not small:
        return 299 if name == "inception_v3" else 224
    return {"inception_v3": 128, "googlenet": 96, "vit_b_32": 224}.get(name, 64)


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random values for all biases, statistics and whatever an untrained network holds constant (heads, layer scales)."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    for name, parameter in network.named_parameters():
        constant = parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
        if parameter.dim() == 1 or constant:
            parameter.data = 0.5 * noise(parameter) + (1.0 if name.endswith("weight") and parameter.dim() == 1 else 0.0)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.data = noise(buffer).abs() + 0.5
        elif name.endswith("running_mean"):
            buffer.data = 0.5 * noise(buffer)
    return network


def masks_for(view: DependencyView, kind: str, share: float = 0.5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Masks of a random `share` of the channels of every prunable group.

    M1 zeroes the weights that make a channel and leaves biases and normalisation alone, so a dead channel is a constant
    that need not be zero; M2 zeroes all of its affine parameters.
    """
    masks = masks_of(view, Random().decide(view, Evidence(seed=seed), share))
    return masks if kind == "M2" else {name: mask for name, mask in masks.items() if mask.dim() > 1}


def masked_copy(network: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network with masked entries zeroed: the reference, independent of any graph."""
    reference = copy.deepcopy(network)
    parameters = dict(reference.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask)
    return reference

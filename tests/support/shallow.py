"""Torchvision's and timm's architectures with few blocks of each kind: all that makes their graphs what they are.

The networks themselves are run by ``make zoo`` and `benchmarks/exactness.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import timm
from timm.models import byobnet, dla, ghostnet
from timm.models import efficientnet as timm_efficientnet
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn
from torchvision import models
from torchvision.models import mobilenetv3, resnet, video
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import deeplabv3

__all__ = ["SHALLOW", "Shallow"]

Shallow = tuple[Callable[[], nn.Module], tuple[int, ...]]
"""A builder, and the shape of an input."""

IMAGE = (1, 3, 64, 64)


def alexnet() -> nn.Module:
    network = models.alexnet(num_classes=20)
    network.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 36, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 20)
    )
    return network


def mobilenet_v3() -> models.MobileNetV3:
    def block(*sizes: Any) -> mobilenetv3.InvertedResidualConfig:
        return mobilenetv3.InvertedResidualConfig(*sizes, dilation=1, width_mult=1.0)

    blocks = [
        block(16, 3, 16, 16, True, "RE", 2),
        block(16, 3, 72, 24, False, "RE", 2),
        block(24, 3, 88, 24, False, "RE", 1),
        block(24, 5, 96, 40, True, "HS", 2),
        block(40, 5, 240, 40, True, "HS", 1),
    ]
    return models.MobileNetV3(blocks, 128, num_classes=20)


def segmenter() -> nn.Module:
    features = mobilenet_v3().features
    backbone = IntermediateLayerGetter(features, {str(len(features) - 1): "out"})
    return deeplabv3.DeepLabV3(backbone, deeplabv3.DeepLabHead(240, 21))


def googlenet() -> nn.Module:
    """Without those of its blocks that have as many outputs as inputs."""
    network = models.GoogLeNet(20, aux_logits=False, init_weights=False)
    network.inception4b = network.inception4c = network.inception5a = nn.Identity()
    return network


def r3d() -> nn.Module:
    layers = video.resnet
    return layers.VideoResNet(layers.BasicBlock, [layers.Conv3DSimple] * 4, [1, 1, 1, 1], layers.BasicStem, 20)


def efficientnet() -> nn.Module:
    def block(*sizes: Any) -> models.efficientnet.MBConvConfig:
        return models.efficientnet.MBConvConfig(*sizes)

    blocks = [
        block(1, 3, 1, 32, 16, 1),
        block(6, 3, 2, 16, 24, 2),
        block(6, 5, 2, 24, 40, 2),
        block(6, 3, 2, 40, 80, 1),
    ]
    return models.efficientnet.EfficientNet(blocks, 0.2, last_channel=320, num_classes=20)


def regnet() -> nn.Module:
    sizes = models.regnet.BlockParams.from_init_params(6, 48, 27.89, 2.09, 8, se_ratio=0.25)
    return models.regnet.RegNet(sizes, num_classes=20)


def convnext() -> nn.Module:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(48, 96, 2), block(96, 192, 1), block(192, None, 1)], 0.1, num_classes=20)


def ghost() -> nn.Module:
    blocks = [[[3, 16, 16, 0, 1]], [[3, 48, 24, 0, 2]], [[5, 72, 40, 0.25, 2]], [[5, 120, 40, 0.25, 1]]]
    return ghostnet.GhostNet(blocks, num_classes=20)


def mixnet() -> nn.Module:
    blocks = [
        ["ds_r1_k3_s1_e1_c16"],
        ["ir_r1_k3_a1.1_p1.1_s2_e6_c24", "ir_r1_k3_a1.1_p1.1_s1_e3_c24"],
        ["ir_r1_k3.5.7_s2_e6_c40_se0.5_nsw", "ir_r1_k3.5_a1.1_p1.1_s1_e6_c40_se0.5_nsw"],
    ]
    return timm_efficientnet.EfficientNet(decode_arch_def(blocks), num_classes=20, num_features=256, stem_size=16)


def repvgg() -> nn.Module:
    blocks = tuple(byobnet.ByoBlockCfg("rep", d=2, s=2, c=width) for width in (32, 64, 96))
    return byobnet.ByobNet(byobnet.ByoModelCfg(blocks, stem_type="rep", stem_chs=32), num_classes=20)


def aggregation() -> nn.Module:
    return dla.DLA((1, 1, 1, 2, 1, 1), (16, 24, 32, 48, 64, 96), block=dla.DlaBasic, num_classes=20)


SHALLOW: Mapping[str, Shallow] = {
    "alexnet": (alexnet, IMAGE),
    "resnet": (lambda: models.ResNet(resnet.BasicBlock, [1, 1, 1, 1], 20), IMAGE),
    "squeezenet": (lambda: models.squeezenet1_1(num_classes=20), IMAGE),
    "mobilenet_v3": (mobilenet_v3, IMAGE),
    "shufflenet_v2": (lambda: models.ShuffleNetV2([2, 2, 2], [24, 48, 96, 192, 256], 20), IMAGE),
    "efficientnet": (efficientnet, IMAGE),
    "regnet_y": (regnet, IMAGE),
    "densenet": (lambda: models.DenseNet(16, (2, 3, 2), 32, num_classes=20), IMAGE),
    "googlenet": (googlenet, (1, 3, 96, 96)),
    "deeplabv3": (segmenter, IMAGE),
    "convnext": (convnext, IMAGE),
    "vit": (lambda: models.VisionTransformer(64, 16, 2, 4, 64, 128, num_classes=20), IMAGE),
    "swin": (lambda: models.SwinTransformer([4, 4], 48, [2, 2], [3, 6], [7, 7], num_classes=20), IMAGE),
    "r3d": (r3d, (1, 3, 4, 32, 32)),
    "skresnet": (lambda: timm.create_model("skresnet18", num_classes=20, layers=[1, 1, 1, 1]), IMAGE),
    "ghostnet": (ghost, IMAGE),
    "mixnet": (mixnet, IMAGE),
    "repvgg": (repvgg, IMAGE),
    "dla": (aggregation, IMAGE),
}

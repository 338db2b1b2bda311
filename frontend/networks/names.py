"""The names of the networks that come with the package, for whoever has to know them before torch is imported."""

from __future__ import annotations

from ..base.errors import InputError

__all__ = ["NAMES", "SHORT", "unknown_model"]

NAMES = (
    "vgg16-cifar", "resnet20-cifar", "resnet8-cifar", "resnet18-cifar", "resnet50-cifar", "resnet18-imagenet",
    "resnet50-imagenet", "ds-cnn", "mobilenet-v1-vww", "autoencoder-ad", "efficientnet-lite0",
)  # fmt: skip
"""Of `papers.NETWORKS`, in its order."""

SHORT = ("vgg16", "resnet20", "resnet8", "resnet18", "resnet50")
"""Of `papers.SHORT_NAMES`: fitted to a data set."""


def unknown_model(model: str) -> InputError:
    """The error for what names no model."""
    return InputError(
        f"no model '{model}': there is no such file; give a .pt2 path, package.module:callable, file.py:callable,"
        f" or one of {', '.join(NAMES)}; with --dataset also {', '.join(SHORT)}"
    )

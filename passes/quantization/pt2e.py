"""torchao's PT2E, which puts observers into a graph and then the operators that round; it is imported when it is first used.

torchao logs which of its libraries for GPUs are not there, and torch warns of how it registers a type; nobody who quantises
can act on either.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ...frontend.base.extras import install_command
from ...frontend.base.torch_logs import quiet
from .ranges import HIGH, LOW, MOST, MinMax, affine, symmetric

__all__ = ["PT2E", "load_pt2e"]


@dataclass(frozen=True)
class PT2E:
    """What is taken of torchao."""

    prepare: Callable[[fx.GraphModule, Any], fx.GraphModule]
    convert: Callable[[fx.GraphModule], fx.GraphModule]
    quantizer: type
    """Base of what annotates a graph."""
    annotation: Callable[..., Any]
    spec: Callable[..., Any]
    shared: Callable[..., Any]
    key: str
    """Of an annotation, in a node's ``meta``."""
    observer: type
    """Of values: looks through a `ranges.MinMax`."""
    weight_observer: type
    """Of weights: a scale for each channel."""


@cache
def load_pt2e() -> PT2E:
    """torchao's functions and our observers for them.

    Raises:
        InputError: torchao is not installed, or another version that lacks them.
    """
    with quiet("torchao", "torch.utils._pytree"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchao.quantization.pt2e import ObserverBase
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
            from torchao.quantization.pt2e.quantizer import (
                QuantizationAnnotation,
                QuantizationSpec,
                Quantizer,
                SharedQuantizationSpec,
            )
            from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY
        except ImportError as error:
            what = "torchao" if "torchao" in str(error.name) else f"torchao 0.18, and here '{error.name}' is missing"
            raise InputError(f"quantising needs {what}; run: {install_command('int8')}") from None
    observer, weight_observer = _observers(ObserverBase)
    return PT2E(
        _muted(prepare_pt2e), _muted(convert_pt2e), Quantizer, QuantizationAnnotation, QuantizationSpec,
        SharedQuantizationSpec, Q_ANNOTATION_KEY, observer, weight_observer,
    )  # fmt: skip


def _muted(function: Callable[..., fx.GraphModule]) -> Callable[..., fx.GraphModule]:
    def call(*args: Any) -> fx.GraphModule:
        with quiet("torchao", "torch.export", below=logging.ERROR), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args)

    return call


def _observers(base: Any) -> tuple[type, type]:
    """Observers as PT2E wants them: modules with ``calculate_qparams``. Their names say which are for channels."""

    class ValueObserver(base):
        """Of values between layers."""

        qscheme, quant_min, quant_max = torch.per_tensor_affine, LOW, HIGH

        def __init__(self, range_kind: type[MinMax] = MinMax, **_: Any) -> None:
            super().__init__(torch.int8)
            self.range = range_kind()

        def forward(self, values: Tensor) -> Tensor:
            self.range.look(values)
            return values

        def calculate_qparams(self) -> tuple[Tensor, Tensor]:
            scale, zero = affine(*self.range.ends())
            return torch.tensor([scale]), torch.tensor([zero])

    class WeightObserverPerChannel(base):
        """Of weights, which do not change from call to call."""

        qscheme, quant_min, quant_max = torch.per_channel_symmetric, -MOST, MOST

        def __init__(self, ch_axis: int = 0, **_: Any) -> None:
            super().__init__(torch.int8)
            self.ch_axis = ch_axis
            self.weight: Tensor | None = None
            self.floor: Tensor | None = None

        def forward(self, weight: Tensor) -> Tensor:
            self.weight = weight.detach()
            return weight

        def calculate_qparams(self) -> tuple[Tensor, Tensor]:
            assert self.weight is not None
            scales = symmetric(self.weight, self.ch_axis, self.floor)
            return scales, torch.zeros_like(scales, dtype=torch.int64)

    return ValueObserver, WeightObserverPerChannel

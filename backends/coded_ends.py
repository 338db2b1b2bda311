"""Compiled code that takes and gives codes: the model is changed so before, and what they stand for is told afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..frontend.base.errors import InputError
from ..frontend.capture import FIXED, capture
from ..frontend.quantized_operators import is_quantized
from ..passes.integers.ends import CodedEnds, Ends, Scale, on_codes
from .artifact import Artifact
from .tensor_spec import CodeScale, TensorSpec

__all__ = ["coded_ends", "with_scales"]


def coded_ends(module: nn.Module, inputs: tuple[Any, ...], codes: Ends, pipeline: str, name: str) -> CodedEnds:
    """`module`, which messages call `name`, on codes at some ends. Raises InputError where it has none there."""
    if not is_quantized(module):
        raise InputError(
            f"{name} is not quantised, so it has no codes to take or give; leave codes out, or quantise it first"
        )
    if pipeline != "reconvene":
        raise InputError(f"the pipeline '{pipeline}' computes in float32; leave out codes='{codes}'")
    return on_codes(capture(module, inputs, FIXED), codes)


def with_scales(artifact: Artifact, ends: CodedEnds | None) -> Artifact:
    """Says what the codes stand for that the code takes and gives."""
    if ends is None:
        return artifact
    inputs, outputs = _told(artifact.inputs, ends.inputs), _told(artifact.outputs, ends.outputs)
    return replace(artifact, inputs=inputs, outputs=outputs)


def _told(specs: Sequence[TensorSpec], scales: Sequence[Scale | None]) -> tuple[TensorSpec, ...]:
    return tuple(
        spec if scale is None else replace(spec, codes=CodeScale(scale.scale, scale.zero_point))
        for spec, scale in zip(specs, scales, strict=True)
    )

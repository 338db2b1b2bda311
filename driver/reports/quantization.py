"""The report of one quantisation: what is rounded, what stayed float and why, and what it costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...passes.quantization.noise import NetworkNoise
from ...passes.quantization.quantize import FloatLayer, QuantizedLayer

__all__ = ["SCHEMA", "QuantizationReport"]

SCHEMA = "reconvene.quantization/1"


@dataclass(frozen=True)
class QuantizationReport:
    """Everything a person or a program may want to know of one quantisation. Ratios are in dB, see `passes.quantization.noise`.

    Attributes:
        title: of the model.
        options: what was asked for.
        network: of the outputs: signal-to-noise ratio, agreement of the likeliest class, and on how many inputs.
        layers: rounded ones, each with its own signal-to-noise ratio.
        floats: layers that stay float, with the reasons.
        operators: how often other operators read values that are not rounded.
        bytes_before: of parameters and buffers.
        bytes_after: the same.
        equalized: pairs of layers whose weights were given equal ranges.
        corrected: layers whose bias was corrected.
        calibration: what ranges were found on.
        evaluation: what ratios were measured on.
        seconds: wall time.
        environment: versions and machine.
    """

    title: str
    options: Mapping[str, Any]
    network: NetworkNoise
    layers: tuple[QuantizedLayer, ...]
    floats: tuple[FloatLayer, ...]
    operators: Mapping[str, int]
    bytes_before: int
    bytes_after: int
    equalized: int
    corrected: int
    calibration: str
    evaluation: str
    seconds: float
    environment: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types, with the name and version of its schema."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @property
    def summary(self) -> str:
        """One line: layers, ratio, agreement."""
        ratio = "no noise" if self.network.decibels is None else f"{self.network.decibels:.1f} dB"
        same = self.network.agreement
        agreed = "" if same is None else f", the same class for {same:.1%} of them"
        layers = f"{len(self.layers)} layers in 8 bits, {len(self.floats)} in float"
        return f"{layers}; {ratio} on {self.network.examples} inputs{agreed}"

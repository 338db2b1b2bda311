"""What layers of codes (int8) cost beside float32 on ARM boards that are not here: multiply-accumulates in a cycle.

    python benchmarks/integer_kernels.py [--targets rpi5 rpi4 rpi3] [--zeros 0.5 0.8 0.9] [--json FILE]

Every candidate of a layer runs alone under QEMU and goes through LLVM's model of the core (docs/estimate.md); the best of each
kind of kernel counts. With zeros, whole blocks of four outputs and four inputs at a place of the window are zero, and figures
are how many times faster than all weights of the same type. It is deterministic.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reconvene.backends.estimate.kernel import estimate_kernel
from reconvene.backends.graph.nodes import Convolution, Weights
from reconvene.backends.kernels.base import LayerSpec, Task, trial_of
from reconvene.backends.kernels.epilogue import Epilogue, Operand, Step
from reconvene.backends.kernels.families import candidates
from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.layers import convolution_spec, depthwise_spec
from reconvene.backends.lowering.layout import Image, dense_view
from reconvene.backends.machines.targets import Target, find_target
from reconvene.frontend.base.files import write_text


@dataclass(frozen=True)
class Layer:
    """A square convolution from as many channels to as many; `size` is the result's."""

    window: int
    channels: int
    size: int
    stride: int = 1
    depthwise: bool = False

    @property
    def name(self) -> str:
        kind = f"depthwise {self.window}x{self.window}" if self.depthwise else f"{self.window}x{self.window}"
        return f"{kind}{'' if self.stride == 1 else f', stride {self.stride}'}, {self.channels} channels at {self.size}"

    @property
    def macs(self) -> int:
        inputs = 1 if self.depthwise else self.channels
        return self.channels * inputs * self.window**2 * self.size**2


LAYERS = (
    Layer(3, 64, 28),
    Layer(3, 256, 14),
    Layer(3, 64, 28, 2),
    Layer(1, 64, 28),
    Layer(1, 256, 14),
    Layer(3, 96, 28, depthwise=True),
    Layer(3, 96, 14, 2, depthwise=True),
    Layer(5, 96, 14, depthwise=True),
)


def main() -> int:
    options = _options()
    rows = [row for name in options.targets for row in measure(find_target(name), options.zeros)]
    print(table(rows))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--targets", nargs="+", default=["rpi5", "rpi4", "rpi3"])
    parser.add_argument("--zeros", nargs="*", type=float, default=[0.8], help="shares of weights that are zero")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(target: Target, zeros: Sequence[float], layers: Sequence[Layer] = LAYERS) -> list[dict[str, Any]]:
    """For every layer the multiply-accumulates in a cycle of the best kernel of each kind, and of sparse ones how many times
    faster they are than all weights.
    """
    rows = []
    for layer in layers:
        row: dict[str, Any] = {"target": target.name, "layer": layer.name}
        for dtype in ("float32", target.machine.codes):
            for spec in specs(layer, target.machine, dtype, 0.0):
                kind = f"{'float32' if dtype == 'float32' else 'int8'} {_kind(spec)}"
                row[kind] = max(row.get(kind, 0.0), layer.macs / _cycles(spec, target))
        dense = max(value for kind, value in row.items() if kind.startswith("int8"))
        for share in zeros if not layer.depthwise else ():
            cycles = min(_cycles(spec, target) for spec in specs(layer, target.machine, target.machine.codes, share))
            row[f"int8, {share:.0%} zeros"] = layer.macs / dense / cycles
        rows.append(row)
        figures = (f"{kind} {value:.2f}" for kind, value in row.items() if isinstance(value, float))
        print(f"{target.name}, {layer.name}: {', '.join(figures)}", flush=True)
    return rows


def _kind(spec: LayerSpec) -> str:
    return "winograd" if "winograd" in spec.family else "direct"


def _cycles(spec: LayerSpec, target: Target) -> float:
    trial = trial_of(spec)
    return estimate_kernel(trial.function, target, trial.tables, caches=False).cycles


def specs(layer: Layer, machine: Machine, dtype: str, zeros: float) -> tuple[LayerSpec, ...]:
    """The kernels that compete for a layer whose input and result are of type `dtype`."""
    lanes, halo = machine.lanes(dtype), layer.window // 2
    blocks = -(-layer.channels // lanes)
    size = layer.size * layer.stride
    source = dense_view(1, blocks, size, size, lanes, halo, dtype)
    result = dense_view(1, blocks, layer.size, layer.size, lanes, 0, dtype)
    convolution = Convolution(
        Weights(_weights(layer, zeros), np.zeros(layer.channels)),
        stride=(layer.stride,) * 2,
        padding=(halo,) * 4,
        groups=layer.channels if layer.depthwise else 1,
    )
    epilogue = _epilogue(result, machine)
    if layer.depthwise:
        return (depthwise_spec(convolution, source, result, epilogue, machine),)
    slots = np.arange(layer.channels, dtype="int64")
    spec = convolution_spec(convolution, Image(np.zeros(1), source, slots), result, epilogue, machine)
    return candidates(Task(spec), machine)


def _weights(layer: Layer, zeros: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    random = np.random.default_rng(0)
    inputs = 1 if layer.depthwise else layer.channels
    shape = (layer.channels, inputs, layer.window, layer.window)
    whole = random.integers(1, 128, shape).astype("float64")
    if not zeros:
        return whole
    kept = random.random((shape[0] // 4, shape[1] // 4, *shape[2:])) >= zeros
    return whole * np.repeat(np.repeat(kept, 4, axis=0), 4, axis=1)


def _epilogue(result: View, machine: Machine) -> Epilogue:
    """What most layers end with: a clamp, of codes with a scale for each channel."""
    if not result.is_code:
        return Epilogue((Step("clip", (0.0, 6.0), (Operand("anchor"),)),), keeps_nans=machine.keeps_nans)
    scales = replace(dense_view(1, result.blocks, 1, 1, result.lanes, 0), image=0, row=0, column=0)
    step = Step("requantize", (0, -128, -128, 127), (Operand("anchor"), Operand("leaf")))
    return Epilogue((step,), (scales,), keeps_nans=machine.keeps_nans, dot=machine.dot)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; a dash where there is no such kernel."""
    kinds = dict.fromkeys(kind for row in rows for kind in row if kind not in ("target", "layer"))
    lines = [f"| target | layer | {' | '.join(kinds)} |", "|---" * (2 + len(kinds)) + "|"]
    for row in rows:
        figures = (f"{row[kind]:.2f}" if kind in row else "-" for kind in kinds)
        lines.append(f"| {row['target']} | {row['layer']} | {' | '.join(figures)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())

"""What networks with 90 % zeros in row blocks take in bundles and in memory, beside the dense ones, for every runtime.

`structure_storage.py` writes it into its results. Untrained weights, as there; first and last layers are dense.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import build, image_size
from weights_memory import memory

import reconvene
from reconvene.backends.built import Built
from reconvene.backends.kernels.dots import DotsSpec
from reconvene.backends.kernels.gather import GatherSpec
from reconvene.backends.kernels.rows import RowsSpec

__all__ = ["CASES", "Case", "page", "rows_of"]

SHARE = 0.9
SKIPPING = frozenset(spec.family for spec in (GatherSpec, RowsSpec, DotsSpec))
"""Families of kernels that read weights that are not zero alone."""


@dataclass(frozen=True)
class Case:
    """A network on a target, with structures of its zeros, and the runtimes that there are for the target."""

    network: str
    target: str
    structures: tuple[str, ...] = ("row-block:4",)
    runtimes: tuple[str, ...] = ("static", "wheel", "none")


CASES = (
    Case("resnet18", "host", ("row-block:4", "row-block:16")),
    Case("resnet18", "rpi4"),
    Case("vgg16_cifar", "host", ("row-block:4", "row-block:16")),
    Case("vgg16_cifar", "rpi4"),
    Case("resnet20_cifar", "cortex-m7", runtimes=("none",)),
)


def rows_of(case: Case) -> list[dict[str, Any]]:
    """The dense network, and those with zeros."""
    size = image_size(case.network, small=True)
    inputs = (torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)),)
    model = build(case.network).eval()
    rows = []
    for structure in ("dense", *case.structures):
        module = reconvene.capture(model, inputs)
        if structure != "dense":
            module = reconvene.prune(module, structure=structure, sparsity=SHARE).module
        weights = [parameter for parameter in module.parameters() if parameter.dim() > 1]
        built = reconvene.compile(module, inputs, case.target, check=False)
        rows.append(
            {
                "network": case.network,
                "target": case.target,
                "structure": structure,
                "image": size,
                "plain_bytes": sum(parameter.numel() * parameter.element_size() for parameter in weights),
                "not_zero": sum(int(parameter.count_nonzero()) for parameter in weights),
                **_layers(built),
                "weights_bytes": built.memory.weights_bytes,
                "runtimes": {runtime: _bundle(built, runtime, inputs) for runtime in case.runtimes},
            }
        )
        print(f"{case.network} {case.target} {structure}", file=sys.stderr)
    return rows


def _layers(built: Built) -> dict[str, Any]:
    """Layers by the family of their kernel, and the bytes of those that skip zeros and of the others."""
    skips = [layer.kernel in SKIPPING for layer in built.layers]
    return {
        "kernels": dict(Counter(layer.kernel for layer in built.layers)),
        "skipping_bytes": sum(layer.bytes for layer, skip in zip(built.layers, skips, strict=True) if skip),
        "other_bytes": sum(layer.bytes for layer, skip in zip(built.layers, skips, strict=True) if not skip),
        "dense_with_zeros": sum(layer.zeros > 0 for layer, skip in zip(built.layers, skips, strict=True) if not skip),
    }


def _bundle(built: Built, runtime: str, inputs: Sequence[torch.Tensor]) -> dict[str, int | None]:
    """Bytes of a bundle: all files, the weights among them that are files, and the program; and what it takes to run it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "bundle")
        built.export(folder, runtime=runtime)
        files = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        program = folder / "run"
        return {
            "bundle": sum(files.values()),
            "weights": sum(
                size for name, size in files.items() if name.startswith("weights") and name.endswith(".bin")
            ),
            "program": files.get("run"),
            "resident": _resident(program, inputs) if built.target.runs_here and program.exists() else None,
        }


def _resident(program: Path, inputs: Sequence[torch.Tensor]) -> int:
    """Resident bytes of the program after its first call, while it waits for another."""
    arrays = BytesIO()
    for tensor in inputs:
        np.save(arrays, tensor.numpy())
    pipe = subprocess.PIPE
    with subprocess.Popen([program, "--serve"], stdin=pipe, stdout=pipe, cwd=program.parent) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(arrays.getvalue())
        process.stdin.flush()
        process.stdout.read(1)
        found = memory(process.pid)["resident"]
        process.communicate()
    return found


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The section of the results."""
    dense_with_zeros = sum(row["dense_with_zeros"] for row in rows) or "none"
    return f"""## In bundles and in memory

Networks with {SHARE:.0%} zeros in all layers but the first and the last, compiled by the cost model; MB of a million bytes.
Plain weights are those of the model in float32. A layer has its weights for the kernel that was chosen and for no other, in
bundles and in memory: dense kernels as many as the model, or Winograd's with 16 or 36 numbers for 9; kernels that skip zeros
none that is zero, and a place of 4 bytes for the weights of a column that filters share. Where vectors have more lanes than
filters share columns, `rows` kernels have some zeros after all, since that is faster than lanes that stay empty: `row-block:4`
on the wider vectors of the host. Structures as wide as vectors take less there. The last layer has no zeros, and is among the
others. Layers that have zeros and a dense kernel, for speed: {dense_with_zeros}.

{_packed(rows)}

The weights are files or a part of the program, and a process maps them. Without a runtime (`none`) a bundle has them twice: in
the sources, for who links them into a program, and in the program `run`; a device has one of the two. Resident is
what a process of `run` has in memory after its first call, the program and the values between kernels counted, where
the program runs on the machine that measured.

{_bundles(rows)}
"""


def _packed(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| network | target | zeros of | not zero | plain MB | as kernels read them MB | of layers that skip zeros MB |"
        " of the others MB | of plain | kernels |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kernels = ", ".join(f"{count} {family}" for family, count in row["kernels"].items())
        megabytes = (row[name] for name in ("plain_bytes", "weights_bytes", "skipping_bytes", "other_bytes"))
        lines.append(
            f"| {row['network']} | {row['target']} | {row['structure']} | {row['not_zero'] * 4 / row['plain_bytes']:.1%} | "
            + " | ".join(f"{value / 1e6:.2f}" for value in megabytes)
            + f" | {row['weights_bytes'] / row['plain_bytes']:.1%} | {kernels} |"
        )
    return "\n".join(lines)


def _bundles(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| network | target | zeros of | runtime | bundle, dense MB | with zeros MB | share | program, dense MB |"
        " with zeros MB | resident, dense MB | with zeros MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    dense = {(row["network"], row["target"]): row["runtimes"] for row in rows if row["structure"] == "dense"}
    for row in rows:
        for runtime, after in row["runtimes"].items() if row["structure"] != "dense" else ():
            before = dense[row["network"], row["target"]][runtime]
            bundle, program, resident = (
                f"{_megabytes(before[name])} | {_megabytes(after[name])}" for name in ("bundle", "program", "resident")
            )
            lines.append(
                f"| {row['network']} | {row['target']} | {row['structure']} | {runtime} | {bundle}"
                f" | {after['bundle'] / before['bundle']:.1%} | {program} | {resident} |"
            )
    return "\n".join(lines)


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.2f}"

"""What LiteRT takes for our networks on ARM boards that are not here, counted and modelled as our own code is.

    sh benchmarks/litert/sysroot.sh FOLDER
    python benchmarks/arm_peers.py FOLDER [--networks mobilenet_v2 ...] [--targets rpi5 ...] [--dtypes int8 float32]
        [--kinds] [--json docs/results/arm_peers.json]

LiteRT (the runtime of TensorFlow Lite; its kernels are XNNPACK's) runs from its AArch64 wheel under QEMU, on files that say the
same as our networks: in int8 the same codes, scales and zeros as `reconvene.quantize` chose. Its results are compared with
PyTorch's. Its code is counted by our plugin, and goes through the model of the core that ours goes through (docs/estimate.md).
A record is kept after every row, with a page beside it, and rows that it has already are not made again (--fresh makes all).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from litert.board import Board, board_for
from litert.file import schema_module, tflite
from litert.network import Network, network_of
from litert.page import OURS, page, table
from litert.parts import kinds_of_ours, parts_of
from litert.run import costs_of_calls, cycles_of_calls, result_of
from models import build, image_size, randomise

from reconvene import capture, quantize
from reconvene.backends.compile import compile
from reconvene.backends.estimate.board import core_of
from reconvene.backends.estimate.bundle import estimate_bundle
from reconvene.backends.estimate.cost import Cost
from reconvene.backends.estimate.tools import llvm_tool, version_of
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text
from reconvene.passes.fold_batch_norm import fold_batch_norm
from reconvene.passes.integers.scheme import Codes

STEPS = 255
"""Between the least and the largest code."""


def main() -> int:
    options = _options()
    rows: list[dict[str, Any]] = []
    if options.json and options.json.exists() and not options.fresh:
        rows = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
    try:
        for network, dtype in itertools.product(options.networks, options.dtypes):
            rows = with_network(rows, network, dtype, options)
    except ReconveneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        write_text(options.json.with_suffix(".md"), page(record(rows, options)))
    print(table(rows))
    return 0


def record(rows: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Rows, and what they depend on beside the versions that they name."""
    versions = {name: metadata.version(name) for name in ("torch", "apache-tvm", "apache-tvm-ffi")}
    return {"environment": {"threads": 1, "batch": 1, "seed": options.seed, "versions": versions}, "rows": rows}


def with_network(
    rows: list[dict[str, Any]], network: str, dtype: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """`rows` and those of a network that are missing, for both engines; each is written as soon as it is there."""
    wanted = []
    for target, ours in itertools.product(options.targets, (False, True)):
        at = {"network": network, "target": target, "dtype": dtype}
        known = [row for row in rows if at.items() <= row.items() and (row["engine"] == OURS) is ours]
        if not known or (options.kinds and not any("kinds" in row for row in known)):
            wanted.append((at, ours, known))
    peer = peer_of(network, dtype, options.seed) if wanted else None
    for at, ours, known in wanted:
        assert peer is not None
        row = at | (our_row(peer, at["target"]) if ours else their_row(peer, at["target"], options))
        rows = [one for one in rows if one not in known] + [row]
        print(json.dumps(row), flush=True)
        if options.json:
            write_text(options.json, json.dumps(record(rows, options), indent=1) + "\n")
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sysroot", type=Path, help="what benchmarks/litert/sysroot.sh made")
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2", "vgg16_cifar", "resnet18"])
    parser.add_argument("--targets", nargs="+", default=["rpi5", "rpi4", "rpi3"])
    parser.add_argument("--dtypes", nargs="+", default=["int8"], choices=["int8", "float32"])
    parser.add_argument("--kinds", action="store_true", help="run the layers of each kind alone, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget the rows that the record has")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


@dataclass(frozen=True)
class Peer:
    """A network for both engines.

    Attributes:
        module: for ours.
        network: for LiteRT.
        given: an image, ``(1, C, H, W)``.
        expected: what PyTorch computes of it.
        unit: what a difference is counted in: a step of the result's codes, or the largest number of the result.
    """

    module: nn.Module
    network: Network
    given: torch.Tensor
    expected: torch.Tensor
    unit: float


def peer_of(name: str, dtype: str, seed: int) -> Peer:
    """The network, with random biases and statistics; in int8 with ranges of the image itself, which change no cycle."""
    size = image_size(name, False)
    given = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    module = randomise(build(name, seed), seed)
    if dtype == "float32":
        network = network_of(fold_batch_norm(capture(module, (given,))))
        with torch.no_grad():
            expected = module(given)
        return Peer(module, network, given, expected, float(expected.abs().max()))
    quantised = quantize(module, (given,), example_inputs=(given,), observer="min-max").module
    with torch.no_grad():
        expected = quantised(given)
    codes = codes_for(expected)
    return Peer(quantised, network_of(quantised, codes), given, expected, codes.scale)


def codes_for(values: torch.Tensor) -> Codes:
    """Codes from the least of `values` to the largest, and of 0."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = (high - low) / STEPS or 1.0
    return Codes(scale, round(-128 - low / scale))


def their_row(peer: Peer, target: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one call of LiteRT costs, and how far its result is from PyTorch's."""
    machine = find_target(target)
    with board_for(machine, options.sysroot) as board, tempfile.TemporaryDirectory(prefix="arm-peers-") as folder:
        model = _written(peer.network, board, Path(folder) / "model.tflite")
        found = result_of(model, np.ascontiguousarray(peer.given.numpy().transpose(0, 2, 3, 1)), board)
        cost, beside = costs_of_calls(model, board, machine)
        kinds = {}
        if options.kinds:
            for index, (kind, part) in enumerate(parts_of(peer.network).items()):
                alone = _written(part, board, Path(folder) / f"part{index}.tflite")
                kinds[kind] = round(cycles_of_calls(alone, board, machine))
        engine = board.engine
    difference = np.abs(found - peer.expected.numpy()) / peer.unit
    row = {"engine": engine, "difference": float(difference.max()), "mean_difference": float(difference.mean())}
    versions = {"qemu": version_of("qemu-aarch64"), "llvm": version_of(llvm_tool("llvm-mca"))}
    row |= {"core_model": core_of(machine).model}
    return row | figures(cost) | {"beside_instructions": beside.instructions, "tools": versions} | _kinds(kinds)


def _written(network: Network, board: Board, path: Path) -> Path:
    path.write_bytes(tflite(network, schema_module(board.schema)))
    return path


def _kinds(kinds: dict[str, int]) -> dict[str, Any]:
    return {"kinds": kinds} if kinds else {}


def our_row(peer: Peer, target: str) -> dict[str, Any]:
    """The same of ours, compiled as `reconvene.compile` does unless it is told otherwise, and compared with PyTorch by it."""
    with tempfile.TemporaryDirectory() as folder:
        built = compile(peer.module, (peer.given,), target)
        found = estimate_bundle(built.export(Path(folder) / "bundle", runtime="static"))
    floats = sum(layer.calls for layer in built.artifact.layers if layer.dtype == "float32")
    kinds = kinds_of_ours({kernel.name: kernel.cycles for kernel in found.kernels}, found.other.cycles)
    row = {"engine": OURS, "layers": sum(layer.calls for layer in built.artifact.layers), "float_layers": floats}
    return row | figures(found.total) | {"core_model": found.core.model, "tools": dict(found.tools)} | _kinds(kinds)


def figures(cost: Cost) -> dict[str, Any]:
    """Of one call."""
    return {
        "instructions": cost.instructions,
        "cycles": round(cost.cycles),
        "throughput_cycles": round(cost.throughput_cycles),
        "multiply_add_cycles": round(cost.floor_cycles),
        "l1_misses": cost.l1_misses,
        "memory_mb": cost.memory_bytes / 1e6,
    }


if __name__ == "__main__":
    raise SystemExit(main())

"""Networks in 8-bit integers and in float32, dense and pruned, on every engine that has both, side by side.

    python benchmarks/integer_latency.py --json docs/results/integer_latency.json [--networks resnet18 ...] [--seconds 600]

All types, variants and engines of a network take turns in one run, on one thread with one image. The float network is pruned
at random (which costs the same to run as any other choice of as many channels), each is quantised by ``reconvene.quantize``,
and the other engines get it as an ONNX file with QuantizeLinear and DequantizeLinear, so that all compute the same network.
Outputs are compared with those of the quantised graph in PyTorch: the difference stands beside the time. With --json every
finished network is saved, and those that are there already are not measured again. An engine that dies of a network, which is
tried in a process of its own, has a dash instead of a time. Needs ``pip install .[benchmarks]``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import death, difference, lacking, prepare, values_of
from latency import environment
from models import build, image_size

import reconvene
from reconvene.backends.machines.targets import find_target
from reconvene.backends.measure import time_calls, torch_threads
from reconvene.frontend.base.files import write_text

RESULTS = """## 8-bit integers beside float32

Float32 and 8 bits, dense and without half of the channels, all engines in turns in one run; medians in ms. Other engines get
the quantised network as ONNX with QuantizeLinear and DequantizeLinear. ONNX Runtime leaves convolutions whose sums go into an
addition of branches in float32, since these graphs round behind the addition. The differences are from the quantised graph in
PyTorch, over the largest output; networks are untrained. An engine that died of a network has dashes.
"""
"""The section of the results, of a processor that sums four products of bytes at a time."""
WITHOUT_SUMS_OF_BYTES = """## 8-bit integers beside float32, without AVX-VNNI

The same on a processor without that instruction. OpenVINO multiplies bytes there and adds two products in 16 bits, which
**saturates**: of a layer whose weights and pixels are all as large as they can be it gives half of the sum (the last line).
Ours widens to 16 bits first and adds in 32, so that it is exact to the bit as everywhere, and slower than that; and 3x3
convolutions stay in float32 where Winograd's algorithm is the faster way. An engine that died of a network has dashes.
"""
"""And of one that does not."""
NETWORKS = "mobilenet_v2 resnet18 resnet50 vgg16_cifar efficientnet_lite0 squeezenet1_1".split()
ENGINES = ("reconvene", "onnxruntime", "openvino")
TYPES = ("float32", "int8")
TOLERANCES = {"float32": 1e-4, "int8": 0.35}
"""Largest difference from PyTorch, relative to the largest output, at which a time is worth reporting.

Engines round 8-bit values in ways of their own, and steps apart grow through an untrained network.
"""
CALIBRATION = 8
"""Random images that ranges are found on."""


def main() -> int:
    options = _options()
    rows = _saved(options)
    started = time.monotonic()
    for network in options.networks:
        if any(row["network"] == network for row in rows):
            continue
        if options.seconds and time.monotonic() - started > options.seconds:
            print("out of time; run the same line again to go on", file=sys.stderr)
            break
        found = measure(network, options)
        rows += found
        print(table(found) + "\n", flush=True)
        if options.json:
            write_text(options.json, json.dumps(record_of(rows, options), indent=1) + "\n")
    print(summary(record_of(rows, options)))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--sparsity", type=float, default=0.5, help="share of channels removed")
    parser.add_argument("--choose", default="time", choices=["time", "model", "default"], help="our kernels: how")
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="begin no network later than this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if told := lacking(options.engines):
        parser.error(told)
    return options


def _saved(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of an earlier run with the same settings on the same processor."""
    if options.json is None or not options.json.exists():
        return []
    record: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(facts_of_run(options)))
    other = [
        name
        for name in now
        if name not in ("networks", "load_average") and record["environment"].get(name) != now[name]
    ]
    if other:
        raise SystemExit(f"'{options.json}' is of another {' and '.join(other)}; remove it, or name another file")
    rows: list[dict[str, Any]] = record["rows"]
    return rows


def measure(network: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each variant, type and engine of a network, all timed in one interleaved run."""
    size = image_size(network, False)
    images = torch.randn(CALIBRATION, 3, size, size, generator=torch.Generator().manual_seed(options.seed))
    inputs = (images[:1],)
    calls, facts, dead = {}, {}, []
    with torch_threads(1):
        for (variant, dtype), module in _modules(network, images, options).items():
            with torch.inference_mode():
                expected = module(*inputs).clone()
            for engine in options.engines:
                told = death(engine, module, inputs, 1, options.choose) if engine != ENGINES[0] else None
                if told is not None:
                    print(f"{network} {variant} {dtype}: {engine} dies of it ({told})", file=sys.stderr, flush=True)
                    dead.append(
                        {"network": network, "variant": variant, "dtype": dtype, "engine": engine, "died": told}
                    )
                    continue
                call = prepare(engine, module, inputs, 1, options.choose)
                found = difference(call(), expected)
                if found > TOLERANCES[dtype]:
                    raise SystemExit(
                        f"{network} {variant} {dtype}: {engine} differs from PyTorch by {found:.1e}; not timed"
                    )
                calls[variant, dtype, engine] = call
                facts[variant, dtype, engine] = found
        names = {" ".join(key): key for key in calls}
        timings = time_calls({name: calls[key] for name, key in names.items()}, options.repeat, threads=1)
    rows = []
    for name, timing in timings.items():
        variant, dtype, engine = names[name]
        of = {"network": network, "variant": variant, "dtype": dtype, "engine": engine}
        rows.append({**of, "difference": facts[names[name]], **asdict(timing)})
    return rows + dead


def _modules(network: str, images: torch.Tensor, options: argparse.Namespace) -> dict[tuple[str, str], nn.Module]:
    """By variant and type."""
    result = reconvene.prune(
        build(network, options.seed), (images[:1],), method="random", sparsity=options.sparsity, seed=options.seed
    )
    floats: Mapping[str, nn.Module] = {
        "dense": build(network, options.seed), f"pruned {options.sparsity:.0%}": result.module
    }  # fmt: skip
    found: dict[tuple[str, str], nn.Module] = {}
    for variant, module in floats.items():
        found[variant, "float32"] = module
        found[variant, "int8"] = reconvene.quantize(module, images, observer="min-max").module
    return found


def record_of(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """What is kept of a run."""
    return {"environment": facts_of_run(options), "largest": largest_sums(options.engines), "rows": rows}


@cache
def _largest_layer() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """A quantised layer all of whose weights are the largest there are, and the image that has the largest pixels only."""
    layer = nn.Conv2d(64, 16, 1, bias=False)
    nn.init.ones_(layer.weight)
    images = torch.cat([torch.zeros(1, 64, 8, 8), torch.ones(1, 64, 8, 8)])
    return reconvene.quantize(layer, images, observer="min-max").module, (images[1:],)


def largest_sums(engines: Iterable[str]) -> dict[str, float]:
    """What each engine gives for the largest sums of products there can be, over what they are."""
    module, inputs = _largest_layer()
    with torch.inference_mode(), torch_threads(1):
        expected = float(module(*inputs).max())
        return {
            engine: float(values_of(prepare(engine, module, inputs, 1, "model")()).max()) / expected
            for engine in engines
        }


def summary(record: Mapping[str, Any]) -> str:
    """The tables of a run."""
    largest = ", ".join(f"{engine} {share:.2f}" for engine, share in record["largest"].items())
    parts = (
        means(record["rows"]),
        table(record["rows"]),
        f"The largest sums there can be, over what they are: {largest}.",
    )
    return "\n\n".join(parts)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians in milliseconds with p10 to p90; an engine's float32 over its int8."""
    lines = [
        "| network | engine | float32 ms | int8 ms | p10-p90 | float32 / int8 | int8: difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, variant, engine in dict.fromkeys(_of(row) for row in rows):
        floats, codes = (
            next((r for r in rows if _of(r) == (network, variant, engine) and r["dtype"] == dtype), {})
            for dtype in TYPES
        )
        timed = [row["median_ms"] for row in (floats, codes) if "median_ms" in row]
        cells = [
            f"{network} {variant}",
            engine,
            _cell(floats, lambda row: f"{row['median_ms']:.2f}"),
            _cell(codes, lambda row: f"{row['median_ms']:.2f}"),
            _cell(codes, lambda row: f"{row['p10_ms']:.2f}-{row['p90_ms']:.2f}"),
            f"{timed[0] / timed[1]:.2f}x" if len(timed) == len(TYPES) else "-",
            _cell(codes, lambda row: f"{row['difference']:.1e}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], told: Callable[[Mapping[str, Any]], str]) -> str:
    """Of an engine that died, a dash."""
    return told(row) if "median_ms" in row else "-"


def _of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["network"], row["variant"], row["engine"]


def means(rows: Sequence[dict[str, Any]]) -> str:
    """Geometric means over networks: our time over each other engine's, by variant and type."""
    others = [engine for engine in ENGINES[1:] if any(row["engine"] == engine for row in rows)]
    lines = [f"| ours over | type | {' | '.join(others)} |", f"|{'---|' * (2 + len(others))}"]
    times = {(*_of(row), row["dtype"]): row["median_ms"] for row in rows if "median_ms" in row}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        for dtype in TYPES:
            cells = [
                _mean(
                    times[network, variant, ENGINES[0], dtype] / times[network, variant, other, dtype]
                    for network in dict.fromkeys(row["network"] for row in rows)
                    if (network, variant, other, dtype) in times and (network, variant, ENGINES[0], dtype) in times
                )
                for other in others
            ]
            lines.append(f"| {variant} | {dtype} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Iterable[float]) -> str:
    """The geometric mean."""
    known = [math.log(value) for value in values]
    return f"{math.exp(sum(known) / len(known)):.2f}" if known else "-"


def facts_of_run(options: argparse.Namespace) -> dict[str, Any]:
    """All that somebody needs to judge or repeat the numbers."""
    facts = environment(options)
    host = find_target("host")
    facts["dtype"] = ", ".join(TYPES)
    facts |= {"llvm_cpu": host.cpu, "products": host.machine.dot}
    return {**facts, "threads": 1, "batch": 1, "observer": "min-max", "calibration": f"{CALIBRATION} random images"}


if __name__ == "__main__":
    raise SystemExit(main())

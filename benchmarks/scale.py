"""How analysis and rewriting grow with the graph: generated networks of 1,000 to 50,000 nodes.

    python benchmarks/scale.py [--nodes 1000 5000 20000 50000] [--json docs/results/scale.json] [--plot docs/results/scale.svg]

Three kinds: residual chains, dense concatenations (every block reads the last eight), and layers of 2,000 channels. The
graphs are made directly in torch.export's vocabulary, because capturing 50,000 nodes would take longer than what is
measured. Every size runs in a process of its own; seconds are medians; the exponent is the slope of log time over log
nodes by least squares.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).resolve().parent))
from charts import chart, save
from memory import peak_bytes, reset_peak

from reconvene.frontend.base.files import write_text
from reconvene.frontend.graph_module import CapturedModule, captured_module
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import analyse
from reconvene.passes.dependency import dependency_view
from reconvene.passes.pruning.decisions import masks_of
from reconvene.passes.pruning.methods.one_shot import Random
from reconvene.passes.pruning.scores import Evidence
from reconvene.passes.rewriting import rewrite
from reconvene.passes.stored import place_tensor

aten = torch.ops.aten


class Maker:
    """Builds a graph call by call, with shapes."""

    def __init__(self, channels: int) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self._mode = FakeTensorMode()
        self._generator = torch.Generator().manual_seed(0)
        self.input = self.graph.placeholder("x")
        self.input.meta["val"] = self._mode.from_tensor(torch.empty(1, channels, 4, 4))
        self._count = 0

    def stored(self, name: str, *shape: int) -> fx.Node:
        """A random parameter."""
        tensor = torch.randn(*shape, generator=self._generator)
        place_tensor(self.root, name, nn.Parameter(tensor))
        node = self.graph.create_node("get_attr", name)
        node.meta["val"] = self._mode.from_tensor(tensor)
        return node

    def call(self, operator: Any, args: tuple[Any, ...], channels: int) -> fx.Node:
        """A call whose result has `channels` feature maps."""
        node = self.graph.call_function(operator, args)
        node.meta["val"] = self.input.meta["val"].new_empty(1, channels, 4, 4)
        return node

    def layer(self, x: fx.Node, width_in: int, width: int) -> fx.Node:
        """Convolution, normalisation and ReLU: seven nodes."""
        self._count += 1
        name = f"layer{self._count}"
        y = self.call(aten.conv2d.default, (x, self.stored(f"{name}.weight", width, width_in, 1, 1)), width)
        statistics = [self.stored(f"{name}.norm.{part}", width) for part in ("weight", "bias", "mean")]
        variance = self.stored(f"{name}.norm.variance", width)
        variance_value = self.root.get_submodule(f"{name}.norm").variance
        variance_value.data.abs_().add_(0.5)
        y = self.call(aten.batch_norm.default, (y, *statistics, variance, False, 0.1, 1e-5, False), width)
        return self.call(aten.relu.default, (y,), width)

    def finish(self, x: fx.Node) -> CapturedModule:
        """The module."""
        self.graph.output((x,))
        return captured_module(self.root, self.graph)


def residual(nodes: int) -> CapturedModule:
    """x + f(x), with f of two layers: 17 nodes a block."""
    maker = Maker(16)
    x = maker.input
    for _ in range(max(1, nodes // 17)):
        y = maker.layer(maker.layer(x, 16, 16), 16, 16)
        x = maker.call(aten.add.Tensor, (x, y), 16)
    return maker.finish(x)


def dense(nodes: int) -> CapturedModule:
    """Every layer reads the concatenation of the last eight results."""
    maker = Maker(16)
    recent = [(maker.input, 16)]
    for _ in range(max(1, nodes // 9)):
        width = sum(channels for _, channels in recent)
        joined = maker.call(aten.cat.default, ([node for node, _ in recent], 1), width)
        recent = [*recent, (maker.layer(joined, width, 8), 8)][-8:]
    return maker.finish(recent[-1][0])


def wide(nodes: int) -> CapturedModule:
    """Depthwise-like chains of 2,000 channels: normalisation and activation, few weights."""
    maker = Maker(2000)
    x = maker.input
    for number in range(max(1, nodes // 8)):
        weight = maker.stored(f"depthwise{number}.weight", 2000, 1, 1, 1)
        y = maker.call(aten.conv2d.default, (x, weight, None, [1, 1], [0, 0], [1, 1], 2000), 2000)
        parts = [maker.stored(f"norm{number}.{part}", 2000) for part in ("weight", "bias", "mean", "variance")]
        maker.root.get_submodule(f"norm{number}").variance.data.abs_().add_(0.5)
        x = maker.call(aten.batch_norm.default, (y, *parts, False, 0.1, 1e-5, False), 2000)
        x = maker.call(aten.relu.default, (x,), 2000)
    return maker.finish(x)


KINDS: dict[str, Callable[[int], CapturedModule]] = {"residual": residual, "dense": dense, "wide": wide}


def measure(kind: str, nodes: int, repeats: int) -> dict[str, Any]:
    """One row: median seconds of the phases and what the process' memory grew by."""
    torch.set_num_threads(2)
    module = KINDS[kind](nodes)
    began = time.perf_counter()
    view = dependency_view(canonicalize(module))
    groups = view.groups
    grouping = time.perf_counter() - began
    free = any(group.prunable for group in groups)
    masks = masks_of(view, Random().decide(view, Evidence(), 0.5)) if free else {}
    del view
    before = reset_peak()
    phases: list[tuple[float, float]] = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = analyse(module, masks)
        middle = time.perf_counter()
        rewrite(*found)
        phases.append((middle - start, time.perf_counter() - middle))
        del found
    return {
        "kind": kind,
        "nodes": len(module.graph.nodes),
        "groups": len(groups),
        "prunable_groups": sum(group.prunable for group in groups),
        "grouping_seconds": grouping,
        "analysis_seconds": median(first for first, _ in phases),
        "rewrite_seconds": median(second for _, second in phases),
        "peak_bytes": peak_bytes() - before,
    }


def exponent(rows: list[dict[str, Any]]) -> float:
    """Slope of log(seconds) over log(nodes)."""
    nodes = np.log([row["nodes"] for row in rows])
    seconds = np.log([row["analysis_seconds"] + row["rewrite_seconds"] for row in rows])
    return float(np.polyfit(nodes, seconds, 1)[0])


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, with the fitted exponents."""
    lines = ["| kind | nodes | groups s | analysis s | rewrite s | peak MB |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['kind']} | {row['nodes']} | {row['grouping_seconds']:.2f} | {row['analysis_seconds']:.2f} "
        f"| {row['rewrite_seconds']:.2f} | {row['peak_bytes'] / 1e6:.0f} |"
        for row in rows
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        chosen = [row for row in rows if row["kind"] == kind]
        if len(chosen) > 1:
            lines.append(f"\n{kind}: analysis + rewrite grow as nodes^{exponent(chosen):.2f}")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds over nodes, both logarithmic, beside a line of slope 1."""
    figure, axes = chart("nodes", "seconds, analysis + rewrite", logarithmic=True)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        chosen = [row for row in rows if row["kind"] == kind]
        seconds = [row["analysis_seconds"] + row["rewrite_seconds"] for row in chosen]
        axes.plot([row["nodes"] for row in chosen], seconds, "o-", label=f"{kind} (exponent {exponent(chosen):.2f})")
    ends = [min(row["nodes"] for row in rows), max(row["nodes"] for row in rows)]
    first = min(row["analysis_seconds"] + row["rewrite_seconds"] for row in rows if row["nodes"] < 2 * ends[0])
    axes.plot(ends, [first, first * ends[1] / ends[0]], "--", color="grey", label="proportional")
    save(figure, axes, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]), options.repeats)))
        return
    rows = []
    for kind in options.kinds:
        for nodes in options.nodes:
            command = [sys.executable, __file__, "--one", kind, str(nodes), "--repeats", str(options.repeats)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{kind} {nodes} failed:\n{done.stderr}")
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{kind} {rows[-1]['nodes']} done", file=sys.stderr)
    print(table(rows))
    if options.json:
        setting = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": 2,
            "repeats": options.repeats,
        }
        write_text(options.json, json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()

"""One architecture of every family of torchvision and timm, compiled for this machine and compared with PyTorch.

    python benchmarks/compiled_zoo.py [--only resnet18 timm/dla34 ...] [--json docs/results/compiled_zoo.json]

Untrained, statistics and constants randomised, float32, the smallest input the network takes, direct kernels
(``choose="default"``), one thread, no cache. The difference is relative to an output's largest value; where it is large, that
of PyTorch's own float32 to float64 stands beside it. Every network has a process of its own, with a time limit; finished rows
are kept in the JSON file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import randomise
from zoo import TIMM, build, fitting_inputs, run_one

from reconvene.backends.compile import compile
from reconvene.driver.reports.report import environment
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text

TORCHVISION = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 "
    "mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 "
    "squeezenet1_1 swin_t swin_v2_t vgg11_bn vit_b_32 wide_resnet50_2 fcn_resnet50 deeplabv3_mobilenet_v3_large "
    "lraspp_mobilenet_v3_large fasterrcnn_mobilenet_v3_large_fpn retinanet_resnet50_fpn ssdlite320_mobilenet_v3_large "
    "r3d_18 s3d mvit_v2_s swin3d_t"
).split()
NETWORKS = (*TORCHVISION, *(f"timm/{name}" for name in TIMM))
AGREED = 1e-3
"""Rounding, through more than a hundred layers of random weights."""


def measure(name: str) -> dict[str, Any]:
    """One row. What is refused is a result, too."""
    torch.set_num_threads(1)
    network, shapes = build(name)
    network = randomise(network.float())
    inputs = fitting_inputs(network, shapes, torch.float32, 1)
    row: dict[str, Any] = {"network": name, "input": "x".join(map(str, inputs[0].shape))}
    began = time.perf_counter()
    try:
        built = compile(network, inputs, choose="default", cache=False, check=False)
    except ReconveneError as error:
        return row | {"refused": str(error)}
    row |= {"seconds": time.perf_counter() - began, "foreign": len(built.foreign)}
    with torch.no_grad():
        expected = [leaf for leaf in pytree.tree_leaves(network(*inputs)) if isinstance(leaf, torch.Tensor)]
    found = pytree.tree_leaves(built.run(*inputs))
    row["difference"] = furthest(expected, found)
    if row["difference"] > AGREED:
        with torch.no_grad():
            exact = pytree.tree_leaves(network.double()(*(value.double() for value in inputs)))
        row["rounding"] = furthest([leaf for leaf in exact if isinstance(leaf, torch.Tensor)], expected)
    return row


def furthest(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """The largest difference of all outputs."""
    return max(difference(a, b) for a, b in zip(expected, found, strict=True))


def agrees(row: dict[str, Any]) -> bool:
    """Within rounding: some networks with random statistics amplify it, PyTorch's own as much."""
    return bool(row["difference"] <= max(AGREED, 3 * row.get("rounding", 0.0)))


def difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Largest, relative to the largest expected value."""
    wanted, got = expected.double(), found.double()
    return float((wanted - got).abs().max() / wanted.abs().max().clamp_min(1e-30))


def table(rows: list[dict[str, Any]]) -> str:
    """The totals, then every row as Markdown."""
    compiled = [row for row in rows if "difference" in row]
    agreed = [row for row in compiled if row["difference"] <= AGREED]
    noisy = [row for row in compiled if row["difference"] > AGREED and agrees(row)]
    lines = [
        f"{len(compiled)} of {len(rows)} networks compile; the outputs of {len(agreed)} of these differ from PyTorch's by at"
        f" most {AGREED:g} of their largest value.",
        *(
            f"{row['network']} amplifies rounding: PyTorch's float32 is {row['rounding']:.0e} from its float64."
            for row in noisy
        ),
        "",
        "| network | input | difference | operators without a kernel of ours | compile s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} | {row['input']} | {row['difference']:.0e} | {row['foreign']} | {row['seconds']:.0f} |"
        for row in compiled
    ]
    others = [row for row in rows if "difference" not in row]
    if others:
        lines += ["", "| not compiled | why |", "|---|---|"]
        lines += [f"| {row['network']} | {row.get('refused') or row['error']} |" for row in others]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NETWORK")
    parser.add_argument("--json", type=Path, help="rows already in it are not run again")
    parser.add_argument("--limit", type=int, default=600, help="seconds a network")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    rows: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        rows = {row["network"]: row for row in json.loads(options.json.read_text())["rows"]}
    for name in options.only or NETWORKS:
        if name not in rows:
            rows[name] = run_one(name, options.limit, __file__)
            row = rows[name]
            print(f"{name}: {row.get('difference', row.get('refused', row.get('error')))}", file=sys.stderr, flush=True)
        if options.json:
            record = {"setting": environment() | {"threads": 1, "seed": 0}, "rows": list(rows.values())}
            write_text(options.json, json.dumps(record, indent=1) + "\n")
    print(table(list(rows.values())))
    wrong = [row["network"] for row in rows.values() if row.get("error") or ("difference" in row and not agrees(row))]
    sys.exit(f"failed or not the same: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()

"""Whether `prune(..., target="host", latency=share)` reaches the share of the dense time that it was asked for.

    python benchmarks/latency_goal.py [--networks vgg16_cifar resnet18 ...] [--json docs/results/latency_goal.json]

For every network and goal: the share that the model of layer times promises, the share that is measured (dense and pruned by
turns in one run, medians), and, beside it, the network that the same sparsity gives without looking at the target: what it
keeps and how long it takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import build, image_size

import reconvene
from reconvene.driver.reports.latency import measure
from reconvene.driver.reports.report import environment

NETWORKS = "vgg16_cifar resnet18 mobilenet_v2".split()
GOALS = (0.75, 0.5, 0.25)


def rows(network: str, goals: tuple[float, ...], repeat: int) -> list[dict[str, Any]]:
    """All goals of one network, measured in one run."""
    side = image_size(network, small=False)
    module, inputs = build(network).eval(), (torch.randn(1, 3, side, side),)
    graph = reconvene.capture(module, inputs)
    aimed = {goal: reconvene.prune(graph, inputs, "magnitude", target="host", latency=goal) for goal in goals}
    sparsities = {goal: float(found.plan.origin["sparsity"]) for goal, found in aimed.items()}
    plain = {goal: reconvene.prune(graph, inputs, "magnitude", sparsity=sparsities[goal]) for goal in goals}
    variants: dict[str, Any] = {"dense": (graph, inputs)}
    for goal in goals:
        variants[f"aimed {goal}"] = (aimed[goal].module, inputs)
        variants[f"plain {goal}"] = (plain[goal].module, inputs)
    times = {row.variant: row.median_ms for row in measure(variants, repeat=repeat, engines=("reconvene",))}
    dense = aimed[goals[0]].report.before
    return [
        {
            "network": network,
            "goal": goal,
            "sparsity": sparsities[goal],
            "modelled": aimed[goal].plan.origin["modelled_latency"],
            "dense_ms": times["dense"],
            **{
                f"{kind}_{what}": value
                for kind, found in (("aimed", aimed[goal]), ("plain", plain[goal]))
                for what, value in (
                    ("share", times[f"{kind} {goal}"] / times["dense"]),
                    ("parameters", found.report.after.parameters / dense.parameters),
                    ("macs", found.report.after.macs / dense.macs),
                )
            },
        }
        for goal in goals
    ]


def table(found: list[dict[str, Any]]) -> str:
    """A row for each network and goal; all shares are of the dense network."""
    lines = [
        "| network | dense ms | goal | modelled | measured | MACs | parameters | same sparsity, no target: time | MACs"
        " | parameters |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        shares = (row[f"{kind}_{what}"] for kind in ("aimed", "plain") for what in ("share", "macs", "parameters"))
        cells = " | ".join(f"{share:.1%}" for share in shares)
        lines.append(
            f"| {row['network']} | {row['dense_ms']:.2f} | {row['goal']:.0%} | {row['modelled']:.1%} | {cells} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--goals", type=float, nargs="+", default=list(GOALS))
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = [row for network in options.networks for row in rows(network, tuple(options.goals), options.repeat)]
    print(table(found))
    if options.json:
        setting = {**environment(), "threads": 1, "dtype": "float32", "batch": 1, "seed": 0}
        options.json.write_text(json.dumps({"setting": setting, "rows": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What the zeros of four networks take in bytes, by structure and format, in bundles and in memory, and whether unified blocks
are exact.

    python benchmarks/structure_storage.py [--json docs/results/structure_storage.json] [--markdown ...md]

Untrained weights, pruned by magnitude, the share in every layer that takes the structure. First convolutions, depthwise
and last layers are dense. Every packed weight is unpacked again and compared. Networks that are in the JSON file already are
not measured again. `sparse_bundles.py` says what is compiled.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sparse_bundles
from models import build, image_size

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import write_text
from reconvene.frontend.capture import capture
from reconvene.passes.pruning.scores import Evidence
from reconvene.passes.pruning.structure_rules import structure_rules
from reconvene.passes.pruning.structured import Ranked, Structured, structured_masks
from reconvene.passes.structures import BlockRows
from reconvene.passes.values import attribute

RESULTS = """## Zeros inside of layers, in bytes

How many times less the weights of whole networks take in each structure's own format, first convolutions, depthwise and last
layers, and all that a structure does not fit, dense and counted: [by share and format, and what compiled networks
take](results/structure_storage.md#in-bundles-and-in-memory) in bundles and in memory.
"""
"""The section of the results."""
NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "vgg16_cifar")
STRUCTURES = (
    "unstructured", "row-block:4", "block-punched:8x4", "bcr:16x8", "pattern,connectivity", "2:4", "2:4:4", "1:4:4",
    "unified:4x4",
)  # fmt: skip
SHARES = (0.8, 0.9)


def measured(found: Structured) -> dict[str, Any]:
    """Bytes of all weights that structures could be in, and of those that took one."""
    row = {"weights": 0, "kept": 0, "dense": 0, "csr": 0, "own": 0, "taken_dense": 0, "taken_own": 0, "layers": 0}
    formats, exact = set(), True
    for choice in found.choices:
        view, structure = choice.view, choice.structure
        weight = view.seen(attribute(found.module, view.name).detach())
        size = weight.numel() * weight.element_size()
        row["weights"] += weight.numel()
        row["dense"] += size
        if structure is None:
            row["kept"] += weight.numel()
            row["csr"] += size
            row["own"] += size
            continue
        sparse = structure.applied(weight, view.seen(found.masks[view.name]))
        packed = structure.pack(sparse)
        exact &= torch.equal(packed.unpack(), sparse)
        formats.add(packed.name)
        row["kept"] += int(sparse.count_nonzero())
        row["csr"] += BlockRows.pack(sparse).bytes
        row["own"] += packed.bytes
        row["taken_dense"] += size
        row["taken_own"] += packed.bytes
        row["layers"] += 1
    return row | {"formats": sorted(formats), "exact": bool(exact)}


def rows_of(name: str) -> list[dict[str, Any]]:
    inputs = (torch.randn(1, 3, image_size(name, small=True), image_size(name, small=True)),)
    graph = capture(build(name), inputs)
    rows = []
    for spelled in STRUCTURES:
        rules = structure_rules(spelled)
        fixed = rules[0].structures[0].fixed_sparsity
        for share in SHARES if fixed is None else (fixed,):
            try:
                found = structured_masks(graph, Evidence(inputs), rules, Ranked(sparsity=share))
            except InputError as error:  # It fits no layer of this network.
                print(f"{name} {spelled}: {error}", file=sys.stderr)
                continue
            rows.append({"network": name, "structure": spelled, "sparsity": share, **measured(found)})
            print(f"{name} {spelled} {share:.0%}", file=sys.stderr)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| network | structure | zeros asked | layers | not zero, of all | dense MB | CSR MB | own format MB |"
        " own, of the layers that took it | format |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = row["taken_dense"] / row["taken_own"]
        lines.append(
            f"| {row['network']} | {row['structure']} | {row['sparsity']:.0%} | {row['layers']}"
            f" | {row['kept'] / row['weights']:.1%} | {row['dense'] / 1e6:.2f} | {row['csr'] / 1e6:.2f}"
            f" | {row['own'] / 1e6:.2f} | {times:.1f} times smaller | {', '.join(row['formats'])} |"
        )
    return "\n".join(lines)


def summary(rows: Sequence[dict[str, Any]], share: float = 0.8) -> str:
    """How many times smaller the weights of whole networks are, in each structure's own format, at one share of zeros."""
    networks = [name for name in NETWORKS if any(row["network"] == name for row in rows)]
    chosen = [row for row in rows if row["sparsity"] == share or row["structure"][0].isdigit()]
    lines = [f"| structure | zeros | {' | '.join(networks)} |", "|---|---|" + "---|" * len(networks)]
    for structure in sorted({row["structure"] for row in chosen}, key=STRUCTURES.index):
        found = {row["network"]: row for row in chosen if row["structure"] == structure}
        zeros = next(iter(found.values()))["sparsity"]
        times = (f"{found[name]['dense'] / found[name]['own']:.2f}" if name in found else "" for name in networks)
        lines.append(f"| {structure} | {zeros:.0%} | {' | '.join(times)} |")
    return "\n".join([*lines, "", exactness(rows)])


def exactness(rows: Sequence[dict[str, Any]]) -> str:
    same = sum(row["exact"] for row in rows)
    return f"Of {len(rows)} pruned networks {same} are the same bits after packing and unpacking every weight."


def page(rows: Sequence[dict[str, Any]], bundles: Sequence[dict[str, Any]]) -> str:
    return f"""# Storage by structure and format

`benchmarks/structure_storage.py`: untrained weights in float32, pruned by magnitude, the share in every layer that takes the
structure; where nothing fits, and in first convolutions, depthwise and last layers, weights are dense and count as such. Index
types are the smallest that suffice. {exactness(rows)}
Unified blocks keep one value and a sign for each weight, so that the network itself is changed before it is packed.

{table(rows)}

{sparse_bundles.page(bundles)}"""


def _write(path: Path | None, rows: Sequence[dict[str, Any]], bundles: Sequence[dict[str, Any]]) -> None:
    if path:
        write_text(path, json.dumps({"rows": rows, "bundles": bundles}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    rows, bundles = known.get("rows", []), known.get("bundles", [])
    for name in options.only:
        if name not in {row["network"] for row in rows}:
            rows += rows_of(name)
            _write(options.json, rows, bundles)
    for case in sparse_bundles.CASES:
        if (case.network, case.target) not in {(row["network"], row["target"]) for row in bundles}:
            bundles += sparse_bundles.rows_of(case)
            _write(options.json, rows, bundles)
    print(table(rows))
    if options.markdown:
        write_text(options.markdown, page(rows, bundles))


if __name__ == "__main__":
    main()

"""Writes docs/results.md from the JSON files that the other programs left in docs/results/.

python benchmarks/exactness.py --json docs/results/exactness.json
python benchmarks/latency.py --json docs/results/latency.json
python benchmarks/peers.py --json docs/results/peers.json --markdown docs/results/peers.md
python benchmarks/results_page.py
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import exactness
import latency
import peers

FOLDER = Path(__file__).resolve().parent.parent / "docs"

HEAD = """# Results

Every table comes from a program in `benchmarks/` that anyone can run; the JSON behind it is in `docs/results/`, and
`benchmarks/results_page.py` makes this page of it.
"""

EXACTNESS = """## Exactness

Untrained torchvision networks with every bias, statistic and constant randomised; half of the channels of every prunable
group at random. M1 zeroes filters and leaves biases and normalisation, so that a dead channel is a constant; M2 zeroes all
affine parameters of a channel. The difference is between the compacted graph and the masked `nn.Module` run eagerly, both
in float64, relative to the largest output. Seconds (medians) and memory are for float32 at the network's own resolution
with M1; memory is the model itself plus the peak of analysis and rewriting, over the model.
"""

LATENCY = """## Latency

Float32. All engines and variants of a network take turns in one run; medians, with the 10th and 90th percentile. Pruned
networks lost half of the channels of every prunable group. Engines slower than a tenth of a second a call are called less
often (`repeats` in the JSON).
"""

PEERS = """## Beside Torch-Pruning

The networks of `make test` and those that Torch-Pruning's own table lists as failing, through both, with the same channels
gone: [network by network](results/peers.md).
"""


def read(name: str) -> dict[str, Any]:
    """One program's record."""
    record: dict[str, Any] = json.loads((FOLDER / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return record


def setting(values: dict[str, Any]) -> str:
    """The conditions of a run as one line."""
    return "; ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def main() -> None:
    exact, timed = read("exactness"), read("latency")
    parts = [HEAD, EXACTNESS, setting(exact["setting"]) + "\n", exactness.table(exact["rows"]) + "\n"]
    parts += [LATENCY, setting(timed["environment"]) + "\n"]
    networks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in timed["rows"]:
        networks[row["network"]].append(row)
    parts += [latency.table(rows) + "\n" for rows in networks.values()]
    if (FOLDER / "results" / "peers.json").exists():
        parts += [PEERS, peers.summary(read("peers")) + "\n"]
    (FOLDER / "results.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()

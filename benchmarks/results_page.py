r"""Writes docs/results.md from the JSON files that the other programs left in docs/results/.

for name in exactness compiled_zoo fuzz_files latency arm_kernels latency_goal scores mlperf_tiny training_kills \
    compile_time weights_memory boards fuzz_server; do
    python benchmarks/$name.py --json docs/results/$name.json
done
python benchmarks/zoo.py --json docs/results/zoo.json --markdown docs/results/zoo.md
python benchmarks/fuzz.py --graphs 10000 --json docs/results/fuzz.json
python benchmarks/fuzz.py --graphs 2000 --seed 18 --masks structures --json docs/results/fuzz_structures.json
python benchmarks/scale.py --json docs/results/scale.json --plot docs/results/scale.svg
python benchmarks/peers.py --json docs/results/peers.json --markdown docs/results/peers.md
python benchmarks/kernels.py --choose time --json docs/results/kernels.json --plot docs/results/roofline.svg
python benchmarks/scores.py --find 16.21 --networks vgg16-cifar --threads 1 --json docs/results/size.json
python benchmarks/arm_peers.py out/sysroot --kinds --json docs/results/arm_peers.json
python benchmarks/recovery.py --json docs/results/recovery.json --markdown docs/results/recovery.md
python benchmarks/layerwise.py --json docs/results/layerwise.json --markdown docs/results/layerwise.md
python benchmarks/quantization.py --json docs/results/quantization.json --markdown docs/results/quantization.md
python benchmarks/structure_storage.py --json docs/results/structure_storage.json --markdown docs/results/structure_storage.md
python benchmarks/sparse_kernels.py --json docs/results/sparse_kernels.json --markdown docs/results/sparse_kernels.md
python benchmarks/sparse_networks.py --json docs/results/sparse_networks.json --markdown docs/results/sparse_networks.md
python benchmarks/sparse_networks.py --targets rpi4 --shares 0.8 0.9 --engines \
    --json docs/results/sparse_boards.json --markdown docs/results/sparse_boards.md
python benchmarks/accuracy.py --bfloat16
python benchmarks/accuracy.py --bfloat16 --dataset fashion-mnist
python benchmarks/accuracy.py --bfloat16 --width 0.5 --sparsities 0.9 --methods dense upai spai-uniform reconvene \
    --results docs/results/accuracy-cifar10-half.jsonl
python benchmarks/accuracy.py --bfloat16 --width 1 --sparsities 0.9 --seeds 0 1 --set epochs=15 --set milestones=8,12 \
    --set train_images=20000 --set test_images=5000 --results docs/results/accuracy-cifar10-full.jsonl
python benchmarks/accuracy.py --bfloat16 --model resnet20 --width 1 --sparsities 0.5 0.8 --seeds 0 1 --set epochs=15 \
    --set milestones=8,12 --set train_images=20000 --set test_images=5000 --results docs/results/accuracy-cifar10-resnet20.jsonl
python benchmarks/structured_accuracy.py --bfloat16
python benchmarks/portfolio.py out/levels --json docs/results/portfolio.json
python benchmarks/switching.py out/portfolio --json docs/results/switching.json
python benchmarks/results_page.py
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import accuracy_page
import arm_kernels
import boards
import bundle_sizes
import compile_time
import compiled_zoo
import exactness
import fuzz_server
import integer_accuracy
import integer_latency
import kernels
import latency
import latency_goal
import layerwise
import mlperf_tiny
import portfolio
import quantization
import recovery
import runtimes
import scale
import scores
import sparse_kernels
import sparse_networks
import structure_storage
import structured_accuracy
import weights_memory
import zoo
from litert import page as arm_peers_page
from pruning_peers.page import summary as peers_summary
from switches.tables import table as switching_table

from reconvene.frontend.base.files import write_text

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
often (`repeats` in the JSON). A network's rows of one batch size and thread count are one run; other rows were measured at
another time, so compare across them with care. First the geometric means: our time over that of the fastest other engine,
and how much of the reduction of multiply-accumulates (MACs) an engine turns into speed.
"""

KERNELS = """## Kernels and the machine's peak

Every distinct convolution and linear layer of four networks alone, its weights not in cache, as `compile` would compute it:
the share of the measured multiply-add peak by kind of layer, as a mean over their time, and of the worst of them.
Multiply-accumulates are those of the definition, so Winograd's kernels exceed the peak; a linear layer at batch 1 reads each
weight once, and its limit is the memory.

![rate over arithmetic intensity](results/roofline.svg)
"""

GOALS = """## Pruned to a latency

`prune(..., target="host", latency=share)`: what its model of layer times promises and what is measured, our pipeline; beside
it what the same sparsity gives without looking at the target. Shares are of the dense network.
"""

ARM_KERNELS = """## ARM kernels and their floor

Every distinct kernel alone, direct convolutions only, by LLVM's model of the core ([how](estimate.md)). The floor is one
vector multiply-add in each cycle, or as many as the core begins: multiply-accumulates of the definition over lanes. *Lowest*
is the worst kernel of a kind.
"""

PEERS = """## Beside Torch-Pruning

The networks of `make test` and those that Torch-Pruning's own table lists as failing, through both, with the same channels
gone: [network by network](results/peers.md).
"""

ZOO = """## Every network people bring

torchvision's networks (detectors by their backbones) and one of every family of timm, untrained, all statistics and
constants randomised, half of the channels of every prunable group, float64: [network by network](results/zoo.md).
"""

COMPILED_ZOO = """## Compiled is what was meant

Architectures of torchvision and timm, one of a family, compiled for the machine they run on, with the direct kernels, and
compared with PyTorch in float32.
"""

FUZZ = """## Random graphs

Random programs over all operators that have a rule, with random masks; the masked graph against the compacted one in
float64, again after the plan went through a file, and for some after a `.pt2` file. `python benchmarks/fuzz.py` makes the
same graphs for the same seed.
"""

STRUCTURED = """### With zeros of structures

The same with masks that are of structures (`--masks structures`).
"""

FILES = """## Hostile files

Files of every kind that is read, changed from a seed: by their bytes, and by what the bytes mean (records of archives,
JSON values, headers, instructions to run something). Each is read in a process of its own, bounded in time and memory; refused
is one line and exit code 2. `python benchmarks/fuzz_files.py` makes the same files for the same seed.
"""

SCALE = """## Growth

Analysis and rewriting of generated networks: residual chains, concatenations of the last eight results, and chains of
layers of 2,000 channels.

![seconds over nodes](results/scale.svg)
"""

SCORES = """## Pruning at initialization

Seconds from an untrained model to the compacted graph with new initial weights (method `reconvene`), capture and certificate
included, but not what torch imports at a process's first capture (`first_capture_seconds`). The rounds of a score are its
authors'.
"""

SIZE = """## How small VGG-16 becomes

The smallest p, in steps of a two-hundredth, at which the method `reconvene` leaves so many times fewer parameters as was
asked for, by each rule of how many channels stay. Latency is on one image, PyTorch eager and compiled by our pipeline,
dense and pruned by turns.
"""

KILLS = """## Trainings that are killed

`reconvene train` killed at random moments (SIGKILL) and run again, beside an undisturbed run.
"""

PORTFOLIO = """## A portfolio of sparse levels

Iterative magnitude pruning with rewinding (`reconvene train-levels`), every level shrunk without loss and compiled
(`reconvene portfolio`), beside what the original's single pass over all-zero filters leaves of the same level and how that
network then answers. Sparse networks are stored and computed with their zeros; latencies are for one image and one thread.
"""

COMPILE = """## Time to compile

`reconvene.compile` with an empty cache folder, then again in a new process, then with other weights; and the parts of it.
What the second call leaves is `torch.export` and TVM's importer, and packing the weights.
"""

WEIGHTS = """## Memory of the weights

A process that runs a network whose weights are in TVM's pool of constants, and one that maps them from a bundle's files; what
each has more than before. Private memory is what no other process shares at the time; of proportional memory, what two
processes share counts half in each.
"""

SWITCHING = """## Switching while serving

`reconvene serve` on loopback. A gap is the time between two answers in a row, whichever client gets them; every answer is
compared, bit by bit, with what the variant that it names gives. Beside it, without load, three ways to do without switching:
all variants resident; the dense program loaded, pruned, compacted and compiled at every switch; and another process for every
variant. Memory is private to the process, and less what it holds after it unloaded its first model; of the C++ program, all
of it.
"""

HOSTILE_CLIENTS = """## Hostile clients

`reconvene serve` on loopback: malformed requests from a seed, each on a connection of its own, and floods. A fault is an answer
500 or one that is not JSON with one line, a wrong answer to a request that is in order, more answers than requests, a
connection that does not end, a traceback. Beside them, another client asks every 10 ms whether the server is alive; the times
of floods with JSON are its own. The first honest request after 1,100 connections waits until they are accepted.
"""

BOARDS = """## Bundles for boards

What `reconvene compile --runtime` makes for a Raspberry Pi 4 (64 bits) and 2 (32 bits): bytes of the weights, of all files that
the board needs, and the difference. The programs ran on emulated cores; their outputs are compared with PyTorch's, relative to
the largest output. Pruned networks lost half of the channels of every prunable group. Without a runtime, flash and RAM are
known exactly; stack, inputs and outputs come on top.
"""


@dataclass(frozen=True)
class Section:
    """A part of the page: the record it is made of, what is said first, and what is made of the record."""

    record: str
    text: str
    body: Callable[[dict[str, Any]], str]

    def rendered(self) -> str:
        """The part as Markdown; empty as long as its program has not been run."""
        path = FOLDER / "results" / f"{self.record}.json"
        if not path.exists():
            return ""
        return f"{self.text}\n{self.body(json.loads(path.read_text(encoding='utf-8')))}\n"


def setting(values: dict[str, Any]) -> str:
    """The conditions of a run as one line."""
    return "; ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def with_setting(table: str, values: dict[str, Any]) -> str:
    """A table under the conditions it was measured under."""
    return f"{setting(values)}\n\n{table}"


def latencies(record: dict[str, Any]) -> str:
    """All networks in two tables of means, then a table a network."""
    networks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in record["rows"]:
        networks[row["network"]].append(row)
    means = (latency.summary(record["rows"]), latency.by_engine(record["rows"]))
    tables = (latency.table(sorted(rows, key=lambda row: latency.cell(row)[1:])) for rows in networks.values())
    return with_setting("\n\n".join((*means, *tables)), record["environment"])


def integers(record: dict[str, Any]) -> str:
    """Means, then networks."""
    return with_setting(integer_latency.summary(record), record["environment"])


def fuzzed(record: dict[str, Any]) -> str:
    """The run in one table."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in record["outcomes"].items())
    masks = ", ".join(f"{count} {kind}" for kind, count in record["masks"].items())
    covered = f"{record['operators_with_a_rule_covered']} of {record['operators_with_a_rule']}"
    rows = {
        "seed": record["seed"],
        "graphs": f"{record['graphs']}, of {record['mean_calls']} calls on average",
        "outcomes": kinds,
        "failures": len(record["failures"]),
        "masks": masks,
        "graphs that lost parameters": record["graphs_that_lost_parameters"],
        "operators with a rule that occurred": covered,
        "largest relative difference": f"{record['largest_relative_difference']:.1e}",
        "made with": f"torch {record['torch']}, Python {record['python']}",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def opened(record: dict[str, Any]) -> str:
    """The run in one table."""
    kinds = record["kinds"].values()
    rows = {
        "files": f"{record['inputs']}, of {len(kinds)} kinds",
        "read": sum(kind["read"] for kind in kinds),
        "refused": sum(kind["refused"] for kind in kinds),
        "tracebacks, exit codes 70, hangs, killed processes": ", ".join(map(str, record["faults"].items())) or 0,
        "code of a file that was run": record["markers"],
        "most memory of a process": f"{record['peak_mib']} MiB",
        "slowest": f"{record['slowest_seconds']} s",
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    return with_setting(table, record["setting"])


def killed(record: dict[str, Any]) -> str:
    """One sentence."""
    outcome = "the same weights, statistics and momenta to the last bit" if record["same"] else "OTHER WEIGHTS"
    return f"Killed {record['kills']} times in {record['epochs']} epochs, it ended with {outcome}."


def bundles(record: dict[str, Any]) -> str:
    """Sizes and differences, then flash and RAM."""
    tables = f"{boards.table(record['rows'])}\n\n{boards.memory_table(record['rows'])}"
    return with_setting(tables, record["environment"])


def portfolios(record: dict[str, Any]) -> str:
    """How the levels were trained, and a row a level."""
    return f"{setting(record['levels'])}\n\n{with_setting(portfolio.table(record['rows']), record['setting'])}"


def accuracies(record: dict[str, Any]) -> str:
    """Means over seeds, and how far the methods are from unstructured pruning."""
    return with_setting(accuracy_page.tables(record["lines"]), record["setting"])


SECTIONS = (
    Section("exactness", EXACTNESS, lambda record: with_setting(exactness.table(record["rows"]), record["setting"])),
    Section("zoo", ZOO, lambda record: with_setting(zoo.summary(record["rows"]), record["setting"])),
    Section(
        "compiled_zoo",
        COMPILED_ZOO,
        lambda record: with_setting(compiled_zoo.table(record["rows"]), record["setting"]),
    ),
    Section("fuzz", FUZZ, fuzzed),
    Section("fuzz_structures", STRUCTURED, fuzzed),
    Section("fuzz_files", FILES, opened),
    Section("scale", SCALE, lambda record: with_setting(scale.table(record["rows"]), record["setting"])),
    Section("peers", PEERS, peers_summary),
    Section("latency", LATENCY, latencies),
    Section("integer_latency", integer_latency.RESULTS, integers),
    Section("integer_latency_avx2", integer_latency.WITHOUT_SUMS_OF_BYTES, integers),
    Section("runtimes", runtimes.RESULTS, runtimes.summary),
    Section("kernels", KERNELS, lambda record: with_setting(kernels.table(record["rows"]), record["environment"])),
    Section("latency_goal", GOALS, lambda record: with_setting(latency_goal.table(record["rows"]), record["setting"])),
    Section("arm_kernels", ARM_KERNELS, lambda record: with_setting(arm_kernels.tables(record), record["environment"])),
    Section("arm_peers", arm_peers_page.RESULTS, arm_peers_page.summary),
    Section("structure_storage", structure_storage.RESULTS, lambda record: structure_storage.summary(record["rows"])),
    Section("sparse_kernels", sparse_kernels.RESULTS, sparse_kernels.summary),
    Section("sparse_networks", sparse_networks.RESULTS, sparse_networks.summary),
    Section("sparse_boards", sparse_networks.ON_BOARDS, sparse_networks.summary),
    Section("mlperf_tiny", mlperf_tiny.RESULTS, mlperf_tiny.summary),
    Section("scores", SCORES, lambda record: with_setting(scores.table(record["rows"]), record["setting"])),
    Section("size", SIZE, lambda record: with_setting(scores.sizes(record["rows"]), record["setting"])),
    Section("recovery", recovery.RESULTS, lambda record: recovery.table(record["rows"])),
    Section("layerwise", layerwise.RESULTS, lambda record: layerwise.table(record["rows"])),
    Section("quantization", quantization.RESULTS, lambda record: quantization.table(record["rows"])),
    Section("integer_accuracy", integer_accuracy.RESULTS, integer_accuracy.summary),
    Section("bundle_sizes", bundle_sizes.RESULTS, lambda record: bundle_sizes.table(record["rows"])),
    Section("training_kills", KILLS, killed),
    Section("structured_accuracy", structured_accuracy.RESULTS, structured_accuracy.summary),
    *(Section(name, text, accuracies) for name, text in accuracy_page.RESULTS.items()),
    Section("portfolio", PORTFOLIO, portfolios),
    Section(
        "compile_time", COMPILE, lambda record: with_setting(compile_time.table(record["rows"]), record["setting"])
    ),
    Section(
        "weights_memory", WEIGHTS, lambda record: with_setting(weights_memory.table(record["rows"]), record["setting"])
    ),
    Section("switching", SWITCHING, lambda record: with_setting(switching_table(record), record["setting"])),
    Section("fuzz_server", HOSTILE_CLIENTS, lambda record: with_setting(fuzz_server.table(record), record["setting"])),
    Section("boards", BOARDS, bundles),
)


def main() -> None:
    parts = [HEAD, *(section.rendered() for section in SECTIONS)]
    write_text(FOLDER / "results.md", "\n".join(filter(None, parts)))


if __name__ == "__main__":
    main()

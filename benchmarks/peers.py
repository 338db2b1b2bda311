"""The same networks through Torch-Pruning and through reconvene, with the same channels gone.

    pip install -e '.[peers]'
    python benchmarks/peers.py [--only resnet18 ...] [--json docs/results/peers.json] [--markdown docs/results/peers.md]

Torch-Pruning decides: half of the channels of each of its groups by group magnitude, the classifier left alone, as its
README shows. What it removes is recorded group by group and written down as masks on the original network. Both results
are then compared with that network, masked and run eagerly in float64: M1 zeroes the filters that make a removed channel
and leaves biases and normalisation alone; M2 zeroes all of its affine parameters. Where Torch-Pruning does not get
through, what it offers for that kind of network is tried (`RECIPES`); where nothing helps, reconvene removes half of the
channels of each of its own groups at random. Every attempt runs in a process of its own, with limits; finished rows are
kept in the JSON file, so that a run that was stopped goes on where it was. All seconds are processor time of one thread,
which other programs on the machine change little.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import masked_copy, masks_for, randomise
from zoo import SUBSET, build, fitting_inputs

from reconvene.frontend.base.files import write_text
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import analyse, compact
from reconvene.passes.dependency import dependency_view
from reconvene.passes.rewriting import rewrite

LISTED_AS_FAILING = (
    "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 swin_t swin_s swin_b".split()
)
"""What Torch-Pruning's own table of torchvision lists as failing for structural reasons."""

NETWORKS = [*(name for name in SUBSET if name not in LISTED_AS_FAILING), *LISTED_AS_FAILING]
MEMORY = 12
"""GiB that an attempt of Torch-Pruning may use."""
CLASSES = 1000
EXACT = 1e-12
"""Largest difference, relative to the largest output, that counts as equal in float64."""
SEED = 0

HEAD = """# Beside Torch-Pruning

Torch-Pruning removes half of the channels of each of its groups, by group magnitude; what it removed is then zeroed in the
original network, and both results are compared with that, in float64, relative to the largest output. M1 zeroes the
filters of a removed channel and leaves its biases and normalisation, so that it is a constant; M2 zeroes them too.
Torch-Pruning drops a channel together with its constant, which is what M2 asks for; it does not claim more. Networks are
untrained, with every bias, statistic and constant randomised. Seconds are processor time of one thread: its own for the
graph, the groups and the pruning; ours for capture + analysis and rewriting (M1), without the check. Where Torch-Pruning
does not get through, ours removes half of the channels of each of its own groups at random. Ours may keep more under M1:
a constant that is not zero needs a channel to carry it where a convolution pads.

Made by `benchmarks/peers.py`.
"""

Masks = dict[str, torch.Tensor]


# How Torch-Pruning is used ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """One way to use Torch-Pruning.

    Attributes:
        name: what the table calls it.
        done: what it does, for the page.
        fits: returns if a network, by name, is of the kind it is for.
        options: further arguments of the pruner.
        repair: what the user updates in the pruned network by hand.
    """

    name: str
    done: str
    fits: Callable[[str], bool]
    options: Callable[[nn.Module], dict[str, Any]]
    repair: Callable[[nn.Module], None] = lambda network: None


def classifiers(network: nn.Module) -> list[nn.Module]:
    """The layers that make the classes, or whatever else is the output, which must keep its width."""
    weighted = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    found = [layer for layer in weighted if layer.weight.shape[0] == CLASSES]
    return found or weighted[-1:]


def _halves(network: nn.Module) -> dict[str, Any]:
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    return {"out_channel_groups": dict.fromkeys(layers, 2)}


def _update_selective_kernels(network: nn.Module) -> None:
    from timm.layers import SelectiveKernel

    for module in network.modules():
        if isinstance(module, SelectiveKernel):
            module.in_channels = sum(path.conv.in_channels for path in module.paths)


def _update_mixed_convolutions(network: nn.Module) -> None:
    from timm.layers import MixedConv2d

    for module in network.modules():
        if isinstance(module, MixedConv2d):
            module.splits = [convolution.weight.shape[1] * convolution.groups for convolution in module.values()]


def _without_mixed_convolutions(network: nn.Module) -> dict[str, Any]:
    from timm.layers import MixedConv2d

    return {"ignored_layers": [module for module in network.modules() if isinstance(module, MixedConv2d)]}


def _swin_pruners(network: nn.Module) -> dict[str, Any]:
    import torch_pruning as tp
    from torchvision.models.swin_transformer import PatchMerging, ShiftedWindowAttention

    class Attention(tp.BasePruningFunc):
        """Its input is that of ``qkv``, its output that of ``proj``; heads keep their width."""

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            tp.prune_linear_out_channels(layer.proj, idxs)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            tp.prune_linear_in_channels(layer.qkv, idxs)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.proj.out_features)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.qkv.in_features)

    class Merging(tp.BasePruningFunc):
        """Four neighbours beside each other, normalised and reduced."""

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            tp.prune_linear_out_channels(layer.reduction, idxs)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            width = self.get_in_channels(layer)
            repeated = [index + neighbour * width for neighbour in range(4) for index in idxs]
            tp.prune_linear_in_channels(layer.reduction, repeated)
            tp.prune_layernorm_out_channels(layer.norm, repeated)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.reduction.out_features)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.reduction.in_features) // 4

    return {
        "customized_pruners": {ShiftedWindowAttention: Attention(), PatchMerging: Merging()},
        "root_module_types": (nn.Conv2d, nn.Linear, PatchMerging),
    }


def _only_perceptrons(network: nn.Module) -> dict[str, Any]:
    from torchvision.ops import MLP

    hidden = {id(module[0]) for module in network.modules() if isinstance(module, MLP)}
    weighted = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return {"ignored_layers": [module for module in weighted if id(module) not in hidden]}


RECIPES = (
    Recipe(
        "plain",
        "`BasePruner` with `GroupMagnitudeImportance(p=2)`, `pruning_ratio=0.5`, the classifier in `ignored_layers`",
        lambda name: True,
        lambda network: {},
    ),
    Recipe(
        "channel groups",
        "`out_channel_groups` of two everywhere, because the selective kernels split their input into halves that must "
        "lose equally many; their attribute `in_channels` updated afterwards, as the README asks for static attributes",
        lambda name: "skresnet" in name,
        _halves,
        _update_selective_kernels,
    ),
    Recipe(
        "static attributes",
        "plain, and the attribute `splits` of the mixed convolutions updated afterwards",
        lambda name: "mixnet" in name,
        lambda network: {},
        _update_mixed_convolutions,
    ),
    Recipe(
        "mixed convolutions ignored",
        "the mixed convolutions in `ignored_layers`, and `splits` updated",
        lambda name: "mixnet" in name,
        _without_mixed_convolutions,
        _update_mixed_convolutions,
    ),
    Recipe(
        "customized pruners",
        "`customized_pruners` for window attention and patch merging, as in its example for the Swin of another library",
        lambda name: name.startswith("swin"),
        _swin_pruners,
    ),
    Recipe(
        "only the MLPs",
        "every layer but the first of each MLP in `ignored_layers`",
        lambda name: name.startswith("swin"),
        _only_perceptrons,
    ),
)
"""In the order they are tried; the first that gives a network which runs is the one the table shows."""


def pruner_of(network: nn.Module, inputs: tuple[torch.Tensor, ...], recipe: Recipe) -> Any:
    """Torch-Pruning's pruner for the recipe."""
    import torch_pruning as tp

    options = recipe.options(network)
    ignored = [*classifiers(network), *options.pop("ignored_layers", ())]
    # Its default arguments are mutable and remember the last network.
    fresh: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
    return tp.pruner.BasePruner(
        network,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
        **(fresh | options),
    )


# What Torch-Pruning removed --------------------------------------------------------------------------------------


class Removals:
    """Masks on the original network of what groups remove from the shrinking one.

    A group counts positions in the network as the groups before it left it, so each parameter's surviving original
    positions are kept.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = {id(module): name for name, module in network.named_modules()}
        self._masks = {name: torch.ones(value.shape, dtype=torch.bool) for name, value in network.named_parameters()}
        self._survivors: dict[str, torch.Tensor] = {}

    def note(self, target: Any, axis: int, positions: Sequence[int]) -> None:
        """`positions` of the channels of `target`, a module or a parameter, are about to go."""
        for name, own_axis in self._makers(target, axis):
            mask = self._masks[name]
            survivors = self._survivors.get(name, torch.arange(mask.shape[own_axis]))
            gone = torch.zeros(len(survivors), dtype=torch.bool)
            gone[torch.tensor(sorted(set(positions)), dtype=torch.long)] = True
            mask.index_fill_(own_axis, survivors[gone], False)
            self._survivors[name] = survivors[~gone]

    def masks(self) -> Masks:
        """By parameter name, True to keep; only those that lose something."""
        return {name: mask for name, mask in self._masks.items() if not mask.all()}

    def _makers(self, target: Any, axis: int) -> list[tuple[str, int]]:
        """The parameters that make the channels of `target`, and the axis they are on."""
        if isinstance(target, nn.Parameter):
            name = next(name for name, value in self._network.named_parameters() if value is target)
            return [(name, axis)]
        if id(target) not in self._modules:
            return []  # One of its own stand-ins for an operator without a layer.
        # A layer with a pruner of its own makes its channels with its last linear layer.
        layer = getattr(target, "proj", getattr(target, "reduction", target))
        transposed = getattr(layer, "transposed", False)
        return [
            (f"{self._modules[id(layer)]}.{name}", 1 if transposed and value.dim() > 1 else 0)
            for name, value in layer.named_parameters(recurse=False)
            if value.numel() > 1
        ]


def prune_by_peer(network: nn.Module, inputs: tuple[torch.Tensor, ...], recipe: Recipe) -> tuple[float, Masks]:
    """Prunes `network` in place. Gives the processor seconds it took, recording left out, and what went."""
    noted = Removals(network)
    began = time.process_time()
    pruner = pruner_of(network, inputs, recipe)
    spent = time.process_time() - began
    groups = pruner.step(interactive=True)
    while True:
        began = time.process_time()
        group = next(groups, None)
        spent += time.process_time() - began
        if group is None:
            break
        for dependency, positions in group:
            if pruner.DG.is_out_channel_pruning_fn(dependency.handler):
                noted.note(dependency.target.module, dependency.target.pruning_dim, positions)
        began = time.process_time()
        group.prune()
        spent += time.process_time() - began
    recipe.repair(network)
    return spent, noted.masks()


# Measuring -------------------------------------------------------------------------------------------------------


def prepared(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The network with random values everywhere, and inputs; both float64."""
    torch.set_num_threads(1)
    network, shapes = build(name)
    if name == "googlenet":  # Its auxiliary heads do not run in inference mode, and would count as parameters left.
        network.aux1 = network.aux2 = None
    network = randomise(network.double(), SEED)
    torch.manual_seed(SEED)
    return network, fitting_inputs(network, shapes, torch.float64, 1)


def of_kind(masks: Masks, kind: str) -> Masks:
    """M2: all of them. M1: those of weights only, so that biases and normalisation stay."""
    return masks if kind == "M2" else {name: mask for name, mask in masks.items() if mask.dim() > 1}


def difference(expected: Any, got: Any) -> float:
    """Largest difference, relative to the largest entry of the expected tensor."""
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def parameters(network: nn.Module) -> int:
    """Scalar parameters."""
    return sum(value.numel() for value in network.parameters())


def measure_peer(name: str, recipe: Recipe, path: Path) -> dict[str, Any]:
    """One attempt, in this process; masks go to `path`."""
    original, inputs = prepared(name)
    pruned = copy.deepcopy(original)
    try:
        seconds, masks = prune_by_peer(pruned, inputs, recipe)
    except MemoryError:
        return {"outcome": "does not finish", "error": f"needs more than {MEMORY} GiB of memory"}
    except Exception as error:  # Whatever a foreign library raises is a row of the table.
        return {"outcome": "raises", "error": one_line(error)}
    with torch.no_grad():
        try:
            got = pruned(*inputs)
        except (RuntimeError, ValueError, IndexError) as error:
            return {"outcome": "wrong shape at run time", "error": one_line(error), "seconds": seconds}
        found: dict[str, Any] = {"outcome": "works", "seconds": seconds}
        for kind in ("M1", "M2"):
            found[kind] = difference(masked_copy(original, of_kind(masks, kind))(*inputs), got)
    save_file(masks, path)
    return found | {"parameters_left": parameters(pruned) / parameters(original)}


def measure_ours(name: str, path: Path | None) -> dict[str, Any]:
    """The same network through reconvene, with the masks of `path`, or half of every prunable group at random."""
    network, inputs = prepared(name)
    began = time.process_time()
    module = capture(network, inputs)
    row: dict[str, Any] = {
        "input": "x".join(map(str, inputs[0].shape)),
        "masks": "those of Torch-Pruning" if path else "half of every prunable group, at random",
        "capture_seconds": time.process_time() - began,
    }
    masks = load_file(path) if path else masks_for(dependency_view(canonicalize(module)), "M2", seed=SEED)
    for kind in ("M1", "M2"):
        chosen = of_kind(masks, kind)
        began = time.process_time()
        rewrite(*analyse(module, chosen))
        spent = time.process_time() - began
        found = compact(module, inputs, chosen)
        with torch.no_grad():
            expected = masked_copy(network, chosen)(*inputs)
            row[kind] = {
                "relative_difference": difference(expected, found.module(*inputs)),
                "seconds": spent,
                "parameters_left": parameters(found.module) / parameters(network),
            }
    return row


def one_line(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


# Running and writing ---------------------------------------------------------------------------------------------


def in_own_process(arguments: Sequence[str], limit: int) -> dict[str, Any]:
    """What this program prints when it is called with `arguments` and the limit."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--limit", str(limit)], capture_output=True, text=True, check=False
    )
    if done.returncode == -signal.SIGXCPU:
        return {"outcome": "does not finish", "error": f"stopped after {limit} s of processor time"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return {"outcome": "raises", "error": last}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _limit(seconds: int) -> None:
    """From now on this process may use as much processor time, then SIGXCPU ends it; and `MEMORY`, then it raises."""
    for kind, most in ((resource.RLIMIT_CPU, int(time.process_time()) + seconds), (resource.RLIMIT_AS, MEMORY << 30)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most, hard))


def run_one(name: str, limit: int) -> dict[str, Any]:
    """A row: Torch-Pruning's attempts until one works, then ours with the same masks."""
    attempts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.safetensors"
        for recipe in RECIPES:
            if recipe.fits(name) and (not attempts or attempts[-1]["outcome"] != "works"):
                found = in_own_process(["--attempt", name, recipe.name, str(path)], limit)
                attempts.append({"recipe": recipe.name} | found)
        ours = in_own_process(["--ours", name, *([str(path)] if path.exists() else [])], limit)
    return {"network": name, "attempts": attempts, "ours": ours}


def page(record: Mapping[str, Any]) -> str:
    """A record as Markdown: what was done, the setting, a row for each network, and how Torch-Pruning was used."""
    rows: list[dict[str, Any]] = record["rows"]
    used = {attempt["recipe"] for row in rows for attempt in row["attempts"]}
    helped = [row for row in rows if len(row["attempts"]) > 1 or not _works(row)]
    lines = [
        HEAD,
        "; ".join(f"{key} {value}" for key, value in record["setting"].items()),
        "",
        summary(record),
        "",
        "| network | input | Torch-Pruning | its difference M1 / M2 | its seconds | its parameters left "
        "| our difference M1 / M2 | our seconds | our parameters left M1 / M2 |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_table_row(row) for row in rows),
        "",
        "## How Torch-Pruning was used",
        "",
        "Tried in this order until one gave a network that runs:",
        "",
        *(f"- **{recipe.name}**: {recipe.done}." for recipe in RECIPES if recipe.name in used),
        "",
        "Where the plain call does not get through:",
        "",
    ]
    for row in helped:
        lines.append(f"- {row['network']}")
        lines += [f"  - {attempt['recipe']}: {_outcome(attempt)}" for attempt in row["attempts"]]
    return "\n".join(lines) + "\n"


def summary(record: Mapping[str, Any]) -> str:
    """How many networks get through, and how many of them are equal to the masked network."""
    rows: list[dict[str, Any]] = record["rows"]
    last = [row["attempts"][-1] for row in rows if _works(row)]
    plain = sum(attempt["recipe"] == "plain" for attempt in last)
    exact = {kind: sum(attempt[kind] <= EXACT for attempt in last) for kind in ("M1", "M2")}
    return (
        f"Torch-Pruning: of {len(rows)} networks {plain} get through with the plain call and {len(last)} with what it "
        f"offers besides; {exact['M2']} of these equal the masked network under M2, {exact['M1']} under M1. "
        f"Ours: {sum(_is_exact(row) for row in rows)} of {len(rows)} get through and are equal under both."
    )


def _works(row: Mapping[str, Any]) -> bool:
    return bool(row["attempts"][-1]["outcome"] == "works")


def _is_exact(row: Mapping[str, Any]) -> bool:
    """Returns if ours got through and equals the masked network under both kinds of mask."""
    return all(kind in row["ours"] and row["ours"][kind]["relative_difference"] <= EXACT for kind in ("M1", "M2"))


def _outcome(attempt: Mapping[str, Any]) -> str:
    return attempt["outcome"] + (f" (`{attempt['error']}`)" if "error" in attempt else "")


def _table_row(row: Mapping[str, Any]) -> str:
    last, ours = row["attempts"][-1], row["ours"]
    if _works(row):
        how = "works" if last["recipe"] == "plain" else f"works ({last['recipe']})"
        theirs = f"{how} | {last['M1']:.1e} / {last['M2']:.1e} | {last['seconds']:.2f} | {last['parameters_left']:.1%}"
    else:
        theirs = f"{row['attempts'][0]['outcome']} | | |"
    if "M1" not in ours:
        return f"| {row['network']} | | {theirs} | {_outcome(ours)} | | |"
    first, second = ours["M1"], ours["M2"]
    return (
        f"| {row['network']} | {ours['input']} | {theirs} "
        f"| {first['relative_difference']:.1e} / {second['relative_difference']:.1e} "
        f"| {ours['capture_seconds']:.2f} + {first['seconds']:.2f} "
        f"| {first['parameters_left']:.1%} / {second['parameters_left']:.1%} |"
    )


def setting() -> dict[str, Any]:
    """The conditions of a run."""
    versions = {name: metadata.version(name) for name in ("torch-pruning", "torchvision", "timm")}
    return versions | {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": 1,
        "dtype": "float64",
        "seed": SEED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=NETWORKS, help="names as in benchmarks/zoo.py")
    parser.add_argument("--json", type=Path, help="rows already in it are not run again")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--limit", type=int, default=300, help="processor seconds for an attempt of Torch-Pruning")
    parser.add_argument("--attempt", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ours", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("torch_pruning") is None:
        sys.exit("Torch-Pruning is not installed; install it with: pip install -e '.[peers]'")
    warnings.simplefilter("ignore")
    if options.attempt:
        name, chosen, path = options.attempt
        recipe = next(recipe for recipe in RECIPES if recipe.name == chosen)
        _limit(options.limit)
        print(json.dumps(measure_peer(name, recipe, Path(path))))
        return
    if options.ours:
        print(json.dumps(measure_ours(options.ours[0], Path(options.ours[1]) if options.ours[1:] else None)))
        return
    rows: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        rows = {row["network"]: row for row in json.loads(options.json.read_text(encoding="utf-8"))["rows"]}
    for name in options.only:
        if name not in rows:
            rows[name] = run_one(name, options.limit)
            print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
        if options.json:
            write_text(options.json, json.dumps({"setting": setting(), "rows": list(rows.values())}, indent=1) + "\n")
    text = page({"setting": setting(), "rows": [rows[name] for name in options.only]})
    print(text)
    if options.markdown:
        write_text(options.markdown, text)
    bad = [name for name in options.only if not _is_exact(rows[name])]
    if bad:
        sys.exit(f"ours is not exact: {', '.join(bad)}")


if __name__ == "__main__":
    main()

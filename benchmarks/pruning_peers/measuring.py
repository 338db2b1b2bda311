"""One network through Torch-Pruning, and through reconvene with the same channels gone."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch
from models import masked_copy, masks_for, randomise
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils import _pytree as pytree
from zoo import build, fitting_inputs

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import analyse, compact
from reconvene.passes.dependency import dependency_view
from reconvene.passes.rewriting import rewrite

from .recipes import Recipe
from .removals import Masks, prune_by_peer

__all__ = ["MEMORY", "SEED", "measure_ours", "measure_peer"]

MEMORY = 12
"""GiB that an attempt of Torch-Pruning may use."""

SEED = 0


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

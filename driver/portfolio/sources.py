"""Where a portfolio's variants come from: trained levels, programs, or one network pruned to several degrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import load_program
from ...passes.pruning.decisions import AS_WANTED, Widths
from ...passes.pruning.methods import find_method
from ...passes.pruning.methods.base import Aim, ChannelMethod
from ...passes.pruning.scores import Evidence
from ..training.levels import open_levels

__all__ = ["Loaded", "Source", "levels_sources", "program_sources", "pruned_sources"]

Loaded = tuple[CapturedModule, tuple[Any, ...]]


@dataclass(frozen=True)
class Source:
    """A sparse network that is to become a variant.

    Attributes:
        name: of the variant.
        load: gives the captured network, zeros in its weights, and example inputs; called once, when its turn comes.
        facts: what is known of it, for the manifest.
    """

    name: str
    load: Callable[[], Loaded] = field(repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)


def levels_sources(folder: Path) -> tuple[Source, ...]:
    """The finished levels in the folder that ``reconvene train-levels`` wrote.

    Raises:
        InputError: there are none.
    """
    return tuple(
        Source(
            level.name,
            lambda path=level.model: _program(path),  # type: ignore[misc]
            {
                "level": level.number, "weights": level.weights, "zeros": level.zeros,
                "training_accuracy": level.accuracy, "training_seconds": level.seconds,
            },
        )
        for level in open_levels(folder)
    )  # fmt: skip


def program_sources(paths: Sequence[Path]) -> tuple[Source, ...]:
    """One variant for each ``.pt2``, named as its file.

    Raises:
        InputError: two files have the same name.
    """
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two programs are called '{name}'; a portfolio's variants need different names")
    return tuple(
        Source(path.stem, lambda path=path: _program(path), {"program": path.name})  # type: ignore[misc]
        for path in paths
    )


def pruned_sources(
    module: CapturedModule,
    inputs: tuple[Any, ...],
    sparsities: Sequence[float],
    method: str,
    widths: Widths = AS_WANTED,
    seed: int = 0,
) -> tuple[Source, ...]:
    """One network pruned to several degrees by `method`, without training after it.

    Args:
        module: a captured, trained network.
        inputs: that fit it.
        sparsities: shares of the channels to remove; 0 is the network as it is.
        method: of `passes.pruning.methods.METHODS`.
        widths: how wide layers may end.
        seed: of random methods.

    Raises:
        InputError: a sparsity is given twice, or is out of range, or the method gives new weights, which would want training.
    """
    if len(set(sparsities)) < len(sparsities):
        raise InputError("a sparsity is given twice; name each variant's once")
    chosen = find_method(method, ChannelMethod)
    if not chosen.keeps_weights:
        raise InputError(f"the method {method} gives layers new weights, which are not trained here; choose another")
    aims, evidence = {sparsity: Aim(sparsity, widths) for sparsity in sparsities}, Evidence(inputs, seed=seed)
    for aim in aims.values():
        chosen.check_aim(aim)

    def load(sparsity: float) -> Loaded:
        if not sparsity:
            return module, inputs
        made = chosen.prune(module, evidence, aims[sparsity]).compaction.module
        assert isinstance(made, CapturedModule)
        return made, inputs

    return tuple(
        Source(
            f"{method}-{sparsity:g}" if sparsity else "dense",
            lambda sparsity=sparsity: load(sparsity),  # type: ignore[misc]
            {"method": method, "sparsity": sparsity},
        )
        for sparsity in sorted(sparsities)
    )


def _program(path: Path) -> Loaded:
    module, inputs = load_program(path)
    if not inputs:
        raise InputError(f"'{path}' carries no example inputs; write it with reconvene capture")
    return module, inputs

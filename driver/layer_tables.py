"""Tables of what a model's layers take with zeros on a target: from a model to the table, and what one asks it for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..frontend.base.errors import InputError
from ..frontend.base.turns import tracing_in_turn
from ..passes.canonicalize import canonicalize
from ..passes.pruning.structure_rules import structure_rules
from ..passes.structures import Structure, check_share
from .api import captured

if TYPE_CHECKING:
    from pathlib import Path

    from ..backends.boards.place import Place
    from ..backends.latency_table.measuring import LayerTime
    from ..backends.latency_table.table import LatencyTable
    from ..backends.machines.targets import Target
    from ..frontend.arguments import Inputs
    from ..frontend.capture import Model
    from ..frontend.graph_module import CapturedModule

__all__ = ["LayerRow", "StructureRow", "layer_rows", "structures_alone", "table_for", "table_of", "tabled"]


@dataclass(frozen=True)
class StructureRow:
    """What a layer takes with a structure.

    Attributes:
        times: by share of zeros; empty where it does not fit.
        reason: why it does not.
    """

    structure: Structure
    times: dict[float, LayerTime]
    reason: str = ""


@dataclass(frozen=True)
class LayerRow:
    """What layers of one form take.

    Attributes:
        names: of their weights.
        layer: the form of each call in words.
        dense: all calls of one of them without zeros.
    """

    names: tuple[str, ...]
    layer: tuple[str, ...]
    dense: LayerTime
    structures: tuple[StructureRow, ...]


def table_of(
    model: Model, example_inputs: Inputs | None, target: str | Target, by: str = "model", on: Place | None = None,
    folder: Path | None = None,
) -> tuple[CapturedModule, LatencyTable]:  # fmt: skip
    """A model in its canonical form, and the table of its layers on `target`, in which is what was found before.

    Args:
        model, example_inputs: as for `reconvene.capture`.
        by: ``model`` counts cycles by a formula, ``cycles`` takes what is modelled of the emulated code, ``time`` has this
            machine's clock.
        on: with ``time``, the board whose clock it is.
        folder: in place of the user's cache folder.

    Raises:
        InputError: the model or the inputs cannot be used, there is no such target, or nobody who could tell its times so.
    """
    canonical, _, table = tabled(model, example_inputs, target, by, on, folder)
    return canonical, table


@tracing_in_turn
def tabled(
    model: Model, example_inputs: Inputs | None, target: str | Target, by: str = "model", on: Place | None = None,
    folder: Path | None = None,
) -> tuple[CapturedModule, tuple[Any, ...], LatencyTable]:  # fmt: skip
    """The same, and the inputs of one call between them."""
    module, inputs = captured(model, example_inputs)
    canonical = canonicalize(module)
    return canonical, inputs, table_for(canonical, inputs, target, by, on, folder)


def table_for(
    canonical: CapturedModule, inputs: tuple[Any, ...], target: str | Target, by: str, on: Place | None = None,
    folder: Path | None = None,
) -> LatencyTable:  # fmt: skip
    # TVM takes seconds to import, and what is wrong with a model is known before.
    from ..backends.latency_table.table import latency_table

    return latency_table(canonical, inputs, target, by, on, folder)


def structures_alone(spelled: Sequence[str]) -> tuple[Structure, ...]:
    """Structures by their names. Raises InputError for what is none, or says a share, which is asked for beside it."""
    asked = [one for text in spelled for one in structure_rules(text)[0].asked]
    for one in asked:
        if one.share is not None:
            raise InputError(f"'{one}' says a share, and times are told of several; leave @{one.share:g} out")
    return tuple(dict.fromkeys(one.structure for one in asked))


def layer_rows(table: LatencyTable, structures: Sequence[Structure], shares: Sequence[float]) -> tuple[LayerRow, ...]:
    """All layers of the network, those of the same form in one row; fills the table with what it lacks.

    Raises:
        InputError: a share is out of range.
    """
    for share in shares:
        check_share(share)
    fitting = [
        (layer, structure) for structure in structures for layer in table.layers if not structure.fits(layer.view.shape)
    ]
    table.fill(
        [(layer.name, structure, share) for layer, structure in fitting for share in _shares(structure, shares)],
        [layer.name for layer in table.layers],
    )
    names: dict[object, list[str]] = {}
    for layer in table.layers:
        names.setdefault((layer.forms, layer.view.shape), []).append(layer.name)
    views = {layer.name: layer for layer in table.layers}
    return tuple(
        LayerRow(
            tuple(alike),
            tuple(map(str, views[alike[0]].forms)),
            table.dense(alike[0]),
            tuple(_row(table, alike[0], structure, shares) for structure in structures),
        )
        for alike in names.values()
    )


def _row(table: LatencyTable, name: str, structure: Structure, shares: Sequence[float]) -> StructureRow:
    (shape,) = (layer.view.shape for layer in table.layers if layer.name == name)
    if misfit := structure.fits(shape):
        return StructureRow(structure, {}, misfit)
    return StructureRow(
        structure, {share: table.sparse(name, structure, share) for share in _shares(structure, shares)}
    )


def _shares(structure: Structure, shares: Sequence[float]) -> tuple[float, ...]:
    fixed = structure.fixed_sparsity
    return tuple(shares) if fixed is None else (fixed,)

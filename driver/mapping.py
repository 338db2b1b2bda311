"""Plans of structures from a model: which layer takes which, by rules and what layers take on a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..passes.pruning.mapping import MappingRules, map_layers
from ..passes.pruning.structure_plan import StructurePlan
from ..passes.weight_views import weight_views
from .layer_tables import table_of

if TYPE_CHECKING:
    from ..backends.boards.place import Place
    from ..backends.machines.targets import Target
    from ..frontend.arguments import Inputs
    from ..frontend.capture import Model

__all__ = ["map_structures", "mapped"]


def map_structures(
    model: Model,
    example_inputs: Inputs | None = None,
    target: str | Target = "host",
    sparsity: float = 0.8,
    *,
    beta: float = 0.2,
    data: Literal["hard", "easy"] = "hard",
    by: Literal["model", "cycles", "time"] = "model",
    on: Place | None = None,
    ignore: Sequence[str] = (),
) -> StructurePlan:
    """Chooses a structure of zeros and its block size for every layer, for `prune` and for methods that train.

    By the rules of Gong et al. (arXiv 2111.11581): 3x3 convolutions take kernel patterns where data are hard and block-punched
    zeros where they are easy, all others the smallest block that is as fast as the coarsest but for `beta`; depthwise layers,
    the first convolution and the last layers stay dense, and so does what would not be faster. ``MappingRules`` in
    ``reconvene.passes.pruning.mapping`` has which blocks there are.

    Args:
        model: as for `capture`.
        example_inputs: as for `capture`.
        target: where it is to run: a preset's name or a Target.
        sparsity: share of zeros of every layer that takes a structure; patterns are 5/9 at least.
        beta: how much longer than the coarsest block a smaller one may take, as a share of its time.
        data: ``hard``, such as ImageNet, or ``easy``, such as CIFAR-10.
        by: who tells times: ``model`` counts cycles by a formula, ``cycles`` takes what is modelled of the emulated code,
            ``time`` has this machine's clock. All is found once, and kept in the user's cache folder.
        on: with ``time``, the board whose clock it is.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave dense.

    Raises:
        InputError: the model, the inputs or an option cannot be used, or nobody can tell times of the target so.
    """
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    return mapped(model, example_inputs, target, MappingRules(sparsity, beta, data, ignore=patterns), by, on)


def mapped(
    model: Model, example_inputs: Inputs | None, target: str | Target, rules: MappingRules, by: str,
    on: Place | None = None, folder: Path | None = None,
) -> StructurePlan:  # fmt: skip
    """The same with all rules said, and the table of times kept in `folder` in place of the user's cache folder."""
    module, table = table_of(model, example_inputs, target, by, on, folder)
    layers = map_layers(weight_views(module), table, rules)
    made: dict[str, str | float | int | bool | None] = {
        "method": "rules",
        "sparsity": rules.sparsity,
        "beta": rules.beta,
        "data": rules.data,
    }
    return StructurePlan(layers, target if isinstance(target, str) else target.name, by, table.unit, made)

"""Plans of structures from a model: which layer takes which, by rules or by a search, and what layers take on a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..frontend.base.errors import InputError
from ..passes.pruning.mapping import MappingRules, map_layers
from ..passes.pruning.search.structure_search import StructureSearch
from ..passes.pruning.structure_plan import StructurePlan
from ..passes.weight_views import weight_views
from .ignored import Ignored, checked_patterns, patterns_of
from .layer_tables import tabled
from .searched_mapping import HeldOut, searched

if TYPE_CHECKING:
    from ..backends.boards.place import Place
    from ..backends.machines.targets import Target
    from ..frontend.arguments import Inputs
    from ..frontend.capture import Model
    from .recovering import CalibrationInputs

__all__ = ["check_no_rules", "map_structures", "mapped"]

_RULES = MappingRules()


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
    ignore: Ignored = (),
    search: StructureSearch | None = None,
    calibration: CalibrationInputs | None = None,
    held_out: HeldOut | None = None,
    seed: int = 0,
) -> StructurePlan:
    """Chooses a structure of zeros and its block size for every layer, for `prune` and for methods that train.

    With `search`, the structure, the block and the share of zeros of every layer are searched for, so that all layers
    together take a share of the dense time and the network is worth the most: its outputs are near the dense network's on
    calibration inputs, or with `held_out` its accuracy on images that it was not trained on is high, with zeros of the
    smallest magnitude and without training. That takes minutes.

    Otherwise by the rules of Gong et al. (arXiv 2111.11581): 3x3 convolutions take kernel patterns where data are hard and
    block-punched zeros where they are easy, all others the smallest block that is as fast as the coarsest but for `beta`;
    depthwise layers, the first convolution and the last layers stay dense, and so does what would not be faster.
    ``MappingRules`` in ``reconvene.passes.pruning.mapping`` has which blocks there are.

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
        ignore: a pattern (``fnmatch``) of parameter or layer names to leave dense, or a module of `model`; or several.
        search: its budget and how it goes; sparsity, beta and data are for the rules.
        calibration: for a search, inputs that the network with zeros is tried on: those of one call, of several in a list, or
            synthetic ones, which are taken unless said; with `held_out`, some of the images that are left to train on.
        held_out: for a search, what accuracy is told on.
        seed: of all that is random in a search.

    Raises:
        InputError: the model, the inputs or an option cannot be used, nobody can tell times of the target so, or the budget
            cannot be reached.
    """
    patterns = checked_patterns(patterns_of(model, ignore))
    rules = MappingRules(sparsity, beta, data, ignore=patterns)
    if search is None:
        if calibration is not None or held_out is not None:
            raise InputError("calibration and held_out are for a search; say search=StructureSearch(budget=0.35)")
        return mapped(model, example_inputs, target, rules, by, on)
    check_no_rules(rules)
    return mapped(
        model,
        example_inputs,
        target,
        rules,
        by,
        on,
        search=search,
        calibration=calibration,
        held_out=held_out,
        seed=seed,
    )


def check_no_rules(rules: MappingRules) -> None:
    """Raises InputError if a rule is said that a search does not ask."""
    for name in ("sparsity", "beta", "data"):
        if getattr(rules, name) != getattr(_RULES, name):
            raise InputError(f"{name} is for the rules, and a search decides by itself; leave it out")


def mapped(
    model: Model, example_inputs: Inputs | None, target: str | Target, rules: MappingRules, by: str,
    on: Place | None = None, folder: Path | None = None, *, search: StructureSearch | None = None,
    calibration: CalibrationInputs | None = None, held_out: HeldOut | None = None, seed: int = 0,
) -> StructurePlan:  # fmt: skip
    """The same with all rules said, and the table of times kept in `folder` in place of the user's cache folder."""
    module, inputs, table = tabled(model, example_inputs, target, by, on, folder)
    name = target if isinstance(target, str) else target.name
    if search is not None:
        found, how = searched(module, inputs, table, rules, search, calibration, held_out, seed)
        return StructurePlan(found, name, by, table.unit, how)
    layers = map_layers(weight_views(module), table, rules)
    made: dict[str, str | float | int | bool | None] = {
        "method": "rules",
        "sparsity": rules.sparsity,
        "beta": rules.beta,
        "data": rules.data,
    }
    return StructurePlan(layers, name, by, table.unit, made)

"""Which layer takes which structure of zeros: what was asked for, what fits, and what is left dense unless it is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ..masks import canonical_and_masked
from ..structures import Structure, find_structure
from ..values import attribute
from ..weight_views import WeightView, weight_views

__all__ = ["Choice", "StructureRule", "check_structures", "choose", "structure_rules"]

_OTHERS = "*"


@dataclass(frozen=True)
class StructureRule:
    """Structures for the weights of some names; the first that fits a weight's shape is taken.

    Attributes:
        pattern: of parameter or layer names (``fnmatch``).
        structures: in the order in which they are tried.
    """

    pattern: str
    structures: tuple[Structure, ...]

    def matches(self, name: str) -> bool:
        return fnmatch(name, self.pattern) or fnmatch(name.rpartition(".")[0], self.pattern)

    def names(self, name: str) -> bool:
        """Whether the pattern is this very name, without wildcards."""
        return self.pattern in (name, name.rpartition(".")[0])

    def __str__(self) -> str:
        return ",".join(map(str, self.structures))


@dataclass(frozen=True)
class Choice:
    """What one weight takes.

    Attributes:
        view: of the weight.
        structure: None where it stays dense.
        reason: why it does.
        refused: whether that is because nothing that was asked for fits.
    """

    view: WeightView
    structure: Structure | None
    reason: str = ""
    refused: bool = False


def structure_rules(asked: str | Structure | Mapping[str, str | Structure]) -> tuple[StructureRule, ...]:
    """Rules from a structure for all layers, or from patterns of names with one each; the first pattern that matches holds.

    Several structures with commas between are tried one after another. The pattern ``*`` is for the layers that no other
    matches, wherever it stands.

    Raises:
        InputError: a structure is none, or there is no rule.
    """
    entries = asked if isinstance(asked, Mapping) else {_OTHERS: asked}
    if not entries:
        raise InputError("no structure was named; give one such as 'row-block:4', or patterns of names with one each")
    rules = [StructureRule(pattern, _structures(structure)) for pattern, structure in entries.items()]
    return tuple(sorted(rules, key=lambda rule: rule.pattern == _OTHERS))


def choose(
    views: Sequence[WeightView], rules: Sequence[StructureRule], ignore: Sequence[str] = ()
) -> tuple[Choice, ...]:
    """What each weight takes. The first convolution, depthwise ones and the last layers stay dense unless a rule names them.

    Raises:
        InputError: a pattern matches no weight, or no weight takes a structure.
    """
    _check_patterns(views, [rule.pattern for rule in rules if rule.pattern != _OTHERS])
    _check_patterns(views, ignore)
    choices = tuple(_choice(view, rules, ignore) for view in views)
    if not any(choice.structure for choice in choices):
        reasons = "; ".join(f"{choice.view.name}: {choice.reason}" for choice in choices[:4])
        more = f"; and {len(choices) - 4} more" if len(choices) > 4 else ""
        raise InputError(
            f"no layer of this model takes a structure of zeros: {reasons}{more}"
            if choices
            else "this model has no convolution, linear or recurrent layer whose weights could be pruned"
        )
    return choices


def check_structures(
    module: fx.GraphModule, masks: Mapping[str, Tensor] | None, rules: Sequence[StructureRule]
) -> None:
    """Checks that the zeros of a captured module and of masks are what rules say.

    Raises:
        InputError: those of a weight are not of the structure that the first rule for its name says; a weight without zeros
            is of any. A mask does not fit, or a pattern matches nothing.
    """
    masked = canonical_and_masked(module, masks)
    views = weight_views(masked)
    _check_patterns(views, [rule.pattern for rule in rules if rule.pattern != _OTHERS])
    for view in views:
        rule = next((rule for rule in rules if rule.matches(view.name)), None)
        weight = view.seen(attribute(masked, view.name).detach())
        if rule is not None and bool((weight == 0).any()):
            wrong = [structure.fits(view.shape) or structure.broken(weight) for structure in rule.structures]
            if all(wrong):
                raise InputError(f"the zeros of '{view.name}' are not {rule}: {wrong[0]}")


def _structures(spelled: str | Structure) -> tuple[Structure, ...]:
    if isinstance(spelled, Structure):
        return (spelled,)
    if not isinstance(spelled, str):
        raise InputError(f"a structure is its name, such as 'row-block:4', not a {type(spelled).__name__}")
    return tuple(find_structure(one.strip()) for one in spelled.split(","))


def _choice(view: WeightView, rules: Sequence[StructureRule], ignore: Sequence[str]) -> Choice:
    rule = next((rule for rule in rules if rule.matches(view.name)), None)
    layer = view.name.rpartition(".")[0]
    pattern = next((p for p in ignore if fnmatch(view.name, p) or fnmatch(layer, p)), None)
    if rule is None:
        return Choice(view, None, "no pattern of a structure matches it")
    if pattern is not None:
        return Choice(view, None, f"left alone by '{pattern}'")
    if view.unlike:
        return Choice(view, None, view.unlike, refused=True)
    if (kept := _dense_by_default(view)) and not rule.names(view.name):
        return Choice(view, None, kept)
    misfits = [structure.fits(view.shape) for structure in rule.structures]
    for structure, misfit in zip(rule.structures, misfits, strict=True):
        if not misfit:
            return Choice(view, structure)
    told = "; ".join(f"{structure}: {misfit}" for structure, misfit in zip(rule.structures, misfits, strict=True))
    return Choice(view, None, told, refused=True)


def _dense_by_default(view: WeightView) -> str:
    if view.depthwise:
        return "depthwise, unless its name is given"
    if view.convolution and view.first:
        return "a first convolution, unless its name is given"
    return (
        "a last layer, such as the classifier, unless its name is given" if view.layer is not None and view.last else ""
    )


def _check_patterns(views: Sequence[WeightView], patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(StructureRule(pattern, ()).matches(view.name) for view in views):
            example = views[0].name if views else "conv1.weight"
            raise InputError(f"the pattern '{pattern}' matches no layer; names look like '{example}'")

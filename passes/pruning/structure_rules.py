"""Which layer takes which structure of zeros: what was asked for, what fits, and what is left dense unless it is named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ..masks import canonical_and_masked
from ..structures import Structure, check_share, find_structure
from ..values import attribute
from ..weight_views import WeightView, weight_views, with_other_names

__all__ = [
    "AskedStructure",
    "Choice",
    "StructureRule",
    "check_structures",
    "choose",
    "dense_by_default",
    "no_choice",
    "spelled_rules",
    "structure_rules",
]

_OTHERS = "*"
_TOLD = 6
"""Structures in one message."""
_NO_STRUCTURES = {
    "dense": "a dense layer has none; leave it out with ignore",
    "channels": "whole channels are of all layers; give their share as sparsity",
}
_NUMBER = r"\d{0,6}(\.\d{0,12})?"


@dataclass(frozen=True)
class AskedStructure:
    """A structure as it is asked for: ``row-block:4``, or with its own share of zeros ``row-block:4@0.8``.

    Attributes:
        share: of the layers that take it; None where the general one holds, or the structure itself says it.

    Raises:
        InputError: the share is out of range, or another than the structure itself says.
    """

    structure: Structure
    share: float | None = None

    def __post_init__(self) -> None:
        if self.share is None:
            return
        check_share(self.share)
        fixed = self.structure.fixed_sparsity
        if fixed is not None and abs(self.share - fixed) > 1e-9:
            raise InputError(
                f"{self.structure} says its share of zeros itself, {fixed:g}, so '{self}' has no meaning; leave @{self.share:g}"
                " out"
            )

    @classmethod
    def spelled(cls, text: str) -> AskedStructure:
        """From its spelling. Raises InputError if it is none."""
        name, at, share = text.strip().partition("@")
        if name in _NO_STRUCTURES:
            raise InputError(f"'{text}' is no structure of zeros inside of a layer: {_NO_STRUCTURES[name]}")
        if at and not (re.fullmatch(_NUMBER, share, re.ASCII) and any(map(str.isdigit, share))):
            raise InputError(f"'{text}' names no share of zeros after the @; write a number, such as '{name}@0.8'")
        return cls(find_structure(name), float(share) if at else None)

    @property
    def own_share(self) -> float | None:
        """The share of zeros that it says, by itself or as it is asked for; None where the general one holds."""
        return self.structure.fixed_sparsity if self.share is None else self.share

    def __str__(self) -> str:
        return str(self.structure) + ("" if self.share is None else f"@{_digits(self.share)}")


def _digits(share: float) -> str:
    """As shares are spelled: without an exponent."""
    return f"{share:.12f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class StructureRule:
    """Structures for the weights of some names; the first that fits a weight's shape is taken.

    Attributes:
        pattern: of parameter or layer names (``fnmatch``).
        asked: in the order in which they are tried.
    """

    pattern: str
    asked: tuple[AskedStructure, ...]

    @property
    def own_shares(self) -> frozenset[float | None]:
        """The shares of zeros that its structures say, None among them where one says none."""
        return frozenset(one.own_share for one in self.asked)

    def matches(self, view: WeightView) -> bool:
        return any(fnmatch(name, self.pattern) or fnmatch(name.rpartition(".")[0], self.pattern) for name in view.names)

    def names(self, view: WeightView) -> bool:
        """Whether the pattern is a name of the weight or its layer, without wildcards."""
        return any(self.pattern in (name, name.rpartition(".")[0]) for name in view.names)

    def __str__(self) -> str:
        return ",".join(map(str, self.asked))


@dataclass(frozen=True)
class Choice:
    """What one weight takes.

    Attributes:
        view: of the weight.
        structure: None where it stays dense.
        reason: why it does.
        refused: whether that is because nothing that was asked for fits.
        share: of zeros, where the layer has one of its own; None where the general one holds, or the structure itself says it.
    """

    view: WeightView
    structure: Structure | None
    reason: str = ""
    refused: bool = False
    share: float | None = None

    @property
    def own_share(self) -> float | None:
        """The share of zeros that is said for this layer alone; None where the general one holds, or it stays dense."""
        return None if self.structure is None else AskedStructure(self.structure, self.share).own_share

    @property
    def told(self) -> str | None:
        """The structure as it was asked for, with the layer's own share; None where it stays dense."""
        return None if self.structure is None else str(AskedStructure(self.structure, self.share))


def structure_rules(asked: str | Structure | Mapping[str, str | Structure]) -> tuple[StructureRule, ...]:
    """Rules from a structure for all layers, or from patterns of names with one each; the first pattern that matches holds.

    Several structures with commas between are tried one after another. The pattern ``*`` is for the layers that no other
    matches, wherever it stands. A structure may say its own share of zeros, ``row-block:4@0.8``.

    Raises:
        InputError: a structure is none, its share makes no sense, or there is no rule.
    """
    entries = asked if isinstance(asked, Mapping) else {_OTHERS: asked}
    if not entries:
        raise InputError(
            "no structure was named; give one such as 'row-block:4', patterns of names with one each, or a plan in which not"
            " every layer stays dense"
        )
    if (wrong := next((pattern for pattern in entries if not isinstance(pattern, str)), None)) is not None:
        raise InputError(f"a pattern of layers' names is text, such as 'blocks.*', not {wrong!r}")
    rules = [StructureRule(pattern, _asked(structure)) for pattern, structure in entries.items()]
    return tuple(sorted(rules, key=lambda rule: rule.pattern == _OTHERS))


def spelled_rules(rules: Sequence[StructureRule]) -> str:
    """What rules ask for, in a message."""
    told = list(dict.fromkeys(map(str, rules)))
    return ", ".join(told[:_TOLD]) + (f" and {len(told) - _TOLD} more" if len(told) > _TOLD else "")


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


def no_choice(view: WeightView) -> str:
    """Why a layer can be given no zeros of its own; empty for one that can."""
    return view.unlike or (
        f"its weight is that of '{view.source}', moved, and has the zeros of that" if view.source else ""
    )


def dense_by_default(view: WeightView) -> str:
    """Why a layer stays dense unless a rule names it; empty for one that need not."""
    if view.depthwise:
        return "depthwise, unless its name is given"
    if view.convolution and view.first:
        return "a first convolution, unless its name is given"
    return (
        "a last layer, such as the classifier, unless its name is given" if view.layer is not None and view.last else ""
    )


def check_structures(
    module: fx.GraphModule, masks: Mapping[str, Tensor] | None, rules: Sequence[StructureRule]
) -> None:
    """Checks that the zeros of a captured module and of masks are what rules say.

    Raises:
        InputError: those of a weight are not of the structure that the first rule for its name says; a weight without zeros
            is of any. A mask does not fit, a pattern matches nothing, or a rule says a share, which is none of zeros that are
            there already.
    """
    for one in (one for rule in rules for one in rule.asked if one.share is not None):
        raise InputError(f"the zeros are there already, so that '{one}' has no meaning; leave @{one.share:g} out")
    masked = canonical_and_masked(module, masks)
    views = with_other_names(weight_views(masked), module)
    _check_patterns(views, [rule.pattern for rule in rules if rule.pattern != _OTHERS])
    for view in views:
        rule = next((rule for rule in rules if rule.matches(view)), None)
        weight = view.seen(attribute(masked, view.name).detach())
        if rule is not None and bool((weight == 0).any()):
            wrong = [one.structure.fits(view.shape) or one.structure.broken(weight) for one in rule.asked]
            if all(wrong):
                raise InputError(f"the zeros of '{view.name}' are not {rule}: {wrong[0]}")


def _asked(spelled: str | Structure) -> tuple[AskedStructure, ...]:
    if isinstance(spelled, Structure):
        return (AskedStructure(spelled),)
    if not isinstance(spelled, str):
        raise InputError(f"a structure is its name, such as 'row-block:4', not a {type(spelled).__name__}")
    return tuple(map(AskedStructure.spelled, spelled.split(",")))


def _choice(view: WeightView, rules: Sequence[StructureRule], ignore: Sequence[str]) -> Choice:
    rule = next((rule for rule in rules if rule.matches(view)), None)
    pattern = next((pattern for pattern in ignore if StructureRule(pattern, ()).matches(view)), None)
    if view.source:
        return Choice(view, None, no_choice(view), refused=rule is not None and rule.names(view))
    if rule is None:
        return Choice(view, None, "no pattern of a structure matches it")
    if pattern is not None:
        return Choice(view, None, f"left alone by '{pattern}'")
    if view.unlike:
        return Choice(view, None, view.unlike, refused=True)
    if (kept := dense_by_default(view)) and not rule.names(view):
        return Choice(view, None, kept)
    misfits = [one.structure.fits(view.shape) for one in rule.asked]
    for one, misfit in zip(rule.asked, misfits, strict=True):
        if not misfit:
            return Choice(view, one.structure, share=None if one.structure.fixed_sparsity is not None else one.share)
    told = "; ".join(f"{one.structure}: {misfit}" for one, misfit in zip(rule.asked, misfits, strict=True))
    return Choice(view, None, told, refused=True)


def _check_patterns(views: Sequence[WeightView], patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(StructureRule(pattern, ()).matches(view) for view in views):
            example = views[0].name if views else "conv1.weight"
            raise InputError(f"the pattern '{pattern}' matches no layer; names look like '{example}'")

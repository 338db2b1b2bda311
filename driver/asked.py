"""What `prune` is asked for: the arguments, checked together before anything is captured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..frontend.base.errors import InputError
from ..passes.pruning.decisions import Widths
from ..passes.pruning.methods import find_method
from ..passes.pruning.methods.base import Aim, ChannelMethod
from ..passes.pruning.methods.own_score import OwnScore, ScoreFunction
from ..passes.pruning.structure_plan import StructurePlan
from ..passes.pruning.structure_rules import structure_rules
from ..passes.recovery.least_squares import LeastSquares
from ..passes.structures import Structure
from .aims import check_timed
from .ignored import checked_patterns
from .recovering import CalibrationInputs, Recovering, recovering

if TYPE_CHECKING:
    from ..backends.machines.targets import Target

__all__ = ["Asked", "Structures", "asked", "multiple_of"]

Structures = str | Structure | Mapping[str, str | Structure] | StructurePlan
"""What structure of zeros is asked for, see `reconvene.prune`."""


@dataclass(frozen=True)
class Asked:
    """What `prune` is asked for, found right before anything is captured."""

    method: ChannelMethod
    aim: Aim
    target: str | Target | None
    recovering: Recovering
    timed_by: str = "model"
    structures: StructurePlan | None = None
    """The plan that the structures are of, if they are of one."""


def asked(
    method: str | ChannelMethod | ScoreFunction,
    sparsity: float | Mapping[str, float],
    target: str | Target | None = None,
    *,
    structure: Structures | None = None,
    latency: float | None = None,
    timed_by: str = "model",
    scope: str = "layer",
    channel_multiple: int | None = None,
    minimum_channels: int | None = None,
    ignore: Sequence[str] = (),
    fold: bool = False,
    recover: str | LeastSquares | None = None,
    calibration: CalibrationInputs | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Asked:
    """The arguments of `prune` by these names, `options` being those of the method. Raises InputError as it does."""
    chosen = _chosen(method, options)
    shares = _shares(sparsity) if isinstance(sparsity, Mapping) else ()
    general = 0.0 if isinstance(sparsity, Mapping) else sparsity
    rules = () if structure is None else structure_rules(structure)
    if rules and ((channel_multiple, minimum_channels) != (None, None) or (target is not None and latency is None)):
        raise InputError(
            "with a structure no channels are chosen, so none are rounded; leave the widths out, and the target unless a"
            " latency is aimed at"
        )
    if latency is not None and not shares and general != Aim().sparsity:
        raise InputError(f"sparsity {sparsity} was given with a latency, which finds a sparsity; leave one of them out")
    multiple = None if rules else multiple_of(target)
    if channel_multiple is not None:
        multiple = channel_multiple
    widths = Widths(scope, multiple, minimum_channels, ignore=checked_patterns(ignore), shares=shares)
    aim = Aim(general, widths, latency, fold=fold, structures=rules)
    check_timed(aim, target, timed_by)
    chosen.check_aim(aim)
    plan = structure if isinstance(structure, StructurePlan) else None
    return Asked(chosen, aim, target, recovering(recover, calibration, chosen, aim), timed_by, plan)


def _chosen(method: str | ChannelMethod | ScoreFunction, options: Mapping[str, Any]) -> ChannelMethod:
    """The method of that name, the one that was given, or the one of a score that was."""
    if isinstance(method, ChannelMethod):
        return method.with_options(options)
    if not isinstance(method, str) and callable(method):
        if options:
            raise InputError(f"a score of your own has no option '{next(iter(options))}'; put it into the function")
        return OwnScore(method)
    if not isinstance(method, str):
        raise InputError(f"a method is a name, or a function that scores weights, not {method!r}")
    return find_method(method, ChannelMethod).with_options(options)


def _shares(given: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    if not given or not all(isinstance(pattern, str) for pattern in given):
        raise InputError("shares of layers are by names or patterns of them, such as {'layer1.*': 0.5}")
    return tuple(given.items())


def multiple_of(target: str | Target | None) -> int | None:
    if target is None:
        return None
    if not isinstance(target, str):
        return target.channel_multiple
    from ..backends.machines.targets import find_target

    return find_target(target).channel_multiple

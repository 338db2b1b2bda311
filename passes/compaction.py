"""The whole road through the graph: canonical form, masks, propagation, rewriting, certificate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..frontend.base.dump import is_dumping, reached
from ..frontend.base.errors import CheckError, InputError
from ..frontend.base.progress import stage
from .canonicalize import canonicalize
from .dependency import DependencyView, dependency_view
from .fold_batch_norm import fold_batch_norm
from .groups import ChannelGroup
from .liveness import Liveness
from .masks import canonical_and_masked, check_finite
from .outcome import Compaction, GroupOutcome
from .plan import Plan
from .propagation import propagate_constants, propagate_liveness
from .rewriting import kept_positions, rewrite
from .sizes import layer_widths, total_size
from .text import module_text
from .values import attribute, tensor_inputs
from .verification import verify
from .zeros import zeros_of

__all__ = ["analyse", "apply_plan", "causes_of_channels", "channels_where", "compact"]

Bools = NDArray[np.bool_]

_FLOAT64_MACS = 2_000_000_000
"""Networks of more multiply-accumulates than this are checked in their own type unless float64 is asked for."""


def compact(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    masks: Mapping[str, torch.Tensor] | None = None,
    *,
    fold: bool = False,
    dtype: torch.dtype | None = None,
    runs: int = 1,
    seed: int = 0,
    origin: Mapping[str, Any] | None = None,
    analysis: tuple[DependencyView, Liveness] | None = None,
) -> Compaction:
    """Removes what the zeros in a captured module, and `masks`, make removable. `module` is left as it was.

    Args:
        module: a captured module (see ``frontend.capture``).
        example_inputs: positional inputs that fit it; the certificate runs on random ones of the same shapes.
        masks: by parameter name, True to keep; one entry per weight, or one per output channel.
        fold: also fold batch normalisation into the layers before it, which is for inference only.
        dtype: floating type of the certificate; by default float64, or the model's own type where one float64 pass would
            take long (more than two thousand million multiply-accumulates).
        runs: how many random inputs the certificate uses.
        seed: of these inputs.
        origin: what the plan should say about where the masks came from.
        analysis: what `analyse` gave for the same module and masks, if that was done already.

    Raises:
        InputError: masks that do not fit, weights that are not finite.
        CheckError: the result differs from the masked model; nothing is returned.
    """
    clock = _Clock()
    with stage("analysing channels"):
        view, live = analysis or analyse(module, masks)
    clock.lap("analysis")
    compacted = _rewritten(view, live, fold)
    clock.lap("rewrite")
    before = total_size(view, view.module)
    dtype = dtype or _check_type(view.module, before.macs)
    with stage(f"checking against the masked model in {str(dtype).removeprefix('torch.')}"):
        check: dict[str, Any] = {"dtype": dtype, "runs": runs, "seed": seed}
        try:
            certificate = verify(view, live, compacted, example_inputs, **check)
        except CheckError:
            # Layers were taken to read finite numbers; where they need not, fewer channels may go.
            view, live = analyse(module, masks, cautious=True)
            compacted = _rewritten(view, live, fold)
            certificate = verify(view, live, compacted, example_inputs, **check)
    after = total_size(view, compacted, live)
    clock.lap("certificate")
    groups = tuple(_group_outcome(view, live, group) for group in view.groups)
    zeros = zeros_of(compacted)
    clock.lap("report")
    return Compaction(
        compacted,
        _plan(view, live, masks, origin),
        certificate,
        before,
        after,
        layer_widths(view, live),
        groups,
        view.barriers,
        (
            *(
                f"{group.name}: {group.asked - group.got} of {group.asked} masked channels stay: {'; '.join(group.reasons)}"
                for group in groups
                if group.got < group.asked
            ),
            *filter(None, (_made_elsewhere(view, live, group) for group in view.groups)),
        ),
        clock.seconds,
        zeros,
    )


def _rewritten(view: DependencyView, live: Liveness, fold: bool) -> fx.GraphModule:
    with stage("rewriting the graph"):
        compacted: fx.GraphModule = rewrite(view, live)
        compacted = fold_batch_norm(compacted) if fold else compacted
    reached("compacted", compacted, module_text)
    return compacted


def analyse(
    module: fx.GraphModule, masks: Mapping[str, torch.Tensor] | None = None, *, cautious: bool = False
) -> tuple[DependencyView, Liveness]:
    """The dependency view of the masked module and which channels of it stay.

    Args:
        module: a captured module.
        masks: by parameter name, True to keep.
        cautious: also claim nothing of a layer that may read infinite values: usually NaN then comes out of all its
            channels, so that those which are left tell the same.

    Raises:
        InputError: masks that do not fit, weights that are not finite.
    """
    reached("captured", module, module_text)
    if (
        is_dumping()
    ):  # Masks are set before the canonical form is made, which computes weights from what they are masks of.
        reached("canonical", canonicalize(module), module_text)
    masked = canonical_and_masked(module, masks)
    check_finite(masked)
    reached("masked", masked, module_text)
    view = dependency_view(masked)
    return view, propagate_liveness(view.axes, propagate_constants(masked, view.operations, cautious))


def _check_type(module: fx.GraphModule, macs: int) -> torch.dtype:
    """The type of the certificate: exact arithmetic is slow, and a large network is checked well in its own."""
    own = next((parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()), torch.float64)
    return torch.float64 if macs <= _FLOAT64_MACS else own


def apply_plan(plan: Plan, module: fx.GraphModule, example_inputs: Sequence[Any], **options: Any) -> Compaction:
    """Does to a fresh copy of a model what the plan did: sets its masks and compacts.

    Raises:
        InputError: the plan names parameters this model does not have, or with other shapes, or this model keeps other
            channels than the plan says (its weights then have other zeros).
    """
    known = dict([*module.named_parameters(), *module.named_buffers()])
    for name, shape in plan.shapes.items():
        if name in known and tuple(known[name].shape) != shape:
            raise InputError(f"the plan is for '{name}' of shape {shape}, but here it is {tuple(known[name].shape)}")
    result = compact(module, example_inputs, plan.masks, origin=plan.origin, **options)
    if not _same_kept(plan.kept, result.plan.kept):
        raise InputError("this model has zeros elsewhere than the one the plan was made for; prune it anew")
    return result


def _same_kept(
    first: Mapping[str, Mapping[int, torch.Tensor]], second: Mapping[str, Mapping[int, torch.Tensor]]
) -> bool:
    return first.keys() == second.keys() and all(
        axes.keys() == second[name].keys()
        and all(torch.equal(index, second[name][axis]) for axis, index in axes.items())
        for name, axes in first.items()
    )


def _plan(
    view: DependencyView, live: Liveness, masks: Mapping[str, torch.Tensor] | None, origin: Mapping[str, Any] | None
) -> Plan:
    kept = {
        name: {axis: torch.from_numpy(np.flatnonzero(positions)) for axis, positions in axes.items()}
        for name, axes in kept_positions(view, live).items()
    }
    shapes = {name: tuple(attribute(view.module, name).shape) for name in kept}
    return Plan(kept, shapes, {name: mask.bool() for name, mask in (masks or {}).items()}, origin or {})


def channels_where(view: DependencyView, group: ChannelGroup, stays: Callable[[fx.Node, int], Bools]) -> Bools:
    """The channels of a group of which some position is one that `stays` (given a stored tensor and an axis)."""
    found = np.zeros(group.size, bool)
    for part in group.slices:
        kept = stays(view.stored[part.parameter], part.axis)
        found |= (kept[part.positions] & (part.positions >= 0)).any(1)
    return found


def _zero_makers(view: DependencyView, group: ChannelGroup) -> Iterator[tuple[str, Bools, Bools]]:
    """For every weight that makes channels of the group: its name, which of them are zero in it, and which it makes at all."""
    for part in group.slices:
        tensor = attribute(view.module, part.parameter)
        if part.role == "producer" and tensor.dim() > 1:
            zero = ~(tensor.detach() != 0).transpose(0, part.axis).flatten(1).any(1).cpu().numpy()
            absent = part.positions < 0
            yield part.parameter, np.asarray((zero[part.positions] | absent).all(1)), np.asarray(~absent.all(1))


def _made_elsewhere(view: DependencyView, live: Liveness, group: ChannelGroup) -> str | None:
    """Why channels stay that are zero in one of the layers that are added to one another, and not in the others."""
    made = [(name, zero, makes) for name, zero, makes in _zero_makers(view, group) if name in view.layers]
    zero_somewhere = np.zeros(group.size, bool)
    for _, zero, makes in made:
        zero_somewhere |= zero & makes
    everywhere = np.ones(group.size, bool)
    for _, zero, _ in _zero_makers(view, group):
        everywhere &= zero
    stays = zero_somewhere & ~everywhere
    stays = stays & channels_where(view, group, live.kept) if stays.any() else stays
    if not stays.any():
        return None
    zeroed = [name for name, zero, makes in made if (zero & makes & stays).any()]
    others = [name for name, zero, _ in _zero_makers(view, group) if (~zero & stays).any()]
    return (
        f"{group.name}: {int(stays.sum())} channels that are zero in {_names(zeroed)} stay: {_names(others)} makes them, too;"
        " mask them in all that makes them, as DependencyView.masks does"
    )


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _group_outcome(view: DependencyView, live: Liveness, group: ChannelGroup) -> GroupOutcome:
    """A channel was asked for if every weight that makes it is zero; it was got if all its positions are gone."""
    asked = np.ones(group.size, bool)
    for _, zero, _ in _zero_makers(view, group):
        asked &= zero
    stays = asked & channels_where(view, group, live.kept)
    reasons = causes_of_channels(view, live, group, stays) if stays.any() else ()
    return GroupOutcome(
        group.name, group.size, int(asked.sum()), int((asked & ~stays).sum()), reasons, group.parameters
    )


def causes_of_channels(view: DependencyView, live: Liveness, group: ChannelGroup, stays: Bools) -> tuple[str, ...]:
    """Why the channels that `stays` marks are still there, at most four reasons."""
    if group.reason:
        return (group.reason,)
    causes: dict[str, None] = {}
    for part in group.slices:
        if part.role != "producer":
            continue
        number = view.axes.of(view.stored[part.parameter], part.axis)
        positions = np.zeros(view.axes.sizes[number], bool)
        chosen = part.positions[stays]
        positions[chosen[chosen >= 0]] = True
        ended = _where_constants_end(view, live, number, positions)
        causes = dict.fromkeys([*([ended] if ended else []), *causes, *live.causes_of(number, positions)])
    return tuple(view.located(cause) for cause in list(causes)[:4])


def _where_constants_end(view: DependencyView, live: Liveness, number: int, positions: Bools) -> str | None:
    """The first call that makes something else of constant channels of an axis class, as a reason."""
    places = {node: axis for node, axis in view.axes.members[number] if isinstance(axis, int)}
    size = view.axes.sizes[number]
    for node, axis in places.items():
        operands = [operand for operand in tensor_inputs(node) if operand in places] if node in view.operations else []
        if operands:
            _, after = live.facts[node].along(axis, size)
            before = [live.facts[operand].along(places[operand], size)[1] for operand in operands]
            if (np.all(before, axis=0) & ~after & positions).any():
                return f"constant channels are not constant any more after '{node.name}'"
    return None


class _Clock:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now

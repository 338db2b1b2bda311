"""What a training keeps beside the weights, carried over a removal of channels: optimizers' states and averages."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel

from ...frontend.base.errors import InputError
from ...frontend.capture import capture
from ...passes.compaction import apply_plan
from ...passes.plan import Plan

__all__ = ["Origin", "Removal", "names_in", "transferred_average", "transferred_optimizer"]

Names = dict[int, list[str]]
"""All names of parameters, by their ``id``."""


class Origin:
    """The parameters of a module that a smaller one was made of, by name; they are not kept alive."""

    def __init__(self, module: nn.Module) -> None:
        named = module.named_parameters(remove_duplicate=False)
        self._parameters = {name: weakref.ref(parameter) for name, parameter in named}

    def names(self) -> Names:
        """Of those that there still are."""
        found: Names = {}
        for name, reference in self._parameters.items():
            if (parameter := reference()) is not None:
                found.setdefault(id(parameter), []).append(name)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin, (nn.Module(),)  # A copy elsewhere has none of them.


@dataclass(frozen=True, eq=False)
class Removal:
    """A compacted module, and how its tensors came out of those of the module before."""

    module: fx.GraphModule = field(repr=False)
    plan: Plan = field(repr=False)
    anew: Collection[str] = ()
    """Layers with new initial weights."""
    folded: bool = False
    """Whether batch normalisation was folded into the layers before it."""

    def kept(self, name: str, tensor: Tensor, like: Tensor) -> Tensor:
        """The kept entries of what belongs to the entries of the parameter `name` before, laid out as `like`.

        Raises:
            InputError: it does not belong to this removal.
        """
        for axis, index in self.plan.kept.get(name, {}).items():
            if axis < tensor.dim() and tensor.shape[axis] == self.plan.shapes[name][axis]:
                tensor = tensor.index_select(axis, index.to(tensor.device))
        if tensor.shape != like.shape:
            sizes = " and ".join("x".join(map(str, value.shape)) or "1" for value in (tensor, like))
            raise InputError(f"the optimizer is of another model: of '{name}', {sizes} would be kept")
        return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def names_in(optimizer: torch.optim.Optimizer, origin: Origin | None) -> Names:
    """As an optimizer says itself or as the model before the removal has them, those that it was not given among them."""
    said = {
        id(parameter): [str(name)]
        for group in optimizer.param_groups
        for parameter, name in zip(group["params"], group.get("param_names", ()), strict=False)
    }
    return said | (origin.names() if origin is not None else {})


@torch.no_grad()
def transferred_optimizer(optimizer: torch.optim.Optimizer, names: Names, removal: Removal) -> None:
    """Puts `optimizer` to work on the compacted module, with its state of what was kept, to the last bit.

    Schedulers and scalers that hold it go on. What a removal added, such as a bias, joins the group of its layer, without a
    state, as do layers with new initial weights. Nothing is changed if anything does not fit.

    Args:
        optimizer: has parameters of the module before.
        names: of these, and of those that it was not given.
        removal: from that module to the compacted one.

    Raises:
        InputError: a parameter or a state does not belong to the removal.
    """
    new = dict(removal.module.named_parameters())
    groups: list[dict[str, nn.Parameter]] = []
    states: dict[nn.Parameter, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        olds = {_name(old, names, new): old for old in group["params"]}
        groups.append({name: new[name] for name in olds if name in new})
        for name in groups[-1]:
            states[new[name]] = _state(optimizer, name, olds[name], removal)
    known = {_plain(name, new) for several in names.values() for name in several}
    for name in new.keys() - known:
        _group_of(name, groups)[name] = new[name]
    for group, chosen in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = list(chosen.values())
        if "param_names" in group:
            group["param_names"] = list(chosen)
    optimizer.state.clear()
    optimizer.state.update({parameter: state for parameter, state in states.items() if state})


def transferred_average(average: AveragedModel, removal: Removal) -> None:
    """Makes `average` that of the compacted module: its own network, with the same channels removed as exactly as there.

    Raises:
        InputError: it is of another model, is not zero where that was, or layers have new initial weights.
        CheckError: the smaller average does not compute what it did.
    """
    if removal.anew:
        raise InputError(
            f"'{next(iter(removal.anew))}' has new initial weights, of which there is no average; make a new one"
        )
    inputs = removal.module.meta["example_inputs"]
    before = average.module
    graph = capture(before, inputs, removal.module.meta.get("dynamic_shapes"))
    try:
        found = apply_plan(removal.plan, graph, inputs, fold=removal.folded)
    except InputError as error:
        raise InputError(
            f"the average cannot follow: {error}; average with masks on from the first step, or set what is masked to zero in"
            " it"
        ) from None
    average.module = found.module.train(before.training)


def _name(parameter: nn.Parameter, names: Names, new: Mapping[str, nn.Parameter]) -> str:
    """Of a parameter's names, that in the compacted module, if it is there."""
    if id(parameter) not in names:
        size = "x".join(map(str, parameter.shape)) or "1"
        raise InputError(
            f"the optimizer has a parameter of {size} that the model before the removal had not; name that model with"
            " model=, or make the optimizer of its named_parameters()"
        )
    several = [_plain(name, new) for name in names[id(parameter)]]
    return next((name for name in several if name in new), several[0])


def _plain(name: str, new: Mapping[str, nn.Parameter]) -> str:
    """The name in the compacted module: weights under a mask of ``torch.nn.utils.prune`` were called otherwise before."""
    plain = name.removesuffix("_orig")
    return plain if name not in new and plain in new else name


def _state(optimizer: torch.optim.Optimizer, name: str, old: nn.Parameter, removal: Removal) -> dict[str, Any]:
    """What an optimizer keeps of a parameter, for its kept entries."""
    if (name.rpartition(".")[0] or name) in removal.anew:
        return {}
    new, found = removal.module.get_parameter(name), {}
    removal.kept(name, old.detach(), new)
    for key, value in optimizer.state.get(old, {}).items():
        if isinstance(value, Tensor) and value.dim() and value.shape != old.shape:
            raise InputError(
                f"'{key}', which the optimizer keeps of '{name}', has other sizes than that; which of its entries to keep is"
                " not known: make a new optimizer"
            )
        found[key] = removal.kept(name, value, new) if isinstance(value, Tensor) and value.dim() else value
    return found


def _group_of(name: str, groups: list[dict[str, nn.Parameter]]) -> dict[str, nn.Parameter]:
    """The group of the parameters that share a layer with `name`, or the first."""
    layer = name.rpartition(".")[0]
    return next((group for group in groups if any(other.rpartition(".")[0] == layer for other in group)), groups[0])

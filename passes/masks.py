"""Masks: which entries of which parameters a pruning method has set to zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from ..frontend.errors import InputError
from ..frontend.graph_module import CapturedModule, captured_module
from .canonicalize import READ, place_tensor
from .values import attribute

__all__ = ["check_finite", "masked", "spread_mask"]


def spread_mask(name: str, mask: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The mask in the parameter's shape. A mask of one entry per output channel is spread over each channel's slice.

    Raises:
        InputError: the mask is not boolean (or 0/1), or its shape does not fit.
    """
    if not isinstance(mask, torch.Tensor):
        raise InputError(f"the mask of '{name}' is a {type(mask).__name__}; give a boolean tensor")
    if mask.dtype is not torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"the mask of '{name}' has entries other than 0 and 1; give a boolean tensor, True to keep")
    mask = mask.bool()
    if mask.shape == parameter.shape:
        return mask
    if mask.dim() == 1 and parameter.dim() > 1 and mask.shape[0] == parameter.shape[0]:
        return mask.reshape(-1, *(1,) * (parameter.dim() - 1)).expand(parameter.shape)
    expected, got = ("x".join(map(str, shape)) for shape in (parameter.shape, mask.shape))
    raise InputError(f"the mask of '{name}' is {got}, but the parameter is {expected}; give one entry per weight or per filter")


def read_masks(
    module: fx.GraphModule, canonical: fx.GraphModule, masks: Mapping[str, torch.Tensor] | None
) -> dict[str, torch.Tensor]:
    """The masks under the names of the canonical form: a tied tensor has two, and what nobody reads needs no mask."""
    if not masks:
        return {}
    first: dict[int, str] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            first.setdefault(id(attribute(module, str(node.target))), str(node.target))
    stored = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}
    result: dict[str, torch.Tensor] = {}
    for name, mask in masks.items():
        used = first.get(id(stored[name]), name) if name in stored else name
        if used in result:
            result[used] = spread_mask(used, result[used], stored[used]) & spread_mask(name, mask, stored[used])
        elif name not in stored or used in canonical.meta[READ]:
            result[used] = mask
        else:
            spread_mask(name, mask, stored[name])
    return result


def masked(module: CapturedModule, masks: Mapping[str, torch.Tensor] | None) -> CapturedModule:
    """A module with the masked entries set to zero. It shares every tensor that no mask names.

    Raises:
        InputError: a mask names no parameter of the graph, does not fit, or leaves nothing of a weight.
    """
    if not masks:
        return module
    stored = {str(node.target): attribute(module, str(node.target)) for node in module.graph.nodes if node.op == "get_attr"}
    known = {name for name, value in stored.items() if isinstance(value, torch.Tensor)}
    root = torch.nn.Module()
    for name, value in stored.items():
        place_tensor(root, name, value)
    for name, mask in masks.items():
        if name not in known:
            raise InputError(f"there is no parameter '{name}' to mask; the nearest is '{_nearest(name, known)}'")
        parameter = attribute(module, name)
        kept = spread_mask(name, mask, parameter)
        if not bool(kept.any()) and parameter.dim() > 1:
            raise InputError(f"the mask of '{name}' leaves nothing of it; keep at least one channel, or take the layer out")
        zeroed = parameter.detach() * kept.to(parameter.dtype)
        path, _, last = name.rpartition(".")
        owner = root.get_submodule(path)
        delattr(owner, last)
        place_tensor(root, name, torch.nn.Parameter(zeroed, parameter.requires_grad) if isinstance(parameter, torch.nn.Parameter) else zeroed)
    return captured_module(root, module.graph, module.meta)


def check_finite(module: torch.nn.Module) -> None:
    """Raises InputError if a parameter holds NaN or infinity, or a buffer NaN: nothing could be proved about such a model.

    Buffers may hold infinity: attention masks do.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point() or bool(tensor.detach().sum().isfinite()):
            continue  # The sum of a tensor with NaN or infinity is neither; most tensors need no second look.
        wrong = ~tensor.isfinite() if isinstance(tensor, torch.nn.Parameter) else tensor.isnan()
        if bool(wrong.any()):
            bad = int(wrong.sum())
            raise InputError(f"'{name}' holds {bad} entries that are NaN or infinite; repair the weights first")


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), 1, 0.0)
    return close[0] if close else "none"

"""Masks: which entries of which parameters a pruning method has set to zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from ..frontend.base.arrays import as_tensor
from ..frontend.base.errors import InputError
from ..frontend.graph_module import CapturedModule
from .canonicalize import canonicalize
from .stored import place_tensor
from .values import attribute

__all__ = ["canonical_and_masked", "check_finite", "masked_tensors", "replace_tensors", "spread_mask"]


def spread_mask(name: str, mask: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The mask in the parameter's shape. A mask of one entry per output channel is spread over each channel's slice.

    Raises:
        InputError: the mask is not boolean (or 0/1), holds no numbers, or its shape does not fit.
    """
    if not isinstance(mask, torch.Tensor):
        raise InputError(f"the mask of '{name}' is a {type(mask).__name__}; give a boolean tensor")
    mask = as_tensor(mask, f"the mask of '{name}'").to(parameter.device)
    if mask.dtype is not torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"the mask of '{name}' has entries other than 0 and 1; give a boolean tensor, True to keep")
    mask = mask.bool()
    if mask.shape == parameter.shape:
        return mask
    if mask.dim() == 1 and parameter.dim() > 1 and mask.shape[0] == parameter.shape[0]:
        return mask.reshape(-1, *(1,) * (parameter.dim() - 1)).expand(parameter.shape)
    expected, got = ("x".join(map(str, shape)) or "one number" for shape in (parameter.shape, mask.shape))
    raise InputError(
        f"the mask of '{name}' is {got}, but the parameter is {expected}; give one entry per weight or per filter"
    )


def read_masks(module: fx.GraphModule, masks: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """The masks under the names the graph uses: a tensor may have two, and nothing needs to be done where nobody reads it."""
    if not masks:
        return {}
    if not isinstance(masks, Mapping):
        raise InputError(f"masks are by parameter name, in a mapping; got {type(masks).__name__}")
    reached = _reached(module)
    names: dict[int, str] = {}
    read: set[int] = set()
    for node in module.graph.nodes:
        if node.op == "get_attr":
            tensor = id(attribute(module, str(node.target)))
            names.setdefault(tensor, str(node.target))
            if node in reached:
                read.add(tensor)
    stored = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    result: dict[str, torch.Tensor] = {}
    for name, mask in masks.items():
        tensor = id(stored[name]) if name in stored else 0
        used = names.get(tensor, name)
        if name in stored and tensor not in read:
            spread_mask(name, mask, stored[name])
        elif used in result:
            result[used] = spread_mask(used, result[used], stored[used]) & spread_mask(name, mask, stored[used])
        else:
            result[used] = mask
    return result


def _reached(module: fx.GraphModule) -> set[fx.Node]:
    """The nodes that an output, or a write, is computed from."""
    reached: set[fx.Node] = set()
    pending = [
        node for node in module.graph.nodes if node.op == "output" or (node.op == "call_function" and node.is_impure())
    ]
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending.extend(node.all_input_nodes)
    return reached


def masked_tensors(module: fx.GraphModule, masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters that masks name, with the masked entries set to zero; the module's own are not touched.

    Raises:
        InputError: a mask names no parameter of the graph, does not fit, or leaves nothing of a weight.
    """
    stored = {
        str(node.target): attribute(module, str(node.target)) for node in module.graph.nodes if node.op == "get_attr"
    }
    known = {name for name, value in stored.items() if isinstance(value, torch.Tensor)}
    zeroed: dict[str, torch.Tensor] = {}
    for name, mask in masks.items():
        if name not in known:
            raise InputError(f"there is no parameter '{name}' to mask; the nearest is '{_nearest(str(name), known)}'")
        parameter = stored[name]
        kept = spread_mask(name, mask, parameter)
        if not bool(kept.any()) and parameter.dim() > 1:
            raise InputError(
                f"the mask of '{name}' leaves nothing of it; keep at least one channel, or take the layer out"
            )
        value = torch.where(kept, parameter.detach(), torch.zeros((), dtype=parameter.dtype))
        trained = isinstance(parameter, torch.nn.Parameter)
        zeroed[name] = torch.nn.Parameter(value, parameter.requires_grad) if trained else value
    return zeroed


def canonical_and_masked(module: fx.GraphModule, masks: Mapping[str, torch.Tensor] | None) -> CapturedModule:
    """The canonical form of `module` with the masked entries set to zero.

    A mask of a tensor that the graph stores acts before weights are computed from it; one of a weight that only the
    canonical form stores (a parametrised weight under its plain name) acts after, and before others are computed from that.

    Raises:
        InputError: a mask names no parameter of the graph, does not fit, or leaves nothing of a weight.
    """
    wanted = read_masks(module, masks)
    stored = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    masked = masked_tensors(module, {name: m for name, m in wanted.items() if name in stored})
    canonical = canonicalize(module, masked)
    computed = masked_tensors(canonical, {name: m for name, m in wanted.items() if name not in stored})
    return canonicalize(module, masked | computed) if computed else canonical


def replace_tensors(canonical: CapturedModule, tensors: Mapping[str, torch.Tensor]) -> None:
    """Stores other tensors under names that a canonical module has; those of the module it was made from stay."""
    for name, tensor in tensors.items():
        path, _, last = name.rpartition(".")
        delattr(canonical.get_submodule(path), last)
        place_tensor(canonical, name, tensor)


def check_finite(module: torch.nn.Module) -> None:
    """Raises InputError if a parameter holds NaN or infinity, or a buffer NaN: nothing could be proved about such a model.

    Buffers may hold infinity: attention masks do.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not (tensor.is_floating_point() or tensor.is_complex()) or bool(tensor.detach().sum().isfinite()):
            continue  # The sum of a tensor with NaN or infinity is neither; most tensors need no second look.
        wrong = ~tensor.isfinite() if isinstance(tensor, torch.nn.Parameter) else tensor.isnan()
        if bool(wrong.any()):
            bad = int(wrong.sum())
            raise InputError(f"'{name}' holds {bad} entries that are NaN or infinite; repair the weights first")


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), 1, 0.0)
    return close[0] if close else "none"

"""Real layers under their old names: ``nn.Conv2d``, ``nn.BatchNorm2d`` and others, wherever the graph says that they are.

Everything else that once was a module is a `Part`: it has the names and the mode, and refuses hooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .calls import named_arguments
from .layer_kinds import LayerCall, accepted
from .modes import training_flag

__all__ = ["Part", "differs_from", "follows_flag", "furnish", "made"]


class Part(nn.Module):
    """Where a module of the model stood whose calls lie in the graph one by one. It has its tensors, names and mode."""

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(_REFUSAL.format("call"))

    def register_forward_hook(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible: no call of this module is left that could call a hook."""
        raise NotImplementedError(_REFUSAL.format("hook"))

    def register_forward_pre_hook(self, hook: Any, *args: Any, **options: Any) -> Any:
        """Not possible but for what computes weights (``torch.nn.utils.prune``): that is done before each call."""
        if not isinstance(hook, _WEIGHT_HOOKS):
            raise NotImplementedError(_REFUSAL.format("hook"))
        return super().register_forward_pre_hook(hook, *args, **options)

    def register_full_backward_hook(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible: no call of this module is left that could call a hook."""
        raise NotImplementedError(_REFUSAL.format("hook"))

    def register_full_backward_pre_hook(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible: no call of this module is left that could call a hook."""
        raise NotImplementedError(_REFUSAL.format("hook"))

    def register_backward_hook(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible: no call of this module is left that could call a hook."""
        raise NotImplementedError(_REFUSAL.format("hook"))

    def __getitem__(self, index: int) -> nn.Module:
        """The part of that number, as in ``nn.Sequential``. Raises IndexError where there is none."""
        if str(index) not in self._modules:
            raise IndexError(f"there is no part {index} here; those that have a layer are {', '.join(self._modules)}")
        return self.get_submodule(str(index))

    def __iter__(self) -> Iterator[nn.Module]:
        """The parts that have a layer, in order."""
        return iter(self.children())


_WEIGHT_HOOKS = (BasePruningMethod, WeightNorm, SpectralNorm)

_REFUSAL = (
    "cannot {} this part of a captured module: its operators lie in the graph one by one; take a layer in it, such as a"
    " convolution, or read values of `module.graph` with torch.fx.Interpreter"
)


# The modules themselves


def made(layer: LayerCall) -> nn.Module:
    """The layer without data, in inference."""
    device = {"device": "meta"} if "device" in accepted(layer.kind) else {}
    return layer.kind(**layer.options, **device).eval()


def differs_from(module: nn.Module, layer: LayerCall) -> str | None:
    """What of a module is no longer what the graph says of its layer, for a person; None if nothing is."""
    if type(module) is not layer.kind:
        return f"it is a {type(module).__name__}, not a {layer.kind.__name__}"
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return "it has hooks"
    fresh = made(layer)
    for name in layer.options:
        ours, theirs = (getattr(part, name, None) for part in (fresh, module))
        same = (ours is None) == (theirs is None) if name == "bias" else ours == theirs
        if not same:
            return f"its {name} is {theirs}, not {ours}"
    return None


def furnish(module: nn.Module, layers: Mapping[str, LayerCall], changed: set[str], counts: nn.Module | None) -> None:
    """Puts layers where plain containers lie, and where the graph has `changed`; other containers become parts.

    Args:
        module: which has the tensors under their names.
        layers: by path.
        changed: paths of layers that the graph has changed since they were made.
        counts: a module whose layers have counted batches that the new ones count on from.
    """
    for path, layer in layers.items():
        parent, name = _parent(module, path)
        old = parent._modules.get(name)
        if old is None or type(old) in (nn.Module, Part) or path in changed:
            parent._modules[name] = _filled(made(layer), old, _count(counts, path))
    for path, part in list(module.named_modules()):
        if path and path not in layers and type(part) is nn.Module:
            part.__class__ = Part
        elif path in changed and path not in layers:
            parent, name = _parent(module, path)
            parent._modules[name] = _emptied(part)


def _parent(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds `path`, and the last name in it; parts are made on the way."""
    *names, last = path.split(".")
    for name in names:
        if name not in module._modules:
            module._modules[name] = Part()
        following = module._modules[name]
        assert following is not None
        module = following
    return module, last


def _filled(layer: nn.Module, source: nn.Module | None, count: torch.Tensor | None) -> nn.Module:
    """`layer` with the tensors of `source`; those that have other names than a layer's go along."""
    stored = {**source._parameters, **source._buffers} if source is not None else {}
    if layer._buffers.get("num_batches_tracked") is not None and stored.get("num_batches_tracked") is None:
        stored["num_batches_tracked"] = torch.zeros((), dtype=torch.long) if count is None else count.clone()
    for name in layer._parameters:
        layer._parameters[name] = None
    for name in layer._buffers:
        layer._buffers[name] = None
    for name, tensor in stored.items():
        if isinstance(tensor, nn.Parameter):
            layer.register_parameter(name, tensor)
        elif tensor is not None:
            layer._parameters.pop(name, None)
            layer.register_buffer(name, tensor)
    return layer


def _emptied(layer: nn.Module) -> Part:
    """The part that has a layer's tensors."""
    part = Part()
    part._parameters.update(layer._parameters)
    part._buffers.update(layer._buffers)
    return part


def _count(counts: nn.Module | None, path: str) -> torch.Tensor | None:
    if counts is None:
        return None
    for name in path.split("."):
        found = counts._modules.get(name)
        if found is None:
            return None
        counts = found
    return counts._buffers.get("num_batches_tracked")


def follows_flag(node: fx.Node) -> bool:
    """Whether a layer's ``training`` is the flag of its call: not where a norm has no stored statistics."""
    return training_flag(node) is not None and named_arguments(node).get("running_mean", node) is not None

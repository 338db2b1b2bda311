"""Wrappers that compute what the model in them does, under names with something before them: taken off.

``torch.compile`` puts ``_orig_mod.`` before every name, ``DataParallel``, ``DistributedDataParallel`` and averaged models
``module.``, checkpointed layers ``_checkpoint_wrapped_module.``. Plans, patterns and state dicts are about the plain model.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["unwrapped", "without_wrappers"]

_WRAPPERS = (
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    ("torch.nn.parallel", "DataParallel", "module"),
    ("torch.nn.parallel", "DistributedDataParallel", "module"),
    ("torch.optim.swa_utils", "AveragedModel", "module"),
    ("torch.distributed.algorithms._checkpoint.checkpoint_wrapper", "CheckpointWrapper", "_checkpoint_wrapped_module"),
)
"""Where the class is, its name, and the attribute that holds the model."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in its wrappers, or the model itself. A wrapper that somebody hung hooks on stays: these may do things."""
    while True:
        inner = _inside(model)
        if inner is None:
            return model
        model = inner


@contextmanager
def without_wrappers(model: nn.Module) -> Iterator[nn.Module]:
    """The unwrapped model, with its modules out of their wrappers, too, for the time of the block."""
    plain = unwrapped(model)
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in list(plain.modules()):
        for name, child in parent._modules.items():
            if child is not None and (inner := unwrapped(child)) is not child:
                replaced.append((parent, name, child))
                parent._modules[name] = inner
    try:
        yield plain
    finally:
        for parent, name, child in replaced:
            parent._modules[name] = child


def _inside(model: nn.Module) -> nn.Module | None:
    for where, name, attribute in _WRAPPERS:
        if any(kind.__name__ == name and kind.__module__.startswith("torch.") for kind in type(model).__mro__):
            kind = getattr(importlib.import_module(where), name)
            inner = getattr(model, attribute, None)
            hooked = model._forward_hooks or model._forward_pre_hooks
            if isinstance(model, kind) and isinstance(inner, nn.Module) and not hooked:
                return inner
    return None

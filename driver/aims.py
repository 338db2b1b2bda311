"""What tells the time of a network that is pruned to a latency."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..passes.canonicalize import canonicalize
from ..passes.pruning.methods.base import Aim

if TYPE_CHECKING:
    from torch import fx

    from ..backends.machines.targets import Target

__all__ = ["timed"]


def timed(aim: Aim, module: fx.GraphModule, inputs: tuple[Any, ...], target: str | Target | None) -> Aim:
    """The aim with times of a captured module on `target`, if it asks for a latency: of layers by their widths, or with
    structures of the network by its zeros.
    """
    if aim.latency is None or target is None:
        return aim
    # TVM takes seconds to import, and most who prune aim at no latency.
    from ..backends.choosing.layer_times import layer_times
    from ..backends.machines.targets import find_target
    from ..backends.network_times import network_cycles

    canonical = canonicalize(module)
    if aim.structures:
        return dataclasses.replace(aim, zeros_time=network_cycles(canonical, inputs, target))
    return dataclasses.replace(aim, time=layer_times(canonical, find_target(target)))

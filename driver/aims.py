"""What tells the time of a network that is pruned to a latency."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ..frontend.base.errors import InputError
from ..passes.canonicalize import canonicalize
from ..passes.pruning.methods.base import Aim

if TYPE_CHECKING:
    from torch import fx

    from ..backends.machines.targets import Target

__all__ = ["check_timed", "timed"]


def check_timed(aim: Aim, target: str | Target | None, timed_by: str) -> None:
    """Raises InputError where a latency has no target, or its times cannot be told by ``model``, ``cycles`` or ``time``."""
    if aim.latency is not None and target is None:
        raise InputError("a latency goal needs a target; name one, such as target='host' or 'rpi4'")
    if timed_by == "model":
        return
    if aim.latency is None or not aim.structures or target is None:
        raise InputError(f"times by '{timed_by}' are for a latency that zeros of a structure reach; leave it out")
    from ..backends.machines.targets import find_target
    from ..backends.network_times import check_timed_by

    check_timed_by(find_target(target), timed_by)


def timed(aim: Aim, module: fx.GraphModule, inputs: tuple[Any, ...], target: str | Target | None, timed_by: str) -> Aim:
    """The aim with times of a captured module on `target`, if it asks for a latency: of layers by their widths, or with
    structures of the network by its zeros, told as `check_timed` has it.
    """
    if aim.latency is None or target is None:
        return aim
    # TVM takes seconds to import, and most who prune aim at no latency.
    from ..backends.choosing.layer_times import layer_times
    from ..backends.machines.targets import find_target
    from ..backends.network_times import network_times

    canonical = canonicalize(module)
    if aim.structures:
        return dataclasses.replace(aim, zeros_time=network_times(canonical, inputs, target, timed_by))
    return dataclasses.replace(aim, time=layer_times(canonical, find_target(target)))

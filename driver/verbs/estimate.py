"""``reconvene estimate``."""

from __future__ import annotations

from dataclasses import dataclass

from ...frontend.base.errors import InputError
from ..answer import Answer

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene estimate`` is told; see its help."""

    bundle: str
    everything: bool = False
    assembly: str | None = None
    """The kernel whose code is shown, too."""


def run(request: Request) -> Answer:
    from ...backends.estimate.bundle import estimate_bundle
    from ..reports.estimation import show_estimate

    assembly = request.assembly
    found = estimate_bundle(request.bundle)
    names = [kernel.name for kernel in found.kernels]
    if assembly is not None and assembly not in names:
        raise InputError(f"no kernel is called '{assembly}'; there are {', '.join(names)}")
    data = {"bundle": request.bundle, **found.to_dict()}
    if assembly is not None:
        blocks = [kernel.hottest for kernel in found.kernels if kernel.name == assembly and kernel.hottest is not None]
        data["assembly"] = [line for block in blocks for line in block.assembly]
    return Answer(data, lambda console: show_estimate(console, found, everything=request.everything, assembly=assembly))

"""``reconvene estimate``."""

from __future__ import annotations

from ...frontend.base.errors import InputError
from ..answer import Answer

__all__ = ["run"]


def run(bundle: str, everything: bool, assembly: str | None) -> Answer:
    from ...backends.estimate.bundle import estimate_bundle
    from ..reports.estimation import show_estimate

    found = estimate_bundle(bundle)
    names = [kernel.name for kernel in found.kernels]
    if assembly is not None and assembly not in names:
        raise InputError(f"no kernel is called '{assembly}'; there are {', '.join(names)}")
    data = {"bundle": bundle, **found.to_dict()}
    if assembly is not None:
        blocks = [kernel.hottest for kernel in found.kernels if kernel.name == assembly and kernel.hottest is not None]
        data["assembly"] = [line for block in blocks for line in block.assembly]
    return Answer(data, lambda console: show_estimate(console, found, everything=everything, assembly=assembly))

"""A compiler for pruned neural networks: proves which channels can go, removes them, compiles what is left."""

from __future__ import annotations

TYPE_CHECKING = False
"""As type checkers know it. Nothing is imported, so that the command line soon gets to what it does on Ctrl-C."""

if TYPE_CHECKING:
    from typing import Any

    from .backends.built import Built
    from .backends.machines.targets import Target
    from .driver.api import capture, compact, compile, prune
    from .driver.exploring.explore import explore
    from .driver.mapping import map_structures
    from .driver.quantizing import Quantized, quantize
    from .driver.reports.report import Report
    from .driver.result import Result
    from .driver.saved import StoredProgram, load, save
    from .driver.training.masks import Masks
    from .frontend.base.errors import CaptureError, CheckError, InputError, ReconveneError
    from .frontend.image_bytes import on_image_bytes
    from .frontend.weights import load_weights
    from .passes.plan import Plan
    from .passes.pruning.structure_plan import StructurePlan

__all__ = [
    "Built",
    "CaptureError",
    "CheckError",
    "InputError",
    "Masks",
    "Plan",
    "Quantized",
    "ReconveneError",
    "Report",
    "Result",
    "StoredProgram",
    "StructurePlan",
    "Target",
    "__version__",
    "capture",
    "compact",
    "compile",
    "explore",
    "load",
    "load_weights",
    "map_structures",
    "on_image_bytes",
    "prune",
    "quantize",
    "save",
]

_HOME = {
    "Built": ".backends.built",
    "CaptureError": ".frontend.base.errors",
    "CheckError": ".frontend.base.errors",
    "InputError": ".frontend.base.errors",
    "ReconveneError": ".frontend.base.errors",
    "Masks": ".driver.training.masks",
    "Plan": ".passes.plan",
    "Report": ".driver.reports.report",
    "StructurePlan": ".passes.pruning.structure_plan",
    "Target": ".backends.machines.targets",
    "Result": ".driver.result",
    "StoredProgram": ".driver.saved",
    "capture": ".driver.api",
    "compact": ".driver.api",
    "compile": ".driver.api",
    "explore": ".driver.exploring.explore",
    "load": ".driver.saved",
    "load_weights": ".frontend.weights",
    "save": ".driver.saved",
    "map_structures": ".driver.mapping",
    "on_image_bytes": ".frontend.image_bytes",
    "prune": ".driver.api",
    "Quantized": ".driver.quantizing",
    "quantize": ".driver.quantizing",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, because torch and TVM take seconds to import."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("reconvene")
    elif name in _HOME:
        import importlib

        value = getattr(importlib.import_module(_HOME[name], __name__), name)
    else:
        raise AttributeError(f"module 'reconvene' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

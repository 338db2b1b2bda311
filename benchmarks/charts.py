"""Pictures for the documentation: static, small, and the same bytes for the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "reconvene", "axes.spines.top": False, "axes.spines.right": False})

__all__ = ["chart", "save"]


def chart(x: str, y: str, logarithmic: bool = False) -> tuple[Any, Any]:
    """An empty figure and its axes, with the axes' titles."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    if logarithmic:
        axes.set(xscale="log", yscale="log")
    return figure, axes


def save(figure: Any, axes: Any, path: Path) -> None:
    """Writes the figure as SVG, with a legend and without a date."""
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})

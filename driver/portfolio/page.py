"""A portfolio as a page: the front of accuracy, latency and size, and a table of all variants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from ..reports.figures import DENSE, KEPT, figure_html, layout
from ..reports.page import render
from .manifest import Portfolio, Variant

__all__ = ["front", "portfolio_page"]


_TIMING_NOISE = 0.02
"""Share of a latency that two measurements of the same code may differ by."""


def front(variants: Sequence[Variant], target: str | None) -> tuple[str, ...]:
    """Names of the variants that no other beats: none is as accurate, as fast and as small, and better in one of these.

    Better is what is better by more than noise: by more than the standard error of the difference of two accuracies on as many
    images, or by more than two hundredths of a latency. Variants that are apart by less share the front.

    Args:
        variants: with what was measured. Where an accuracy was not, there is no front: the smallest network would be all of it,
            whatever it has unlearned.
        target: whose latency counts; None, or one without figures, leaves it out. A variant that is not built
            for it is not on the front.
    """
    if any(variant.accuracy is None for variant in variants):
        return ()

    def costs(variant: Variant) -> tuple[float, ...]:
        latency = variant.latency_ms.get(target, 0.0) if target else 0.0
        return (-(variant.accuracy or 0.0), latency, variant.bytes)

    def beats(one: Variant, other: Variant) -> bool:
        noise = (_error(one, other), _TIMING_NOISE * costs(other)[1], 0.0)
        pairs = list(zip(costs(one), costs(other), noise, strict=True))
        return all(a <= b for a, b, _ in pairs) and any(a < b - least for a, b, least in pairs)

    timed = [variant for variant in variants if target in variant.latency_ms] or list(variants)
    return tuple(v.name for v in timed if not any(beats(other, v) for other in timed))


def _error(one: Variant, other: Variant) -> float:
    """The standard error of the difference of two accuracies; 0 where nobody says on how many images they were measured."""
    total = 0.0
    for variant in (one, other):
        share, count = variant.accuracy or 0.0, variant.source.get("test_images")
        if not isinstance(count, int) or count < 1:
            return 0.0
        total += share * (1 - share) / count
    return math.sqrt(total)


def portfolio_page(portfolio: Portfolio) -> str:
    """One page of HTML that loads nothing from elsewhere."""
    variants = portfolio.variants
    targets = sorted({target for variant in variants for target in variant.latency_ms})
    target = targets[0] if targets else None
    best = front(variants, target)
    axes = _axes(variants, target) if all(variant.accuracy is not None for variant in variants) else []
    plots = [
        (f"Accuracy and {title}", Markup(figure_html(_scatter(variants, best, axis, values))))
        for title, axis, values in axes
    ]
    title = f"Portfolio {portfolio.name}"
    mixed = any(variant.dtype != "float32" for variant in variants)
    return render(
        "portfolio.html.j2", title=title, portfolio=portfolio, targets=targets, front=best, plots=plots, mixed=mixed
    )


def _axes(variants: Sequence[Variant], target: str | None) -> list[tuple[str, str, list[float]]]:
    axes = [("size", "bytes of weights", [float(variant.bytes) for variant in variants])]
    if target is not None and all(target in variant.latency_ms for variant in variants):
        latency = [variant.latency_ms[target] for variant in variants]
        axes.insert(0, ("latency", f"milliseconds a call, {target}", latency))
    return axes


def _scatter(variants: Sequence[Variant], best: Sequence[str], axis: str, values: Sequence[float]) -> go.Figure:
    figure = go.Figure()
    for label, colour, chosen in (("beaten", DENSE, False), ("on the front", KEPT, True)):
        points = [(v, x) for v, x in zip(variants, values, strict=True) if (v.name in best) is chosen]
        figure.add_scatter(
            x=[x for _, x in points],
            y=[100 * (variant.accuracy or 0.0) for variant, _ in points],
            text=[variant.name for variant, _ in points],
            name=label,
            mode="markers+text",
            textposition="top center",
            marker={"color": colour, "size": 11},
            hovertemplate="%{text}: %{y:.1f} %, %{x:,.4g}<extra></extra>",
        )
    style: dict[str, Any] = layout(height=340)
    figure.update_layout(**style)
    figure.update_xaxes(title_text=axis, type="log", gridcolor="#e7ebef")
    figure.update_yaxes(title_text="accuracy on test images, %", gridcolor="#e7ebef")
    return figure

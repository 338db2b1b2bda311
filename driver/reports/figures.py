"""The plots of a report, as plotly figures: dense in grey behind, what is kept in colour before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from ...passes.outcome import LayerWidth, LayerZeros
from ...passes.pruning.structure_plan import StructurePlan
from ..wording import milliseconds
from .measured import Latency

if TYPE_CHECKING:
    from ...backends.choosing.layer_choices import LayerChoice

__all__ = ["cost_figure", "density_figure", "figure_html", "latency_figure", "layer_figures", "plan_figures"]

DENSE, KEPT, INK = "#c9d1d9", "#0f766e", "#1f2933"
_STAYS = "#6e7781"
_SCHEMES = (KEPT, "#b45309", "#1d4ed8", "#7c3aed", "#be123c", "#4d7c0f", "#0e7490", "#a16207")
"""Of structures, by turns."""
_ENGINES = {"reconvene": "reconvene (TVM, our schedules)", "tvm-default": "TVM, default", "eager": "PyTorch eager"}
_MOST_NAMES = 40
"""Above this many layers their names would overlap, and are shown on hovering only."""


def layer_figures(layers: Sequence[LayerWidth]) -> tuple[tuple[str, go.Figure], ...]:
    """Heading and figure for channels, parameters and MACs by layer; none without layers."""
    if not layers:
        return ()
    quantities: tuple[tuple[str, Callable[[LayerWidth], int], Callable[[LayerWidth], int]], ...] = (
        ("Channels kept by layer", lambda row: row.channels_before, lambda row: row.channels_after),
        ("Parameters by layer", lambda row: row.size_before.parameters, lambda row: row.size_after.parameters),
        ("Multiply-accumulates by layer", lambda row: row.size_before.macs, lambda row: row.size_after.macs),
    )
    names = [row.name for row in layers]
    return tuple(
        (heading, bars(names, [before(row) for row in layers], [after(row) for row in layers]))
        for heading, before, after in quantities
    )


def bars(
    names: Sequence[str],
    before: Sequence[float],
    after: Sequence[float],
    labels: tuple[str, str] = ("dense", "compacted"),
) -> go.Figure:
    figure = go.Figure()
    # Positions, not names, on the axis: two layers may share a name after shortening.
    positions = list(range(len(names)))
    for label, values, colour, width in ((labels[0], before, DENSE, 0.82), (labels[1], after, KEPT, 0.5)):
        figure.add_bar(
            x=positions,
            y=list(values),
            name=label,
            marker_color=colour,
            width=width,
            customdata=list(names),
            hovertemplate="%{customdata}<br>" + label + ": %{y:,}<extra></extra>",
        )
    return _by_layer(figure, names)


def _by_layer(figure: go.Figure, names: Sequence[str]) -> go.Figure:
    """Bars at 0, 1, 2 ... under which the layers' names stand."""
    figure.update_layout(**layout(height=300), barmode="overlay")
    figure.update_yaxes(rangemode="tozero", gridcolor="#e7ebef")
    positions = list(range(len(names)))
    if len(names) <= _MOST_NAMES:
        ticks: dict[str, Any] = {"tickvals": positions, "ticktext": [shortened(name) for name in names]}
        figure.update_xaxes(**ticks, tickangle=-45, tickfont_size=10)
    else:
        figure.update_xaxes(showticklabels=False, title_text=f"{len(names)} layers, in order of execution")
    return figure


def density_figure(zeros: Sequence[LayerZeros]) -> go.Figure:
    """The weights of every layer, and those of them that are not zero."""
    return bars(
        [layer.name for layer in zeros],
        [layer.weights for layer in zeros],
        [layer.weights - layer.zeros for layer in zeros],
        ("all weights", "not zero"),
    )


def cost_figure(layers: Sequence[LayerChoice], unit: str) -> go.Figure:
    """What layers cost in one pass by the best dense kernel, and by the one that was chosen, as far as that is known."""
    known = [layer for layer in layers if layer.cost is not None and layer.dense_cost is not None]
    scale = 1e3 if unit == "s" else 1
    figure = bars(
        [layer.name for layer in known],
        [scale * layer.calls * (layer.dense_cost or 0.0) for layer in known],
        [scale * layer.calls * (layer.cost or 0.0) for layer in known],
        ("best dense kernel", "chosen"),
    )
    figure.update_yaxes(title_text="ms" if unit == "s" else unit)
    return figure


def plan_figures(plan: StructurePlan | None) -> tuple[tuple[str, go.Figure], ...]:
    """Heading and figure for a plan of structures, each layer in the colour of its structure: the time that it is expected to
    take, as far as that is known, and its share of zeros. None without a plan.
    """
    if plan is None or not plan.layers:
        return ()
    shares = _schemes(plan, [layer.share for layer in plan.layers])
    shares.update_yaxes(range=[0, 1], tickformat=".0%")
    found: tuple[tuple[str, go.Figure], ...] = (("Share of zeros by layer and structure", shares),)
    if not any(layer.dense for layer in plan.layers):
        return found
    scale = 1e3 if plan.unit == "s" else 1
    dense = [scale * (layer.dense or 0.0) for layer in plan.layers]
    sparse = [
        whole if layer.sparse is None else scale * layer.sparse for layer, whole in zip(plan.layers, dense, strict=True)
    ]
    times = _schemes(plan, sparse, dense)
    times.update_yaxes(title_text="ms" if plan.unit == "s" else plan.unit)
    return (("Expected time by layer and structure", times), *found)


def _schemes(plan: StructurePlan, values: Sequence[float], behind: Sequence[float] = ()) -> go.Figure:
    """Bars in the colours of structures, and others behind all of them."""
    figure, names = go.Figure(), [layer.name for layer in plan.layers]
    if behind:
        hover = {"customdata": names, "hovertemplate": "%{customdata}<br>without zeros: %{y:,}<extra></extra>"}
        figure.add_bar(
            x=list(range(len(names))), y=list(behind), name="without zeros", marker_color=DENSE, width=0.82, **hover
        )
    colours = iter(_SCHEMES * len(plan.schemes))
    for scheme in plan.schemes:
        places = [place for place, layer in enumerate(plan.layers) if layer.scheme == scheme]
        figure.add_bar(
            x=places,
            y=[values[place] for place in places],
            name=scheme,
            marker_color=_STAYS if scheme == "dense" else next(colours),
            width=0.5,
            customdata=[names[place] for place in places],
            hovertemplate="%{customdata}<br>" + scheme + ": %{y:,}<extra></extra>",
        )
    return _by_layer(figure, names)


def latency_figure(rows: Sequence[Latency]) -> go.Figure | None:
    """Median latency by engine; None without measurements. The percentiles are in the table beside it."""
    if not rows:
        return None
    figure = go.Figure()
    engines = list(dict.fromkeys(row.engine for row in rows))[::-1]
    # Horizontal bars are drawn from below, so dense comes last to stand above compacted.
    for variant, colour in (("compacted", KEPT), ("dense", DENSE)):
        chosen = [row for engine in engines for row in rows if (row.engine, row.variant) == (engine, variant)]
        figure.add_bar(
            orientation="h",
            y=[_ENGINES.get(row.engine, row.engine) for row in chosen],
            x=[row.median_ms for row in chosen],
            name=variant,
            marker_color=colour,
            text=[milliseconds(row.median_ms) for row in chosen],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}, " + variant + ": %{text}<extra></extra>",
        )
    figure.update_layout(**layout(height=110 + 70 * len(engines)), barmode="group", legend_traceorder="reversed")
    longest = max(row.median_ms for row in rows)
    figure.update_xaxes(title_text="milliseconds", range=[0, longest * 1.18], gridcolor="#e7ebef")
    return figure


def figure_html(figure: go.Figure) -> str:
    """The figure as a fragment for a page that already has plotly's script."""
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}
    )
    return text


def layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 10, "r": 10, "t": 34, "b": 10},
        "template": "plotly_white",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "yaxis": {"automargin": True},
        "xaxis": {"automargin": True},
        "bargap": 0.25,
        "uniformtext": {"mode": "show", "minsize": 10},
    }


def shortened(name: str, most: int = 22) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]

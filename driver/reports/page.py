"""Pages of HTML from the templates beside this file. One file each, nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from .. import wording
from .figures import figure_html, latency_figure, layer_figures
from .report import Report, asked, speeds

__all__ = ["render", "report_page"]


def report_page(reports: Sequence[Report], title: str, notes: Sequence[str] = ()) -> str:
    """One page with `reports` under one another, `notes` above them."""
    sections = [
        {
            "report": report,
            "asked": asked(report),
            "speeds": speeds(report),
            "plots": [(heading, Markup(figure_html(figure))) for heading, figure in layer_figures(report)],
            "latency_plot": latency_plot(report),
        }
        for report in reports
    ]
    return render("report.html.j2", title=title, sections=sections, notes=notes)


def latency_plot(report: Report) -> Markup | None:
    figure = latency_figure(report.latency)
    return None if figure is None else Markup(figure_html(figure))


def render(template: str, **values: Any) -> str:
    """Fills a template; every value is escaped unless it is Markup."""
    from plotly.offline import get_plotlyjs

    return templates().get_template(template).render(plotly=Markup(get_plotlyjs()), **values)


@cache
def templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reconvene.driver.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = {name: getattr(wording, name) for name in wording.__all__}
    environment.filters.update(functions)
    environment.globals.update(functions)
    return environment

"""Pages of HTML from the templates beside this file. One file each, nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from .. import wording

__all__ = ["render"]


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

"""``reconvene explain``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...frontend.base.files import write_text
from ...frontend.base.progress import stage
from ...frontend.quantized_operators import check_float
from ..answer import Answer, files_line, table
from ..models import load_model
from ..outputs import check_different, check_file

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene explain`` is told; see its help."""

    model: str
    html: Path | None = None
    dot: Path | None = None
    graphml: Path | None = None
    inputs: tuple[str, ...] = ()
    seed: int = 0
    weights: str | None = None


def run(request: Request) -> Answer:
    from ...passes.canonicalize import canonicalize
    from ...passes.dependency import dependency_view
    from ..reports.explanation import explain as explain_view

    places = (request.html, request.dot, request.graphml)
    for path in places:
        check_file(path)
    check_different(request.model, *places)
    loaded = load_model(request.model, request.inputs, request.seed, weights=request.weights)
    check_float(loaded.module, "explain and prune before you quantise")
    with stage("finding the channel groups"):
        found = explain_view(dependency_view(canonicalize(loaded.module)), loaded.name)
    files = {}
    writers: tuple[tuple[str, Path | None, Callable[[], str]], ...] = (
        ("page", request.html, found.to_html),
        ("Graphviz", request.dot, found.to_dot),
        ("GraphML", request.graphml, found.to_graphml),
    )
    for what, path, text in writers:
        if path is not None:
            write_text(path, text())
            files[what] = str(path)

    def show(console: Console) -> None:
        made = table(
            "group", "channels", "parameters per channel", "why it stays", right=("channels", "parameters per channel")
        )
        for group in found.groups:
            made.add_row(group.name, str(group.channels), f"{group.cost:,}", group.reason or "")
        console.print(made)
        for barrier in found.barriers:
            console.print(
                f"barrier: {barrier.operator} at {barrier.source or barrier.node}: {barrier.reason}", markup=False
            )
        if files:
            console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer({**found.to_dict(), "files": files}, show)

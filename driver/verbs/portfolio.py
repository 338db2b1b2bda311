"""``reconvene portfolio``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.data.datasets import find_dataset
from ...frontend.graph_module import CapturedModule
from ..answer import Answer, files_line, table
from ..models import load_model
from ..outputs import check_folder, suffixed
from ..portfolio.build import PAGE, Options, build_portfolio
from ..portfolio.manifest import Portfolio
from ..portfolio.page import front
from ..portfolio.sources import Source, levels_sources, program_sources, pruned_sources
from ..training.levels import LEVELS_FILE
from ..wording import count, milliseconds, size

__all__ = ["Request", "portfolio_verb"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene portfolio`` is told beside its sources; see its help."""

    sparsities: tuple[float, ...]
    method: str
    scope: str
    name: str | None
    targets: tuple[str, ...]
    dataset: str | None
    data: Path | None
    test_images: int
    batch: int
    threads: int
    repeat: int
    estimate: bool
    seed: int
    compile: Mapping[str, Any] = field(default_factory=dict)


def portfolio_verb(given: Sequence[str], request: Request, output: Path | None) -> Answer:
    options = Options(
        request.targets, None, request.test_images, request.batch, request.threads, request.repeat, request.estimate,
        request.compile,
    )  # fmt: skip
    options.check()
    sources, beside = _sources(given, request)
    folder = output or suffixed(beside, "-portfolio")
    check_folder(folder.absolute().parent)
    if request.dataset is not None:
        dataset = find_dataset(request.dataset)
        with stage(f"reading {request.dataset}"):
            options = replace(options, images=dataset.load(request.data, "test"))
    portfolio = build_portfolio(sources, folder, request.name or folder.name, options)
    files = {"portfolio": str(folder), "page": str(folder / PAGE)}
    variants = [{k: v for k, v in asdict(variant).items() if k != "files"} for variant in portfolio.variants]

    def show(console: Console) -> None:
        console.print(_table(portfolio))
        console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer({"name": portfolio.name, "variants": variants, "files": files}, show)


def _sources(given: Sequence[str], request: Request) -> tuple[tuple[Source, ...], Path]:
    """What the person named, and the path that results go beside."""
    first = Path(given[0])
    if (first / LEVELS_FILE).is_file() or (first.is_dir() and len(given) == 1):
        if len(given) > 1 or request.sparsities:
            raise InputError("levels are a portfolio by themselves; name one folder of levels and no sparsities")
        return levels_sources(first), first
    if request.sparsities:
        if len(given) > 1:
            raise InputError("several programs were named with sparsities; name one, which is pruned to each of them")
        loaded = load_model(given[0], (), request.seed)
        assert isinstance(loaded.module, CapturedModule)
        sources = pruned_sources(
            loaded.module, loaded.example_inputs, request.sparsities, request.method, scope=request.scope,
            seed=request.seed,
        )  # fmt: skip
        return sources, loaded.beside
    if len(given) == 1:
        raise InputError(
            "one program is no portfolio; name several, a folder of levels, or --sparsity for each variant"
        )
    return program_sources([Path(path) for path in given]), first.with_suffix("")


def _table(portfolio: Portfolio) -> object:
    targets = sorted({target for variant in portfolio.variants for target in variant.latency_ms})
    numbers = ("accuracy", "parameters", "weights", "MACs", "peak memory", *targets)
    made = table("variant", *numbers, "front", right=numbers, title=f"Portfolio {portfolio.name}")
    best = front(portfolio.variants, targets[0] if targets else None)
    for variant in portfolio.variants:
        made.add_row(
            variant.name,
            "" if variant.accuracy is None else f"{variant.accuracy:.1%}",
            f"{variant.parameters:,}",
            size(variant.bytes),
            count(variant.macs),
            size(variant.peak_memory_bytes),
            *(milliseconds(variant.latency_ms[t]) if t in variant.latency_ms else "" for t in targets),
            "yes" if variant.name in best else "",
        )
    return made

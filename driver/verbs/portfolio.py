"""``reconvene portfolio``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.data.datasets import find_dataset
from ...frontend.graph_module import CapturedModule
from ...passes.pruning.decisions import Widths
from ...passes.recovery.synthetic import KINDS
from ..answer import Answer, files_line, table
from ..calibrating import Examples
from ..models import load_model
from ..outputs import check_folder, suffixed
from ..portfolio.build import PAGE, Options, build_portfolio
from ..portfolio.manifest import Portfolio
from ..portfolio.page import front
from ..portfolio.sources import Source, levels_sources, program_sources, pruned_sources
from ..training.levels import LEVELS_FILE
from ..wording import count, milliseconds, size
from .recovery import inputs_in_file

__all__ = ["Request", "run"]

_CALIBRATED = 512
"""Images of the data set that ranges are found on, as many as `reconvene quantize` takes."""


@dataclass(frozen=True)
class Request:
    """What ``reconvene portfolio`` is told; see its help."""

    sources: tuple[str, ...]
    """A folder of levels, or programs."""
    sparsities: tuple[float, ...] = ()
    method: str = "magnitude"
    scope: str = "layer"
    name: str | None = None
    targets: tuple[str, ...] = ("host",)
    dataset: str | None = None
    data: Path | None = None
    test_images: int = 0
    batch: int = 1
    threads: int = 1
    winograd: str = "auto"
    choose: str = "model"
    repeat: int = 50
    estimate: bool = False
    types: tuple[str, ...] = ("float32",)
    calibration: str | None = None
    """A file of arrays, or a kind of synthetic inputs, for int8; else the data set's images."""
    output: Path | None = None
    seed: int = 0

    def options(self) -> Options:
        """How the portfolio is built. Raises InputError if one of them makes no sense."""
        options = Options(
            self.targets, None, self.test_images, self.batch, self.threads, self.repeat, self.estimate, self.types,
            self._calibration(), {"winograd": self.winograd, "choose": self.choose},
        )  # fmt: skip
        # Images of the data set come when all else is settled.
        replace(options, calibration="noise" if self.dataset is not None else options.calibration).check()
        return options

    def _calibration(self) -> Examples | None:
        if self.calibration is None or self.calibration in KINDS:
            return self.calibration
        return inputs_in_file(self.calibration)


def run(request: Request) -> Answer:
    options = request.options()
    sources, beside = _sources(request)
    folder = request.output or suffixed(beside, "-portfolio")
    check_folder(folder.absolute().parent)
    if request.dataset is not None:
        dataset = find_dataset(request.dataset)
        with stage(f"reading {request.dataset}"):
            options = replace(options, images=dataset.load(request.data, "test"))
            if "int8" in request.types and request.calibration is None:
                trained = dataset.load(request.data, "train")
                chosen = np.random.default_rng(request.seed).permutation(len(trained))[:_CALIBRATED]
                options = replace(options, calibration=[trained.batch(int(at), 1) for at in chosen])
    portfolio = build_portfolio(sources, folder, request.name or folder.name, options)
    files = {"portfolio": str(folder), "page": str(folder / PAGE)}
    variants = [{k: v for k, v in asdict(variant).items() if k != "files"} for variant in portfolio.variants]

    def show(console: Console) -> None:
        console.print(_table(portfolio))
        console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer({"name": portfolio.name, "variants": variants, "files": files}, show)


def _sources(request: Request) -> tuple[tuple[Source, ...], Path]:
    """What the person named, and the path that results go beside."""
    given = request.sources
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
            loaded.module, loaded.example_inputs, request.sparsities, request.method, Widths(request.scope),
            request.seed,
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
    mixed = any(variant.dtype != "float32" for variant in portfolio.variants)
    kinds = ("type", "loss") if mixed else ()
    made = table("variant", *kinds, *numbers, "front", right=numbers, title=f"Portfolio {portfolio.name}")
    best = front(portfolio.variants, targets[0] if targets else None)
    for variant in portfolio.variants:
        made.add_row(
            variant.name,
            *((variant.dtype, variant.loss) if mixed else ()),
            "" if variant.accuracy is None else f"{variant.accuracy:.1%}",
            f"{variant.parameters:,}",
            size(variant.bytes),
            count(variant.macs),
            size(variant.peak_memory_bytes),
            *(milliseconds(variant.latency_ms[t]) if t in variant.latency_ms else "" for t in targets),
            "yes" if variant.name in best else "" if best else "?",
        )
    return made

"""Making a portfolio: every sparse network is shrunk without loss, compiled, measured, and put into one folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...backends.built import Built, load_bundle
from ...backends.compile import compile as compile_graph
from ...backends.dtypes import torch_dtype
from ...backends.estimate.bundle import estimate_bundle
from ...backends.machines.targets import Target, find_target
from ...backends.measure import time_calls
from ...backends.signature import TensorSpec
from ...frontend.base.errors import InputError
from ...frontend.base.files import replacing_folder, write_text
from ...frontend.base.progress import stage, track
from ...frontend.data.datasets import Images
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import save_program
from ...frontend.state import state_of
from ...passes.compaction import compact
from ...passes.outcome import Compaction
from ..models import rebatched
from ..reports.profile import peak_activation_bytes
from ..training.evaluation import accuracy, answers
from .manifest import MANIFEST, VARIANTS, Portfolio, Variant, file_sums, open_portfolio, write_manifest
from .page import portfolio_page
from .sources import Source

__all__ = ["PAGE", "Options", "build_portfolio"]

PAGE = "portfolio.html"
_MODEL = "model.pt2"
_SHARED_BYTES = 4096


@dataclass(frozen=True)
class Options:
    """How variants are compiled and measured.

    Attributes:
        targets: names or ``.toml`` files; every variant is compiled for each.
        images: for the accuracy of each variant; None measures none.
        count: how many of the images, 0 for all; the same ones as in training with that many.
        batch: images a call of the compiled variants takes.
        threads: of compiled variants.
        repeat: timed calls of every variant that runs on this machine.
        estimate: model the latency on other targets (`reconvene estimate`); without it they have none.
        compile: more options of `reconvene.compile`.
    """

    targets: tuple[str, ...] = ("host",)
    images: Images | None = field(default=None, repr=False)
    count: int = 0
    batch: int = 1
    threads: int = 1
    repeat: int = 50
    estimate: bool = False
    compile: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> tuple[Target, ...]:
        """The targets. Raises InputError if one is unknown or a number is out of range."""
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError("name at least one target, and each once")
        if self.batch < 1 or self.repeat < 1:
            raise InputError(f"batch {self.batch} and repeat {self.repeat} must be 1 or more")
        return tuple(find_target(target) for target in self.targets)


@dataclass(frozen=True)
class _Made:
    """A variant, and the specs of what it takes and gives."""

    variant: Variant
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def build_portfolio(sources: Iterable[Source], folder: Path, name: str, options: Options = Options()) -> Portfolio:
    """Writes a portfolio, which appears complete or not at all; an older one there is replaced.

    Args:
        sources: the sparse networks.
        folder: see `manifest` for what it holds; ``portfolio.html`` shows it.
        name: letters, digits, ``-``, ``_`` and ``.``.
        options: how variants are compiled and measured.

    Raises:
        InputError: the folder holds something else, an option is not usable, or a network does not fit the others, or keeps
            state.
        CheckError: a shrunk network differs from its sparse one.
    """
    targets = options.check()
    if folder.exists() and not (folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))):
        raise InputError(f"'{folder}' exists and is no portfolio; choose an empty or a new folder")
    with replacing_folder(folder) as temporary:
        made = [_make(source, temporary, targets, options) for source in track(list(sources), "variants")]
        if not made:
            raise InputError("a portfolio needs at least one variant; name a folder of levels, or programs")
        _check_alike(made)
        made.sort(key=lambda entry: -entry.variant.macs)
        with stage("timing the variants"):
            timed = _timed([entry.variant for entry in made], temporary, targets, options)
        _share(temporary)
        variants = tuple(replace(v, files=file_sums(temporary, v.name)) for v in timed)
        portfolio = Portfolio(temporary, name, made[0].inputs, made[0].outputs, variants)
        write_manifest(portfolio, temporary)
        write_text(temporary / PAGE, portfolio_page(portfolio))
    return open_portfolio(folder)


def _make(source: Source, folder: Path, targets: Sequence[Target], options: Options) -> _Made:
    """Shrinks, checks and compiles one source into ``variants/NAME``."""
    sparse, given = source.load()
    state = state_of(sparse)
    if state:
        raise InputError(
            f"'{source.name}' keeps '{next(iter(state))}' from one call to the next, and a variant that takes over from another"
            " does not know what that kept; compile it by itself"
        )
    inputs = rebatched(given, options.batch)
    started = time.perf_counter()
    shrunk = compact(sparse, inputs, fold=True)
    seconds = time.perf_counter() - started
    assert isinstance(shrunk.module, CapturedModule)
    place = folder / VARIANTS / source.name
    place.mkdir(parents=True)
    save_program(shrunk.module, given, place / _MODEL)
    certificate = asdict(shrunk.certificate)
    started = time.perf_counter()
    built: Built | None = None
    weights = 0
    for target in targets:
        built = compile_graph(shrunk.module, inputs, target, threads=options.threads, **options.compile)
        built.export(place / target.name, certificate=certificate)
        weights = max(weights, built.memory.weights_bytes)
    assert built is not None
    facts = {
        **source.facts,
        "sparse_parameters": shrunk.before.parameters,
        "sparse_macs": shrunk.before.macs,
        "shrink_seconds": seconds,
        "compile_seconds": time.perf_counter() - started,
        **_accuracies(sparse, shrunk.module, options),
    }
    peak = weights + peak_activation_bytes(shrunk.module, inputs)
    variant = _variant(source.name, shrunk, peak, certificate, facts)
    return _Made(variant, built.inputs, built.outputs)


def _variant(
    name: str, shrunk: Compaction, peak: int, certificate: Mapping[str, Any], facts: dict[str, Any]
) -> Variant:
    parameters = list(shrunk.module.parameters())
    size = sum(tensor.numel() * tensor.element_size() for tensor in [*parameters, *shrunk.module.buffers()])
    return Variant(
        name=name,
        accuracy=facts.pop("accuracy"),
        parameters=sum(parameter.numel() for parameter in parameters),
        nonzero=sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        bytes=size,
        macs=shrunk.after.macs,
        latency_ms={},
        peak_memory_bytes=peak,
        files={},
        certificate=certificate,
        source=facts,
    )


def _accuracies(sparse: CapturedModule, shrunk: CapturedModule, options: Options) -> dict[str, Any]:
    """Of the sparse network and of the shrunk one, which are the same but for ties that rounding decides."""
    if options.images is None:
        return {"accuracy": None}
    found = [answers(module, options.images, options.count) for module in (sparse, shrunk)]
    before, after = (accuracy(answer, options.images) for answer in found)
    return {
        "accuracy": after,
        "sparse_accuracy": before,
        "test_images": len(found[0]),
        "answers_that_differ": int((found[0] != found[1]).sum()),
    }


def _check_alike(made: Sequence[_Made]) -> None:
    """Raises InputError unless all variants can stand in for each other."""
    first = made[0]
    for entry in made[1:]:
        for what, one, other in (
            ("takes", first.inputs, entry.inputs),
            ("gives", first.outputs, entry.outputs),
        ):
            if one != other:
                raise InputError(
                    f"'{entry.variant.name}' {what} {', '.join(map(str, other))}, but '{first.variant.name}' {what}"
                    f" {', '.join(map(str, one))}; only networks with the same inputs and outputs make a portfolio"
                )


def _timed(
    variants: Sequence[Variant], folder: Path, targets: Sequence[Target], options: Options
) -> tuple[Variant, ...]:
    """The variants with what one call takes: measured, in turns, on this machine, and modelled for others."""
    times: dict[str, dict[str, float]] = {variant.name: {} for variant in variants}
    for target in targets:
        # Another machine's time is not this one's, even where its code runs here.
        if target.name != "host":
            for name in times if options.estimate else ():
                modelled = estimate_bundle(folder / VARIANTS / name / target.name).total.milliseconds
                if modelled is not None:
                    times[name][target.name] = modelled
            continue
        built = {v.name: load_bundle(folder / VARIANTS / v.name / target.name) for v in variants}
        calls = {name: model.prepared_tensors(_random(model)) for name, model in built.items()}
        timings = time_calls(calls, options.repeat, threads=options.threads, batch=options.batch)
        for name, timing in timings.items():
            times[name][target.name] = timing.median_ms
    kinds = {target.name: "measured" if target.name == "host" else "modelled" for target in targets}
    return tuple(
        replace(v, latency_ms=times[v.name], source={**v.source, "latency": {t: kinds[t] for t in times[v.name]}})
        for v in variants
    )


def _random(built: Built) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(spec.shape, generator=generator).to(torch_dtype(spec.dtype)) for spec in built.inputs)


def _share(folder: Path) -> None:
    """Makes equal files one file with several names, so that they are stored, and held in memory, once."""
    known: dict[tuple[int, str], Path] = {}
    for variant in sorted((folder / VARIANTS).iterdir()):
        for path, entry in file_sums(folder, variant.name).items():
            if entry.bytes < _SHARED_BYTES:
                continue
            first = known.setdefault((entry.bytes, entry.sha256), folder / path)
            if first != folder / path:
                (folder / path).unlink()
                os.link(first, folder / path)

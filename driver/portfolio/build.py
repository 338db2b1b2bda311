"""Making a portfolio: every sparse network is shrunk without loss, compiled, measured, and put into one folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from ...frontend.data.facts import facts_of
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import save_program
from ...frontend.quantized_operators import is_quantized
from ...frontend.state import state_of
from ..calibrating import Examples
from ..models import rebatched
from ..reports.profile import peak_activation_bytes
from ..training.evaluation import accuracy, answers
from .manifest import MANIFEST, VARIANTS, Portfolio, Variant, file_sums, open_portfolio, write_manifest
from .page import portfolio_page
from .sources import Source
from .types import Network, Typed, check_types, network_of, targets_of, typed

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
        types: of `types.TYPES`: every network becomes a variant in each. In float16 for the targets that compute in it alone.
        calibration: inputs that ranges for int8 are found on, as for `reconvene.quantize`, which measures on them, too, what
            that loses.
        compile: more options of `reconvene.compile`.
    """

    targets: tuple[str, ...] = ("host",)
    images: Images | None = field(default=None, repr=False)
    count: int = 0
    batch: int = 1
    threads: int = 1
    repeat: int = 50
    estimate: bool = False
    types: tuple[str, ...] = ("float32",)
    calibration: Examples | None = field(default=None, repr=False)
    compile: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> tuple[Target, ...]:
        """The targets. Raises InputError if one is unknown or a number is out of range."""
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError("name at least one target, and each once")
        if self.batch < 1 or self.repeat < 1:
            raise InputError(f"batch {self.batch} and repeat {self.repeat} must be 1 or more")
        found = tuple(find_target(target) for target in self.targets)
        check_types(self.types, found, self.calibration)
        return found


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
        listed = list(sources)
        made = [
            variant for source in track(listed, "variants") for variant in _make(source, temporary, targets, options)
        ]
        if not made:
            raise InputError("a portfolio needs at least one variant; name a folder of levels, or programs")
        _check_alike(made)
        _check_asked(options.types, made)
        made.sort(key=lambda entry: -entry.variant.macs)
        with stage("timing the variants"):
            timed = _timed([entry.variant for entry in made], temporary, targets, options)
        _share(temporary)
        variants = tuple(replace(v, files=file_sums(temporary, v.name)) for v in timed)
        portfolio = Portfolio(temporary, name, made[0].inputs, made[0].outputs, variants)
        write_manifest(portfolio, temporary)
        write_text(temporary / PAGE, portfolio_page(portfolio))
    return open_portfolio(folder)


def _check_asked(types: Sequence[str], made: Sequence[_Made]) -> None:
    """Raises InputError where a type was asked for that no network is in."""
    if "float16" in types and all(entry.variant.dtype != "float16" for entry in made):
        raise InputError(
            "every network is quantised already, and computes on codes: there is nothing to compute in float16; leave that type"
            " out, or give the networks that these were quantised from"
        )


def _make(source: Source, folder: Path, targets: Sequence[Target], options: Options) -> list[_Made]:
    """Shrinks and checks one source, and compiles it in every type into ``variants/NAME``."""
    sparse, given = source.load()
    state = state_of(sparse)
    if state:
        raise InputError(
            f"'{source.name}' keeps '{next(iter(state))}' from one call to the next, and a variant that takes over from another"
            " does not know what that kept; compile it by itself"
        )
    inputs = rebatched(given, options.batch)
    started = time.perf_counter()
    network = network_of(source.name, sparse, inputs)
    facts = {**source.facts, **network.facts, "shrink_seconds": time.perf_counter() - started}
    network = replace(network, facts=facts)
    types = ("int8",) if is_quantized(sparse) else options.types
    found = [typed(network, dtype, given, options.calibration, len(options.types) == 1) for dtype in types]
    for variant in found:
        # Another's name may be this one's with its type behind it.
        if (folder / VARIANTS / variant.name).exists():
            raise InputError(
                f"two variants are called '{variant.name}', one of them '{source.name}' in {variant.dtype}; rename a source"
            )
    return [_compiled(network, each, sparse, (given, inputs), folder, targets, options) for each in found]


def _compiled(
    network: Network,
    made: Typed,
    sparse: CapturedModule,
    inputs: tuple[tuple[Any, ...], tuple[Any, ...]],
    folder: Path,
    targets: Sequence[Target],
    options: Options,
) -> _Made:
    """One type of a network, compiled for the targets that have it. `inputs`: of its example, and of compiled code."""
    given, batch = inputs
    place = folder / VARIANTS / made.name
    place.mkdir(parents=True)
    save_program(made.module, given, place / _MODEL, data=facts_of(made.module))
    started = time.perf_counter()
    compiled: list[Built] = []
    for target in targets_of(made.dtype, targets):
        # What is quantised is computed on codes where these are faster.
        asked: dict[str, Any] = {"dtype": made.dtype} if made.dtype == "float16" else {}
        built = compile_graph(made.module, batch, target, threads=options.threads, **options.compile, **asked)
        built = replace(built, data=facts_of(made.module))
        built.export(place / target.name, certificate=network.certificate)
        compiled.append(built)
    weights = max(built.memory.weights_bytes for built in compiled)
    values = max(built.memory.live_bytes for built in compiled)
    if made.dtype == "float32":
        values = peak_activation_bytes(made.module, batch)
    facts = {
        **network.facts,
        "dtype": made.dtype,
        "loss": made.loss,
        "compile_seconds": time.perf_counter() - started,
        **_accuracies(sparse, made.module, options),
    }
    variant = Variant(
        name=made.name,
        accuracy=facts.pop("accuracy"),
        parameters=sum(weight.numel() for weight in made.weights),
        nonzero=sum(int(torch.count_nonzero(weight)) for weight in made.weights),
        bytes=made.bytes,
        macs=network.macs,
        latency_ms={},
        peak_memory_bytes=weights + values,
        files={},
        certificate=network.certificate,
        source=facts,
    )
    return _Made(variant, compiled[0].inputs, compiled[0].outputs)


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
            for name in _built_for(target, times, folder) if options.estimate else ():
                modelled = estimate_bundle(folder / VARIANTS / name / target.name).total.milliseconds
                if modelled is not None:
                    times[name][target.name] = modelled
            continue
        built = {
            name: load_bundle(folder / VARIANTS / name / target.name) for name in _built_for(target, times, folder)
        }
        calls = {name: model.prepared_tensors(_random(model)) for name, model in built.items()}
        timings = time_calls(calls, options.repeat, threads=options.threads, batch=options.batch)
        for name, timing in timings.items():
            times[name][target.name] = timing.median_ms
    kinds = {target.name: "measured" if target.name == "host" else "modelled" for target in targets}
    return tuple(
        replace(v, latency_ms=times[v.name], source={**v.source, "latency": {t: kinds[t] for t in times[v.name]}})
        for v in variants
    )


def _built_for(target: Target, names: Iterable[str], folder: Path) -> tuple[str, ...]:
    return tuple(name for name in names if (folder / VARIANTS / name / target.name).is_dir())


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

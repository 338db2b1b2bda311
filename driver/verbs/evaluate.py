"""``reconvene evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...backends.built import load_bundle
from ...backends.bundles.execution import run_in_turn
from ...backends.bundles.manifest import Bundle
from ...backends.bundles.read import open_bundle
from ...backends.signature import TensorSpec
from ...frontend.base.errors import InputError
from ...frontend.data.facts import Colours
from ...frontend.graph_module import CapturedModule
from .. import api
from ..answer import Answer, says, table
from ..models import LoadedModel, load_model
from ..own_data import Taker, Wanted, is_own, open_data, parse_colours
from ..training.comparison import Compared, Compiled, compared
from ..training.sources import Way, source_of
from .bundles import check_threads_of, checked_place, emulator_for, limits
from .signatures import signed_bundle

__all__ = ["Request", "parse_colours", "run"]

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Inputs by position and by name."""

_CPU = torch.device("cpu")
_BATCH = 64
"""Items that are made at a time, for a data set without batches of its own."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``reconvene evaluate`` is told; see its help."""

    model: str
    """A model, or the folder of a bundle."""
    dataset: str | None = None
    data: str | None = None
    test_share: float | None = None
    colours: Colours | None = None
    workers: int = 0
    test_images: int = 0
    """How many, 0 for all."""
    against: str | None = None
    """The model that a bundle was compiled from."""
    on: str | None = None
    key_file: Path | None = None
    public_key: str | None = None
    timeout: int = 600
    """Seconds."""
    threads: int | None = None
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is evaluated."""

    taker: Taker
    module: CapturedModule | None
    """In PyTorch, in inference mode."""
    compiled: Callable[[], Compiled]
    """Gives its code, which may have to be compiled first; so the data are looked at before that."""


def run(request: Request) -> Answer:
    subject = _of_bundle(request) if Path(request.model).is_dir() else _of_model(request)
    wanted = Wanted(request.dataset, request.data, request.test_share, request.colours, trained=True)
    facts = subject.taker.facts
    if is_own(wanted.dataset, wanted.data) and wanted.test_share is None and facts is not None:
        wanted = replace(wanted, test_share=facts.test_share or None)
    data = open_data(wanted)
    way = Way(_BATCH, request.test_images, workers=request.workers)
    source = source_of(data.load("test", subject.taker), way, _CPU)
    found = compared(subject.module, subject.compiled(), source, data.measure)
    told = {"model": request.model, "data": source.name, **asdict(found)}
    return Answer(told, lambda console: show(console, found))


def _of_model(request: Request) -> _Subject:
    """A model, and its code for this machine."""
    loaded = load_model(request.model, request.inputs, request.seed, weights=request.weights)

    def compiled() -> Compiled:
        built = api.compile(loaded.module, loaded.example_inputs, "host", threads=request.threads or 1)

        def run(calls: Sequence[Call]) -> Sequence[Any]:
            return [built.run(*args, **kwargs) for args, kwargs in calls]

        return Compiled(_items(built.inputs), run)

    return _Subject(Taker.of(loaded), _module(loaded), compiled)


def _of_bundle(request: Request) -> _Subject:
    """The code of a bundle, here or on a board, and the model that it was compiled from, if that was named."""
    signed = signed_bundle(request.model, request.public_key)
    bundle = open_bundle(request.model, manifest_sha256=signed)
    check_threads_of(bundle, request.threads)
    runner = _runner(request, bundle, signed)

    def run(calls: Sequence[Call]) -> Sequence[Any]:
        flat = [bundle.signature.tensors(args, kwargs) for args, kwargs in calls]
        return [bundle.signature.returned(outputs) for outputs in runner(flat)]

    compiled = Compiled(_items(bundle.inputs), run)
    on_codes = any(spec.codes is not None for spec in bundle.inputs)
    if request.against is not None:
        loaded = load_model(request.against, request.inputs, request.seed, weights=request.weights)
        return _Subject(replace(Taker.of(loaded), on_codes=on_codes), _module(loaded), lambda: compiled)
    given = bundle.outputs[0].shape if len(bundle.outputs) == 1 else ()
    shapes = tuple(spec.shape for spec in bundle.inputs)
    classes = given[1] if len(given) == 2 else None
    on_bytes = any(spec.dtype == "uint8" and spec.codes is None for spec in bundle.inputs)
    taker = Taker(Path(request.model).name, shapes, classes, bundle.data, on_bytes, on_codes)
    return _Subject(taker, None, lambda: compiled)


def _runner(request: Request, bundle: Bundle, signed: str | None) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What makes calls of a bundle where `request` says."""
    threads = request.threads
    if request.on is not None and request.on != "qemu":
        from ...backends.boards.jobs import run_in_turn_on_board

        place, allowed = checked_place(request.on, request.key_file), limits(request.timeout)
        return lambda calls: run_in_turn_on_board(bundle, calls, place, threads, allowed).value
    emulator = emulator_for(bundle, request.on)
    if bundle.runtime == "python" and emulator is None:
        built = load_bundle(request.model, manifest_sha256=signed)
        used = replace(built, threads=threads or built.threads)
        return lambda calls: [used.run_tensors(call) for call in calls]
    return lambda calls: run_in_turn(bundle, calls, emulator, threads)


def _module(loaded: LoadedModel) -> CapturedModule:
    assert isinstance(loaded.module, CapturedModule)
    return loaded.module.eval()


def _items(inputs: Sequence[TensorSpec]) -> int:
    """How many items a call takes. Raises InputError where no axis is for them."""
    sizes = {spec.shape[0] for spec in inputs if spec.shape}
    if len(sizes) != 1:
        raise InputError("the inputs have no common first axis for the items of a batch; only batches can be evaluated")
    return sizes.pop()


def show(console: Console, found: Compared) -> None:
    """A row for each of the two, and a line for both."""
    sides = {"PyTorch": found.pytorch, "compiled": found.compiled}
    has_top = any(side is not None and side.top5 is not None for side in sides.values())
    numbers = (found.metric, *(("among the likeliest five",) if has_top else ()), "loss")
    made = table("", *numbers, right=numbers)
    for name, side in sides.items():
        if side is not None:
            top = () if side.top5 is None else (f"{side.top5:.1%}",)
            shown = f"{side.metric:.1%}" if found.metric == "accuracy" else f"{side.metric:.4g}"
            made.add_row(name, shown, *top, f"{side.loss:.4f}")
    console.print(made)
    lines = [f"{found.items} items for tests"]
    if found.agreement is not None:
        lines.append(f"both give the same class to {found.agreement:.1%} of them")
    if found.largest_difference is not None:
        lines.append(f"largest difference of an output: {found.largest_difference:.2g}")
    says(*lines)(console)

"""``reconvene quantize``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.files import write_text
from ...frontend.base.progress import stage
from ...frontend.data.facts import Colours, DataFacts
from ...frontend.program_file import check_onnx, check_onnx_packages, export_onnx, save_program
from ...frontend.quantized_operators import has_fake_rounding
from ...passes.quantization.pt2e import load_pt2e
from ...passes.quantization.quantize import Options
from ...passes.recovery.synthetic import KINDS
from ..answer import Answer, files_line, says, table
from ..calibrating import Examples
from ..models import Fit, LoadedModel, load_model
from ..outputs import check_different, check_file, suffixed
from ..own_data import ChosenData, Taker, Wanted, is_own, open_data, parse_colours
from ..quantizing import Quantized, quantize_as_asked
from ..reports.quantization import QuantizationReport
from ..training.comparison import Compared, Compiled, compared
from ..training.sources import Data, Source, Way, source_of
from ..wording import size
from .recovery import inputs_in_file

__all__ = ["Options", "Request", "parse_colours", "run"]

_ARRAYS = (".npy", ".npz")
_BATCH = 32
_CPU = torch.device("cpu")
_SHOWN = 5
"""Layers of most noise."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``reconvene quantize`` is told; see its help."""

    model: str
    options: Options
    dataset: str | None = None
    data: str | None = None
    test_share: float | None = None
    colours: Colours | None = None
    workers: int = 0
    calibration: str | None = None
    """A file of arrays, or a kind of synthetic inputs."""
    images: int = 512
    test_images: int = 1000
    """How many of those for tests, 0 for all."""
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    output: Path | None = None
    onnx: Path | None = None
    report: Path | None = None
    seed: int = 0
    trainable: bool = False
    """Whether what is written is to be trained."""


@dataclass(frozen=True, eq=False)
class _Material:
    """What ranges are found on, and what comes of it is measured on."""

    calibration: Examples | None
    evaluation: Examples | None = None
    test: Source | None = None
    data: ChosenData | None = None
    facts: DataFacts | None = None


def run(request: Request) -> Answer:
    # What can be found wrong at once is, before minutes of loading.
    check_file(request.output)
    check_file(request.onnx)
    check_file(request.report)
    if request.report is not None and request.report.suffix != ".json":
        raise InputError(f"this report is .json, not '{request.report.name}'")
    check_different(request.model, request.output, request.onnx, request.report)
    load_pt2e()
    if request.onnx is not None:
        check_onnx_packages()
    loaded, material = _loaded(request)
    if request.onnx is not None and not has_fake_rounding(loaded.module):
        check_onnx(loaded.module)
    path = request.output or suffixed(loaded.beside, "-trainable.pt2" if request.trainable else "-int8.pt2")
    check_file(path)
    done = quantize_as_asked(
        loaded.module, loaded.example_inputs, request.options, material.calibration, material.evaluation,
        images=request.images, seed=request.seed,
    )  # fmt: skip
    done = replace(done, report=replace(done.report, title=loaded.name), data=material.facts or loaded.data)
    found = _compared(loaded, done, material)
    files = {"model": str(path)}
    with stage("writing"):
        if request.trainable:
            save_program(done.trainable(), loaded.example_inputs, path, data=done.data)
        else:
            done.save(path)
        if request.onnx is not None:
            export_onnx(done.module, loaded.example_inputs, request.onnx)
            files["onnx"] = str(request.onnx)
        if request.report is not None:
            write_text(request.report, done.report.to_json())
            files["report"] = str(request.report)
    told = {"report": done.report.to_dict(), "accuracy": _as_json(found), "files": files}
    return Answer(told, lambda console: show(console, done.report, found, files))


def _loaded(request: Request) -> tuple[LoadedModel, _Material]:
    """The model, and inputs for it. Raises InputError if there are none and it has no ranges, or two kinds of them."""
    named = request.data is not None or request.dataset is not None
    if request.calibration is not None and named:
        raise InputError("--calibration was given, and --data or --dataset; ranges are found on one of them")
    if request.calibration is not None or _arrays(request) is not None:
        return _with_arrays(request)
    if named:
        return _with_data(request)
    loaded = load_model(request.model, request.inputs, request.seed, weights=request.weights)
    if not has_fake_rounding(loaded.module):
        raise InputError(
            "ranges are found on inputs as the model was trained on: name some with --data or --dataset; where there are none,"
            " --calibration synthetic makes some"
        )
    return loaded, _Material(None)


def _arrays(request: Request) -> str | None:
    """The file of inputs that data are, if they are one."""
    return request.data if request.dataset is None and (request.data or "").endswith(_ARRAYS) else None


def _with_arrays(request: Request) -> tuple[LoadedModel, _Material]:
    name = request.calibration or _arrays(request)
    assert name is not None
    given = name if name in KINDS else inputs_in_file(name)
    return load_model(request.model, request.inputs, request.seed, weights=request.weights), _Material(given)


def _with_data(request: Request) -> tuple[LoadedModel, _Material]:
    """A file knows what was held back for its tests; a network by name has to know for how many classes it is."""
    wanted = Wanted(request.dataset, request.data, request.test_share, request.colours, trained=True)
    fit: str | Fit | None = None
    if not Path(request.model).is_file():
        fit = open_data(wanted).fit(request.inputs)
    loaded = load_model(request.model, request.inputs, request.seed, dataset=fit, weights=request.weights)
    if is_own(wanted.dataset, wanted.data) and wanted.test_share is None and loaded.data is not None:
        wanted = replace(wanted, test_share=loaded.data.test_share or None)
    data, taker = open_data(wanted), Taker.of(loaded)
    training, tests = data.load("train", taker), data.load("test", taker)
    calibration = None if has_fake_rounding(loaded.module) else _training(training, request)
    test = source_of(tests, Way(_BATCH, _limit(tests, request.test_images), workers=request.workers), _CPU)
    evaluation = [dict(batch.named) or batch.inputs for batch in test.plain()]
    facts = data.facts(training) if data.own else loaded.data
    return loaded, _Material(calibration, evaluation, test, data, facts)


def _training(data: Data, request: Request) -> list[Any]:
    """Inputs of some of what was trained on, in an order of the seed, unchanged."""
    count = _limit(data, request.images)
    way = Way(min(_BATCH, count) or _BATCH, 0, seed=request.seed, workers=request.workers)
    source = source_of(data, way, _CPU)
    steps = min(source.steps, math.ceil((count or len(source)) / way.size))
    return [dict(batch.named) or batch.inputs for batch in source.training(0, 0, steps)]


def _limit(data: Data, most: int) -> int:
    """How many items are taken; 0 for all, as of a loader, whose batches only it can count."""
    if isinstance(data, torch.utils.data.DataLoader):
        return 0
    length = len(data)  # type: ignore[arg-type]
    return min(most, length) if most else length


def _compared(loaded: LoadedModel, done: Quantized, material: _Material) -> Compared | None:
    """Float and integers on the items for tests, by the data's own measure."""
    if material.test is None or material.data is None:
        return None

    def run(calls: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> list[Any]:
        with torch.inference_mode():
            return [done.module(*args, **kwargs) for args, kwargs in calls]

    first = next((leaf for leaf in loaded.example_inputs if isinstance(leaf, torch.Tensor) and leaf.dim()), None)
    sizes = loaded.module.meta["input_sizes"]
    items = _BATCH if sizes.free() or first is None else len(first)
    return compared(loaded.module.eval(), Compiled(items, run), material.test, material.data.measure)  # type: ignore[arg-type]


def _as_json(found: Compared | None) -> dict[str, Any] | None:
    if found is None:
        return None
    told = asdict(found)
    return {**told, "float": told.pop("pytorch"), "quantized": told.pop("compiled")}


def show(console: Console, report: QuantizationReport, found: Compared | None, files: Mapping[str, str]) -> None:
    """Layers of most noise, layers in float, and what it costs."""
    noisy = sorted(
        (layer.decibels, layer.name, layer.operator) for layer in report.layers if layer.decibels is not None
    )
    made = table("layer", "operator", "dB", right=("dB",), title="Most noise of their own")
    for decibels, name, operator in noisy[:_SHOWN]:
        made.add_row(name, operator, f"{decibels:.1f}")
    console.print(made)
    lines = [f"in float: {layer.name} ({layer.operator}): {layer.reason}" for layer in report.floats]
    lines.append(report.summary)
    if found is not None and found.pytorch is not None and found.compiled is not None:
        one, other = found.pytorch.metric, found.compiled.metric
        shares = found.metric == "accuracy"
        values = (f"{each:.1%}" if shares else f"{each:.4g}" for each in (one, other))
        lines.append(
            f"{found.metric} on {found.items} items for tests: {next(values)} in float, {next(values)} in 8 bits"
        )
    lines.append(f"weights: {size(report.bytes_before)} before, {size(report.bytes_after)} after; ranges found on"
                 f" {report.calibration}")  # fmt: skip
    says(*lines, files_line(files))(console)

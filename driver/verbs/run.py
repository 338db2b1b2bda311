"""``reconvene run``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...backends.built import load_bundle
from ...backends.bundles.execution import run_bundle
from ...backends.bundles.read import open_bundle
from ...backends.signature import Signature, TensorSpec
from ...backends.state import described
from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.data.facts import Colours, DataFacts
from .. import api
from ..answer import Answer, files_line, says
from ..arrays import Given, array_names, check_array_file, in_order, read_given, write_arrays
from ..models import load_model
from ..outputs import check_file
from ..own_data import parse_colours
from ..pictures import Pictures, labels_of
from ..wording import kept
from .bundles import board_facts, check_threads_of, checked_place, emulator_for, example_inputs_of, limits, lost_lines
from .signatures import signed_bundle

__all__ = ["Request", "parse_colours", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene run`` is told; see its help."""

    model: str
    """A model, or the folder of a bundle."""
    files: tuple[str, ...] = ()
    data: Path | None = None
    on: str | None = None
    key_file: Path | None = None
    public_key: str | None = None
    timeout: int = 600
    """Seconds."""
    threads: int | None = None
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    colours: Colours | None = None
    """What image files are normalised with; None: as the model says."""
    output: Path | None = None
    seed: int = 0

    def pictures(self) -> Pictures | None:
        """The image files. Raises InputError where other things are among them."""
        found = Pictures.among(self.files, self.colours)
        if found is not None and self.data is not None:
            raise InputError("inputs were given as images and with --data; give one of the two")
        return found

    def given(self) -> list[Given]:
        """The arrays. Raises InputError where they are given in two ways, or cannot be read."""
        if self.files and self.data is not None:
            raise InputError("inputs were given as files and with --data; give one of the two")
        if self.inputs and (self.files or self.data is not None):
            raise InputError("inputs were given as arrays and as shapes; leave out --input, arrays have shapes")
        return read_given([str(self.data)] if self.data is not None else self.files)


@dataclass(frozen=True)
class Ran:
    """What was computed, and where."""

    outputs: Sequence[torch.Tensor]
    specs: Sequence[TensorSpec]
    signature: Signature
    facts: Mapping[str, Any]
    """For the answer: ``state``, and of a board its name and those that were lost."""
    data: DataFacts | None = None
    """What the model was trained on."""


def run(request: Request) -> Answer:
    signed = signed_bundle(request.model, request.public_key)
    check_file(request.output)
    check_array_file(request.output)
    pictures = request.pictures()
    given = request.given() if pictures is None else pictures
    is_bundle = request.on is not None or Path(request.model).is_dir()
    ran = _run_bundle(request, given, signed) if is_bundle else _run_model(request, given)
    labels = [] if pictures is None else labels_of(pictures.files, ran.outputs, ran.data)
    return _answer(ran, request.output, labels)


def _run_model(request: Request, given: Sequence[Given] | Pictures) -> Ran:
    arrays = () if isinstance(given, Pictures) else given
    loaded = load_model(request.model, request.inputs, request.seed, given=arrays, weights=request.weights)
    built = api.compile(loaded.module, loaded.example_inputs, "host", threads=request.threads or 1)
    check_array_file(request.output, len(built.outputs))
    example = built.signature.tensors(loaded.example_inputs, {})
    used = _inputs(given, built.inputs, loaded.data) or example
    with stage("running"):
        outputs = built.run_tensors(used)
    return Ran(outputs, built.outputs, built.signature, {"state": described(built.state)}, loaded.data)


def _inputs(
    given: Sequence[Given] | Pictures, specs: Sequence[TensorSpec], data: DataFacts | None
) -> tuple[torch.Tensor, ...]:
    """What was given, in the order of the model's inputs; nothing if nothing was."""
    if isinstance(given, Pictures):
        return given.inputs(specs, data)
    return in_order(given, [spec.name for spec in specs]) if given else ()


def _run_bundle(request: Request, given: Sequence[Given] | Pictures, manifest_sha256: str | None) -> Ran:
    """`manifest_sha256` is for `open_bundle`."""
    bundle = open_bundle(request.model, manifest_sha256=manifest_sha256)
    check_array_file(request.output, len(bundle.outputs))
    check_threads_of(bundle, request.threads)
    inputs = _inputs(given, bundle.inputs, bundle.data) or example_inputs_of(bundle, request.seed)
    facts = {"state": described(bundle.state)}
    if request.on is not None and request.on != "qemu":
        from ...backends.boards.jobs import run_on_board

        place = checked_place(request.on, request.key_file)
        with stage(f"running on {request.on}"):
            done = run_on_board(bundle, inputs, place, request.threads, limits(request.timeout))
        return Ran(done.value, bundle.outputs, bundle.signature, {**facts, **board_facts(done)}, bundle.data)
    emulator = emulator_for(bundle, request.on)
    with stage("running"):
        if bundle.runtime == "python" and emulator is None:
            built = load_bundle(request.model, manifest_sha256=manifest_sha256)
            outputs = replace(built, threads=request.threads or built.threads).run_tensors(inputs)
        else:
            outputs = run_bundle(bundle, inputs, emulator, request.threads)
    return Ran(outputs, bundle.outputs, bundle.signature, facts, bundle.data)


def _answer(ran: Ran, output: Path | None, labels: Sequence[Mapping[str, Any]]) -> Answer:
    outputs, constants = ran.outputs, ran.signature.constants()
    names = array_names(ran.specs)
    written = {}
    if output is not None:
        write_arrays(output, names, outputs)
        written["outputs"] = str(output)
    facts = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), **extremes(value)}
        for name, value in zip(names, outputs, strict=True)
    ]
    said = [f"{entry['file']}: {', '.join(map(_likely, entry['classes']))}" for entry in labels]
    lines = [*said, *(f"{titled(name)}: {summary(value)}" for name, value in zip(names, outputs, strict=True))]
    lines += [f"{name}: {value!r}, whatever the inputs are" for name, value in constants.items()]
    found = {
        "outputs": facts,
        "labels": list(labels),
        "constants": {name: plain(value) for name, value in constants.items()},
    }
    shown = [*lost_lines(ran.facts), *lines, *kept(ran.facts["state"]), *([files_line(written)] if written else [])]
    return Answer({**ran.facts, **found, "files": written}, says(*shown))


def _likely(entry: Mapping[str, Any]) -> str:
    return f"{entry['name']} {entry['share']:.1%}"


def titled(name: str) -> str:
    """``output 0`` where an output has no name."""
    return re.sub(r"^output_(\d+)$", r"output \1", name)


def summary(value: torch.Tensor) -> str:
    """``float32 1x10, from -0.146 to 0.246, mean 0.0674``."""
    shape = "x".join(str(size) for size in value.shape) or "scalar"
    numbers = ""
    if value.numel():
        low, high, mean = extent(value)
        numbers = f", from {low:.3g} to {high:.3g}, mean {mean:.3g}"
    return f"{str(value.dtype).removeprefix('torch.')} {shape}{numbers}"


def extremes(value: torch.Tensor) -> dict[str, Any]:
    if not value.numel():
        return {}
    return dict(zip(("minimum", "maximum", "mean"), map(plain, extent(value)), strict=True))


def extent(value: torch.Tensor) -> tuple[float, float, float]:
    """The least number, the largest, and their mean."""
    numbers = value.to(torch.float64)
    return numbers.min().item(), numbers.max().item(), numbers.mean().item()


def plain(value: Any) -> Any:
    """A value as JSON has it, which has no infinity and no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

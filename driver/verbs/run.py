"""``reconvene run``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...backends.signature import Signature, TensorSpec
from ...backends.state import described
from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from .. import api
from ..answer import Answer, files_line, says
from ..arrays import array_names, check_array_file, in_order, read_given, write_arrays
from ..models import load_model
from ..outputs import check_file
from ..wording import kept

__all__ = ["run"]


def run(
    model: str,
    files: Sequence[str],
    data: Path | None,
    on: str | None,
    inputs: Sequence[str],
    threads: int | None,
    output: Path | None,
    seed: int,
    timeout: int = 600,
    key_file: Path | None = None,
    public_key: str | None = None,
) -> Answer:
    from .bundles import lost_lines, run_bundle
    from .sign import signed_bundle

    signed = signed_bundle(model, public_key)
    check_file(output)
    check_array_file(output)
    if files and data is not None:
        raise InputError("inputs were given as files and with --data; give one of the two")
    if inputs and (files or data is not None):
        raise InputError("inputs were given as arrays and as shapes; leave out --input, arrays have shapes")
    given = read_given([str(data)] if data is not None else files)
    where: dict[str, Any] = {}
    if on is not None or Path(model).is_dir():
        bundle, outputs, where = run_bundle(model, given, on, threads, seed, timeout, output, key_file, signed)
        signature, specs = bundle.signature, bundle.outputs
    else:
        loaded = load_model(model, inputs, seed, given=given)
        built = api.compile(loaded.module, loaded.example_inputs, "host", threads=threads or 1)
        signature, specs = built.signature, built.outputs
        where = {"state": described(built.state)}
        check_array_file(output, len(specs))
        names = [spec.name for spec in built.inputs]
        used = in_order(given, names) if given else signature.tensors(loaded.example_inputs, {})
        with stage("running"):
            outputs = list(built.run_tensors(used))
    return answer_of(outputs, specs, signature, where, output, lost_lines(where))


def answer_of(
    outputs: Sequence[torch.Tensor],
    specs: Sequence[TensorSpec],
    signature: Signature,
    where: Mapping[str, Any],
    output: Path | None,
    lost: Sequence[str],
) -> Answer:
    names = array_names(specs)
    written = {}
    if output is not None:
        write_arrays(output, names, outputs)
        written["outputs"] = str(output)
    facts = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), **extremes(value)}
        for name, value in zip(names, outputs, strict=True)
    ]
    constants = signature.constants()
    lines = [f"{titled(name)}: {summary(value)}" for name, value in zip(names, outputs, strict=True)]
    lines += [f"{name}: {value!r}, whatever the inputs are" for name, value in constants.items()]
    found = {"outputs": facts, "constants": {name: plain(value) for name, value in constants.items()}}
    shown = [*lost, *lines, *kept(where["state"]), *([files_line(written)] if written else [])]
    return Answer({**where, **found, "files": written}, says(*shown))


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

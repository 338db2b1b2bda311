"""`reconvene.quantize`: a network in 8-bit integers, and what that costs."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils.data import DataLoader

from ..frontend.arguments import Inputs
from ..frontend.base.arrays import as_tensors
from ..frontend.base.errors import InputError
from ..frontend.base.turns import tracing_in_turn
from ..frontend.capture import Model
from ..frontend.data.facts import DataFacts, facts_of
from ..frontend.graph_module import CapturedModule
from ..frontend.program_file import save_program
from ..frontend.quantized_operators import check_float, has_fake_rounding
from ..passes.quantization.noise import network_noise
from ..passes.quantization.quantize import Options, QuantizedLayer
from ..passes.quantization.quantize import quantize as quantize_module
from ..passes.quantization.training import integer_layers, rounded, trainable
from ..passes.recovery.calibration import Calibration
from .api import captured, title_of
from .calibrating import Examples, calibration_of
from .ignored import Ignored, checked_patterns, patterns_of
from .reports.quantization import QuantizationReport
from .reports.report import environment, installed

__all__ = ["Quantized", "quantize", "quantize_as_asked"]


@dataclass(frozen=True)
class Quantized:
    """A network in 8-bit integers. Printed, it is the summary of its report."""

    module: fx.GraphModule = field(repr=False)
    """Float operators between ``torch.ops.quantized_decomposed.quantize_per_tensor`` and ``dequantize_per_tensor``, on weights
    that are int8 and go through ``dequantize_per_channel``. It runs in PyTorch."""
    report: QuantizationReport = field(repr=False)
    """What is rounded, what stayed float and why, and what it costs; ``to_json()``."""
    example_inputs: tuple[Any, ...] = field(repr=False)
    """Of one call."""
    data: DataFacts | None = field(default=None, repr=False)
    """What the network was trained on, if that is known; files keep it."""

    def __repr__(self) -> str:
        return f"Quantized({self.report.summary})"

    def trainable(self) -> fx.GraphModule:
        """The network as it can be trained (quantisation-aware training): weights in float, rounded in every step, with
        gradients that pass. `reconvene.quantize` of what was trained gives integers again.
        """
        assert isinstance(self.module, CapturedModule)
        return trainable(self.module)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the module as a ``.pt2`` file; `reconvene.capture` and ``torch.export.load`` read it.

        Raises:
            InputError: the file cannot be written. An older file of that name is then untouched.
        """
        save_program(self.module, self.example_inputs, path, data=self.data or facts_of(self.module))


def quantize(
    model: Model,
    calibration: Examples | None = None,
    *,
    example_inputs: Inputs | None = None,
    observer: str = "histogram",
    equalize: bool = False,
    correct_bias: bool = False,
    float_layers: Ignored = (),
    float_worst: int = 0,
    float_below: float | None = None,
    round_outputs: bool = False,
    images: int = 512,
    evaluation: Examples | None = None,
    seed: int = 0,
    dynamic_shapes: Any = None,
) -> Quantized:
    """Quantises a trained network to 8-bit integers, without training. It is the last step before compiling: prune first.

    Values are rounded per tensor and weights per channel; what is rounded, and what stays float, is in
    `reconvene.passes.quantization.rounding`. The model itself is left as it was.

    Args:
        model: as for `reconvene.capture`; most often `Result.module` of a pruning, or the path of a ``.pt2``.
        calibration: inputs as the network was trained on, on which ranges of values are found: a batch, the inputs of one
            call as a tuple, a list of these, or a ``DataLoader`` (targets behind the inputs are left out). Or
            a kind of synthetic inputs, ``synthetic``, ``matched``, ``leaves`` or ``noise``, for where there are none: what
            they cost is then measured on such inputs, too, and says little of real ones. None for a network that was trained
            as `Quantized.trainable` gave it, whose ranges are known.
        example_inputs: as for `reconvene.capture`; for a module without them the first calibration inputs are taken.
        observer: how a range is found: ``min-max``, ``histogram`` (of least squared error), or ``percentile``.
        equalize: give the weights of layers with a ReLU between equal ranges first (cross-layer equalisation).
        correct_bias: take the mean error of every channel out of the biases.
        float_layers: a pattern (``fnmatch``) of layers or of their weights that stay float, or a module of `model`; or several.
        float_worst: how many layers of the lowest signal-to-noise ratio stay float beside these.
        float_below: layers of a lower ratio than this stay float, in dB.
        round_outputs: whether what the network gives is rounded as well, so that compiled code may give its codes
            (``compile(..., codes="outputs")``).
        images: how many inputs of `calibration` are looked at, at most.
        evaluation: inputs of the same forms that ratios and agreement are measured on, all of them; those of the calibration
            if there are none.
        seed: of synthetic inputs.
        dynamic_shapes: as for `reconvene.capture`.

    Raises:
        InputError: the model or an option cannot be used, torchao is missing, inputs do not fit or there are none, a value is
            not finite on them, or nothing can be quantised.
    """
    options = Options(
        observer,
        equalize,
        correct_bias,
        checked_patterns(patterns_of(model, float_layers), "float_layers are"),
        float_worst,
        float_below,
        round_outputs,
    )
    inputs = _examples(model, calibration, example_inputs)
    return quantize_as_asked(
        model, inputs, options, calibration, evaluation, images=images, seed=seed, dynamic_shapes=dynamic_shapes
    )


@tracing_in_turn
def quantize_as_asked(
    model: Model,
    example_inputs: Inputs | None,
    options: Options,
    calibration: Examples | None,
    evaluation: Examples | None = None,
    *,
    images: int = 512,
    seed: int = 0,
    dynamic_shapes: Any = None,
) -> Quantized:
    """`quantize` with options that were checked."""
    started = time.perf_counter()
    module, inputs = captured(model, example_inputs, dynamic_shapes)
    if has_fake_rounding(module):
        return _after_training(module, inputs, options, title_of(model), calibration, evaluation)
    check_float(module, "quantise once, as the last step before compiling")
    if calibration is None:
        raise InputError(
            "ranges are found on calibration inputs, and there are none; give some as the model was trained on"
        )
    found = calibration_of(module, calibration, inputs, images, seed)
    judged = found if evaluation is None else _judged(module, evaluation, inputs, seed)
    done = quantize_module(module, found.calls, options, judged.calls)
    report = QuantizationReport(
        title=title_of(model),
        options={"action": "quantize", **dataclasses.asdict(options), "float_layers": list(options.float_layers)},
        network=done.network,
        layers=done.layers,
        floats=done.floats,
        operators=done.operators,
        bytes_before=_bytes(module),
        bytes_after=_bytes(done.module),
        equalized=done.equalized,
        corrected=done.corrected,
        calibration=found.description,
        evaluation=_told(judged, evaluation is None),
        seconds=time.perf_counter() - started,
        environment={**environment(), "torchao": installed("torchao")},
    )
    return Quantized(done.module, report, inputs)


def _after_training(
    module: CapturedModule,
    inputs: tuple[Any, ...],
    options: Options,
    title: str,
    calibration: Examples | None,
    evaluation: Examples | None,
) -> Quantized:
    """A network of `Quantized.trainable` in integers; the comparison is with what was trained."""
    if options != Options():
        raise InputError("the network was trained in 8 bits: its ranges and layers are settled; leave the options out")
    started = time.perf_counter()
    judged = Calibration((inputs,), "the example inputs")
    if evaluation is not None:
        judged = _judged(module, evaluation, inputs)
    elif calibration is not None:
        judged = calibration_of(module, calibration, inputs, None)
    made = rounded(module)
    layers = tuple(QuantizedLayer(name, operator, None) for name, operator in integer_layers(made))
    report = QuantizationReport(
        title=title,
        options={"action": "quantize", "trained": True},
        network=network_noise(module, made, judged.calls),
        layers=layers,
        floats=(),
        operators={},
        bytes_before=_bytes(module),
        bytes_after=_bytes(made),
        equalized=0,
        corrected=0,
        calibration="what the network was trained with",
        evaluation=judged.description,
        seconds=time.perf_counter() - started,
        environment={**environment(), "torchao": installed("torchao")},
    )
    return Quantized(made, report, inputs)


def _judged(module: CapturedModule, evaluation: Examples, inputs: tuple[Any, ...], seed: int = 0) -> Calibration:
    """All inputs that somebody gave to measure on."""
    return calibration_of(module, evaluation, inputs, None, seed, "evaluation")


def _examples(model: Model, calibration: Examples | None, example_inputs: Inputs | None) -> Inputs | None:
    """Example inputs for a module that brings none: the first of the calibration, where these are plain tensors."""
    if example_inputs is not None or not isinstance(model, nn.Module) or isinstance(model, CapturedModule):
        return example_inputs
    first: Any = calibration
    if isinstance(calibration, list | DataLoader):
        first = next(iter(calibration), None)
        if first is None:
            raise InputError("there are no calibration inputs: what was given is empty; give at least one batch")
        if isinstance(first, list | tuple):
            first = first[:1] if isinstance(calibration, DataLoader) else tuple(first)
    first = as_tensors(first)
    leaves = list(first) if isinstance(first, list | tuple) else [first]
    if leaves and all(isinstance(each, torch.Tensor) and each.dim() and len(each) for each in leaves):
        return tuple(each[:1] for each in leaves)
    return None


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _told(calibration: Calibration, same: bool) -> str:
    return "the calibration inputs" if same else calibration.description

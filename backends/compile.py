"""Compiling a module for a target."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import tvm
from torch import fx, nn
from tvm import relax

from ..frontend.base.arrays import as_tensors
from ..frontend.base.dump import on_trial
from ..frontend.base.errors import CaptureError, CheckError, InputError, ReconveneError
from ..frontend.base.progress import stage
from ..frontend.base.turns import tracing_in_turn
from ..frontend.base.warned import warn_caller
from ..frontend.quantized_operators import is_quantized
from ..passes.integers.ends import Ends
from .artifact import Artifact
from .boards.place import Place
from .built import Built
from .choosing.choice import WINOGRAD, Winograd
from .choosing.general_code import GeneralCode, GeneralCodeWarning, told
from .choosing.layer_choices import LayerChoice
from .code.library import build_library
from .coded_ends import coded_ends, with_scales
from .comparison import difference
from .faster_in_float import faster_in_float
from .graph.precision import ASKED
from .half_range import outside_half
from .importing.importer import Imported, import_module
from .importing.unsupported import UnsupportedError, culprit, reason_of
from .judges import cost_unit, kernel_cost, make_tuner, winograd_for
from .lowering.calls import lower
from .machines.targets import Target, find_target, targets
from .machines.threads import available_threads, check_threads
from .pipeline import Asked, scheduled_module
from .signature import TensorSpec, checked_inputs

__all__ = ["compile", "imported_module"]

_MOVED_CODES = 0.04
"""What outputs of a quantised model may be off by where a rounding in float32 moves codes: each is a 255th of its range."""


@tracing_in_turn
def compile(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    target: str | Target = "host",
    *,
    threads: int | None = 1,
    pipeline: Literal["reconvene", "tvm-default"] = "reconvene",
    winograd: Winograd = "auto",
    choose: Literal["time", "cycles", "model", "default"] = "model",
    on: str | Place | None = None,
    cache: bool = True,
    tune: int = 0,
    dtype: Literal["float32", "float16", "int8"] = "float32",
    codes: Ends | None = None,
    check: bool = True,
    check_inputs: Sequence[tuple[Any, ...]] = (),
) -> Built:
    """Compiles `module`, in eval mode and for the shapes of `example_inputs`. Warns (`GeneralCodeWarning`) where more than a
    tenth of its time is general code, by the cost model: operators without a kernel of ours (`Built.general`).

    Args:
        target: a preset's name, a ``.toml`` file, or a Target.
        threads: what the model runs with; None for as many as there can be.
        pipeline: ``reconvene``, or ``tvm-default`` for TVM without schedules of ours, as a baseline.
        winograd: ``auto`` uses Winograd's algorithm for 3x3 convolutions where `choose` finds it faster, ``off``
            nowhere, ``2x2`` or ``4x4`` wherever that tile applies.
        choose: how each layer's kernel is found: ``time`` runs candidates on this machine and remembers the
            result in the user's cache folder (a foreign target falls back to the model), ``cycles`` takes what
            llvm-mca models of the emulated code (slow, and remembered), ``model`` counts cycles by a formula, ``default``
            takes the direct kernel.
        on: with ``time``, the board that runs the candidates: ``rpc://HOST:PORT`` or ``tracker://HOST:PORT/KEY``; one that
            has a key as a `boards.place.Place` with it.
        cache: whether to look for the compiled code in the user's cache folder, and to keep it there. Weights are no
            part of it: a network that was trained on finds the code that it was compiled to before.
        tune: how many schedules MetaSchedule may try for each kernel that has none of ours (`Built.foreign`); one is
            used where it is faster than our general one, by this machine's clock, by that of the board that `on` names,
            or with ``choose="cycles"`` by modelled cycles. Results are kept in the user's cache folder.
        dtype: ``float16``: layers of float32 are computed and their weights kept in half precision, where the target's vectors
            are. Up to 144 products are added in float16, the rest of a sum in float32; inputs, outputs and what has no
            kernel of ours keep their types. Layers whose values are above 65504, or all below 6e-5,
            are refused. Layers of a quantised model multiply codes where that takes fewer cycles by the cost models; ``int8``:
            all of them do, and outputs are the same bits on every machine.
        codes: at which ends of a quantised model the code takes and gives 8-bit codes in place of the float32 that they stand
            for: ``inputs``, ``outputs`` or ``both``. Example inputs are the model's own; `TensorSpec.codes` says what codes
            stand for.
        check: whether to run the code on `example_inputs` and on inputs of other kinds, and to compare its outputs with those
            of `module` (`backends.comparison`). What is compiled for another machine is compiled for this one, too, to be run.
        check_inputs: further inputs to compare on, each a tuple of the shapes and types of `example_inputs`.

    Raises:
        InputError: the target is unknown, an option is not one of its values, an end of the model has no codes, or tuning is
            asked for where the code does not run.
        CaptureError: the model cannot be exported, or TVM has no importer for one of its operators.
        CheckError: the code does not compute what the model does.
    """
    chosen = find_target(target)
    if dtype == "float16" and is_quantized(module):  # No target would do.
        raise _quantized_in_half(module)
    options = _Options(threads, pipeline, winograd, choose, on, cache, tune, dtype)
    options.check(chosen)
    inputs = as_tensors(tuple(example_inputs))
    check_inputs = [as_tensors(tuple(given)) for given in check_inputs]
    if check_inputs and not check:
        raise InputError("inputs to check on were given, and no check; leave out check_inputs or check=False")
    ends = None
    if codes is not None:
        ends = coded_ends(module, inputs, codes, pipeline, name_of(module))
        module, inputs, check_inputs = ends.module, ends.coded(inputs), [ends.coded(given) for given in check_inputs]
    imported = imported_module(module, inputs, integers=pipeline == "reconvene")
    imported = _with_types(imported, module, inputs, chosen, dtype)
    for given in check_inputs:
        checked_inputs(_specs(imported)[0], imported.signature.tensors(given, {}))
    if check and dtype == "float16":
        _check_range(imported, [inputs, *check_inputs], name_of(module))
    try:
        built = Built.of(with_scales(_compiled(imported, chosen, options), ends))
    except ReconveneError:
        raise
    except Exception as error:
        raise _failure(module, imported, chosen, options, error) from error
    if check:
        here = built if chosen.runs_here else _for_this_machine(imported, options)
        _check_agreement(here, module, imported, inputs, check_inputs, dtype)
    if (slow := told(built.general)) is not None:
        warn_caller(f"{name_of(module)} for {chosen.name}: {slow}", GeneralCodeWarning)
    return built


def _with_types(imported: Imported, module: nn.Module, inputs: tuple[Any, ...], target: Target, dtype: str) -> Imported:
    """`imported`, with layers of a quantised model in the type that they are computed in."""
    if imported.integers is None:
        if dtype == "int8":
            raise InputError(
                f"{name_of(module)} is not quantised, so it has no codes to compute on; quantise it first"
                " (reconvene.quantize, reconvene quantize)"
            )
        return imported
    if dtype == "float16":
        raise _quantized_in_half(module)
    floats = faster_in_float(imported, target.machine) if dtype == "float32" else frozenset()
    return imported_module(module, inputs, floats=floats) if floats else imported


def _quantized_in_half(module: nn.Module) -> InputError:
    return InputError(
        f"{name_of(module)} is quantised, and computes on codes; leave out dtype='float16', or compile the network that it"
        " was quantised from"
    )


@dataclass(frozen=True)
class _Options:
    """Those of `compile` that decide how a graph becomes code."""

    threads: int | None
    pipeline: str
    winograd: Winograd
    choose: str
    on: str | Place | None
    cache: bool
    tune: int
    dtype: str

    @property
    def half(self) -> bool:
        """Whether layers of float32 are computed in float16."""
        return self.dtype == "float16"

    def check(self, target: Target) -> None:
        """Raises InputError if one is not among its values, or of no meaning beside another or for this target."""
        if self.pipeline not in ("reconvene", "tvm-default"):
            raise InputError(f"unknown pipeline '{self.pipeline}'; choose reconvene or tvm-default")
        if self.winograd not in WINOGRAD:
            raise InputError(f"unknown winograd setting '{self.winograd}'; choose {', '.join(WINOGRAD)}")
        if self.choose not in ("time", "cycles", "model", "default"):
            raise InputError(f"unknown way to choose '{self.choose}'; choose time, cycles, model or default")
        _check_type(self.dtype, target, self.pipeline)
        if self.on is not None and self.choose != "time":
            raise InputError(f"a board ('{self.on}') chooses by time; say choose='time', --choose time")
        _check_tuning(self.tune, target, self.pipeline, self.choose, self.on)
        if self.threads is not None:
            check_threads(self.threads, here=target.runs_here)


def _compiled(imported: Imported, target: Target, options: _Options) -> Artifact:
    llvm = tvm.target.Target(target.llvm())
    threads = options.threads or available_threads()
    scheduled = imported.module
    foreign: tuple[str, ...] = ()
    layers: tuple[LayerChoice, ...] = ()
    general: tuple[GeneralCode, ...] = ()
    tuner = make_tuner(options.tune, target, llvm, threads, options.choose, options.on) if options.tune else None
    if options.pipeline == "reconvene":
        cost, choices = kernel_cost(options.choose, target, llvm, threads, options.on)
        made = scheduled_module(
            imported.module,
            target.machine,
            llvm,
            Asked(winograd_for(target, options.winograd), cost, choices, "float16" if options.half else "float32"),
            tune=tuner,
            weights=imported.weights,
            origins=imported.origins,
        )
        scheduled, foreign, layers, general = made.module, made.foreign, made.layers, made.general
    lowered = lower(scheduled, llvm, 64 if target.lanes > 1 else 8, len(imported.state))
    library = build_library(lowered.module, llvm, target, cached=options.cache)
    inputs, outputs = _specs(imported)
    return Artifact(
        target,
        inputs,
        outputs,
        imported.signature,
        options.threads,
        options.pipeline,
        library,
        lowered.weights,
        lowered.arena,
        lowered.module,
        foreign,
        tuner.results if tuner is not None else (),
        imported.state,
        layers,
        cost_unit(options.choose, target, options.on),
        () if imported.integers is None else imported.integers.floats,
        general,
    )


def _failure(
    module: nn.Module, imported: Imported, target: Target, options: _Options, error: Exception
) -> CaptureError:
    """Who is to blame: the operator that does not compile by itself either."""
    plain = replace(options, choose="default", on=None, tune=0)
    with stage("looking for the operator that cannot be compiled"), on_trial():
        search = culprit(
            imported.decomposed, lambda part, inputs: _compiled(import_module(part, inputs), target, plain)
        )
    name = name_of(module)
    if search.node is None:
        return CaptureError(
            f"cannot compile {name}: TVM fails on the graph as a whole ({type(error).__name__}), and {search.finding};"
            " please report it, and compile parts of the model meanwhile"
        )
    return CaptureError(f"cannot compile {name}: {UnsupportedError(search.node, imported.exported, *reason_of(error))}")


def _check_agreement(
    built: Built,
    module: nn.Module,
    imported: Imported,
    inputs: tuple[Any, ...],
    own: Sequence[tuple[Any, ...]],
    dtype: str,
) -> None:
    tolerance = None
    if imported.integers is not None:  # What codes become is defined by it, bit by bit.
        module, tolerance = imported.integers.module, _MOVED_CODES if imported.integers.floats else 0.0
    graph = module if isinstance(module, fx.GraphModule) else imported.exported.module(check_guards=False)
    with stage("comparing with PyTorch"), _eval_mode(module):
        trial = built.clone() if built.state else built
        within = (lambda given: outside_half(imported.exported, given) is None) if dtype == "float16" else None
        reset = trial.reset if built.state else None
        reason = difference(trial.run, module, inputs, own, graph, reset=reset, within=within, tolerance=tolerance)
    if reason:
        raise CheckError(
            f"the code for {name_of(module)} does not compute what the model does: {reason}; please report it, and"
            " compile without the check (check=False, --no-check) only if you know why"
        )


def _for_this_machine(imported: Imported, options: _Options) -> Built:
    """What this machine can run of a program that was compiled for another: all that comes before kernels is the same."""
    return Built.of(
        _compiled(imported, find_target("host"), replace(options, threads=1, choose="default", on=None, tune=0))
    )


def _check_type(dtype: str, target: Target, pipeline: str) -> None:
    if dtype not in ASKED:
        raise InputError(f"a model cannot be computed in '{dtype}'; choose {', '.join(ASKED[:-1])} or {ASKED[-1]}")
    if dtype == "int8" and pipeline != "reconvene":
        raise InputError(f"the pipeline '{pipeline}' computes in float32; leave out dtype='{dtype}'")
    if dtype != "float16":
        return
    if not target.has_half_floats:
        able = ", ".join(preset.name for preset in targets() if preset.has_half_floats)
        raise InputError(
            f"'{target.name}' ({target.cpu}) does not compute in {dtype}; leave dtype out, or choose a target that does:"
            f" {able}, or your own with a core of ARMv8.2"
        )
    if pipeline != "reconvene":
        raise InputError(f"the pipeline '{pipeline}' computes in the model's own types; leave out dtype='{dtype}'")


def _check_tuning(trials: int, target: Target, pipeline: str, choose: str, on: str | Place | None) -> None:
    if trials < 0:
        raise InputError(f"tune is {trials}; give the number of trials for each kernel, such as 64, or 0 for none")
    if trials and not target.runs_here and on is None and choose != "cycles":
        raise InputError(
            f"tuning measures schedules on this machine, and code for '{target.name}' ({target.triple}) does not run here;"
            " name a board that chooses by time (on='rpc://HOST:PORT', --choose time --on), or take modelled cycles"
            " (choose='cycles', --choose cycles)"
        )
    if trials and pipeline != "reconvene":
        raise InputError(
            f"the pipeline '{pipeline}' is TVM's without schedules, tuned ones neither; leave out one of the two"
        )


def imported_module(
    module: nn.Module, inputs: tuple[Any, ...], *, integers: bool = True, floats: Collection[str] = ()
) -> Imported:
    """`module`, in eval mode, as Relax; with `integers`, what is quantised is computed on codes, but for layers whose weights
    `floats` names.

    Raises CaptureError if it cannot be compiled.
    """
    with _eval_mode(module), warnings.catch_warnings():
        # Export and import warn about their own internals, which nobody who compiles a model can act on.
        warnings.simplefilter("ignore")
        try:
            return import_module(module, inputs, integers=integers, floats=floats)
        except UnsupportedError as error:
            raise CaptureError(f"cannot compile {name_of(module)}: {error}") from error
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CaptureError(f"cannot compile {name_of(module)}: {reason}") from error


def _check_range(imported: Imported, calls: Sequence[tuple[Any, ...]], name: str) -> None:
    with stage("looking for values that float16 does not hold"):
        reason = next(filter(None, (outside_half(imported.exported, call) for call in calls)), None)
    if reason:
        raise CheckError(
            f"{name} cannot be computed in float16: {reason}; leave out dtype, or scale that layer's weights"
        )


def name_of(module: nn.Module) -> str:
    """What a model is called in messages; a graph has no name that its owner would know."""
    return "the model" if isinstance(module, fx.GraphModule) else type(module).__name__


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode within the block. A graph module fresh from torch.export refuses `eval()`: it keeps its own
    mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    with suppress(NotImplementedError):
        module.eval()
    try:
        yield
    finally:
        if modes[0][1]:
            with suppress(NotImplementedError):
                module.train()
        for part, training in modes:
            part.training = training


def _specs(imported: Imported) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Of the model's inputs and outputs: what it keeps comes after either."""
    function, signature = imported.module["main"], imported.signature
    result = function.ret_ty
    outputs = [result] if isinstance(result, relax.TensorType) else list(result.fields)
    inputs = [parameter.ty for parameter in function.params]
    names = signature.input_names(), signature.output_names()
    found = [tuple(map(_spec, *pair)) for pair in zip(names, (inputs, outputs), strict=True)]
    return found[0], found[1]


def _spec(name: str, kind: Any) -> TensorSpec:
    return TensorSpec(name, tuple(int(extent) for extent in kind.shape), str(kind.dtype))

"""Compiling a module for a target."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch
import tvm
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves
from tvm import relax

from ..frontend.errors import CaptureError, CheckError, InputError
from ..frontend.progress import stage
from .agreement import disagreement
from .built import Built
from .choice import WINOGRAD, Winograd
from .judges import kernel_cost, make_tuner
from .library import build_library
from .lowering import lower
from .pipeline import import_module, scheduled_module
from .signature import TensorSpec
from .targets import Target, find_target
from .threads import available_threads, use_threads

__all__ = ["compile"]


def compile(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    target: str | Target = "host",
    *,
    threads: int | None = 1,
    pipeline: Literal["reconvene", "tvm-default"] = "reconvene",
    winograd: Winograd = "auto",
    choose: Literal["time", "cycles", "model", "default"] = "model",
    on: str | None = None,
    cache: bool = True,
    tune: int = 0,
    check: bool = True,
) -> Built:
    """Compiles `module`, in eval mode and for the shapes of `example_inputs`.

    Args:
        target: a preset's name, a ``.toml`` file, or a Target.
        threads: what the model runs with; None keeps whatever TVM's pool has.
        pipeline: ``reconvene``, or ``tvm-default`` for TVM without schedules of ours, as a baseline.
        winograd: ``auto`` uses Winograd's algorithm for 3x3 convolutions where `choose` finds it faster, ``off``
            nowhere, ``2x2`` or ``4x4`` wherever that tile applies.
        choose: how each layer's kernel is found: ``time`` runs candidates on this machine and remembers the
            result in the user's cache folder (a foreign target falls back to the model), ``cycles`` takes what
            llvm-mca models of the emulated code (slow, and remembered), ``model`` counts cycles by a formula, ``default``
            takes the direct kernel.
        on: with ``time``, the board that runs the candidates: ``rpc://HOST:PORT`` or ``tracker://HOST:PORT/KEY``.
        cache: whether to look for the compiled code in the user's cache folder, and to keep it there. Weights are no
            part of it: a network that was trained on finds the code that it was compiled to before.
        tune: how many schedules MetaSchedule may try for each kernel that has none of ours (`Built.foreign`); one is
            used where it is faster than our general one, by this machine's clock, by that of the board that `on` names,
            or with ``choose="cycles"`` by modelled cycles. Results are kept in the user's cache folder.
        check: whether to run the code once on `example_inputs`, if it is for this machine, and to compare its outputs with
            those of `module` (`backends.agreement`).

    Raises:
        InputError: the target is unknown, an option is not one of its values, or tuning is asked for where the code
            does not run.
        CaptureError: the model cannot be exported, or TVM has no importer for one of its operators.
        CheckError: the code does not compute what the model does.
    """
    chosen = find_target(target)
    if pipeline not in ("reconvene", "tvm-default"):
        raise InputError(f"unknown pipeline '{pipeline}'; choose reconvene or tvm-default")
    if winograd not in WINOGRAD:
        raise InputError(f"unknown winograd setting '{winograd}'; choose {', '.join(WINOGRAD)}")
    if choose not in ("time", "cycles", "model", "default"):
        raise InputError(f"unknown way to choose '{choose}'; choose time, cycles, model or default")
    if on is not None and choose != "time":
        raise InputError(f"a board ('{on}') chooses by time; say choose='time', --choose time")
    _check_tuning(tune, chosen, pipeline, choose, on)
    if threads is not None and chosen.runs_here:
        use_threads(threads)
    inputs = tuple(example_inputs)
    imported, returns_tuple = _import(module, inputs)
    llvm = tvm.target.Target(chosen.llvm())
    scheduled = imported
    foreign: tuple[str, ...] = ()
    tuner = make_tuner(tune, chosen, llvm, threads or available_threads(), choose, on) if tune else None
    if pipeline == "reconvene":
        cost, memory = kernel_cost(choose, chosen, llvm, threads or available_threads(), on)
        if winograd == "auto" and chosen.bare:
            winograd = "off"  # Its workspace is many times an image, and a microcontroller has little memory.
        scheduled, foreign = scheduled_module(
            imported, chosen.machine, llvm, winograd=winograd, cost=cost, memory=memory, tune=tuner
        )
    specs, outputs = _signature(imported)
    lowered = lower(scheduled, llvm, 64 if chosen.lanes > 1 else 8)
    library = build_library(lowered.module, llvm, chosen, cached=cache)
    code = (library, lowered.weights, lowered.arena)
    tuned = tuner.results if tuner is not None else ()
    built = Built(chosen, specs, outputs, returns_tuple, threads, pipeline, *code, foreign, lowered.module, tuned)
    if check and chosen.runs_here:
        _check_agreement(built, module, inputs)
    return built


def _check_agreement(built: Built, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """On copies of the buffers, which a forward pass may write to."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with stage("comparing with PyTorch"), _eval_mode(module), torch.no_grad():
        expected = [leaf for leaf in tree_leaves(functional_call(module, buffers, inputs)) if leaf is not None]
        found = tree_leaves(built.run(*[leaf for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]))
    reason = disagreement(expected, found)
    if reason:
        raise CheckError(
            f"the code for {type(module).__name__} does not compute what the model does: {reason}; please report it, and"
            " compile without the check (check=False, --no-check) only if the model is random, or amplifies rounding that much"
        )


def _check_tuning(trials: int, target: Target, pipeline: str, choose: str, on: str | None) -> None:
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


def _import(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[tvm.IRModule, bool]:
    with _eval_mode(module), warnings.catch_warnings():
        # Export and import warn about their own internals, which nobody who compiles a model can act on.
        warnings.simplefilter("ignore")
        try:
            return import_module(module, inputs)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CaptureError(f"cannot compile {type(module).__name__}: {reason}") from error


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


def _signature(imported: tvm.IRModule) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    function = imported["main"]
    inputs = tuple(_spec(p.name, p.ty) for p in function.params)
    result = function.ret_ty
    kinds = [result] if isinstance(result, relax.TensorType) else list(result.fields)
    return inputs, tuple(_spec(f"output{i}", kind) for i, kind in enumerate(kinds))


def _spec(name: str, kind: Any) -> TensorSpec:
    return TensorSpec(name, tuple(int(extent) for extent in kind.shape), str(kind.dtype))

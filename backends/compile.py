"""Compiling a module for a target, and what comes out: a model that runs, is timed, and is exported."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import tvm
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves
from tvm import relax

from ..frontend.errors import CaptureError, CheckError, InputError
from ..frontend.progress import stage
from .agreement import disagreement
from .arena import Arena
from .choice import WINOGRAD, Winograd
from .judges import kernel_cost, make_tuner
from .library import Library, build_library
from .lowering import lower
from .measure import Timing, time_calls
from .pipeline import import_module, scheduled_module
from .targets import Target, find_target
from .threads import available_threads, use_threads
from .virtual_machine import VirtualMachine
from .weights import weight_bytes

if TYPE_CHECKING:
    from .tuning import Tuned

__all__ = ["Built", "Memory", "TensorSpec", "checked_inputs", "compile"]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype (as numpy spells it) of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True)
class Memory:
    """Bytes that a model needs to run, its inputs and outputs not counted.

    Attributes:
        arena_bytes: the block in which the values between kernels lie.
        live_bytes: the largest set of these that are needed at the same time; the arena cannot be smaller.
        weights_bytes: the weights as the kernels read them: packed, and transformed for Winograd's algorithm.
    """

    arena_bytes: int
    live_bytes: int
    weights_bytes: int


@dataclass(frozen=True, eq=False)
class Built:
    """A compiled model. It has one arena, so one call runs at a time.

    Attributes:
        target: what it was compiled for.
        inputs, outputs: in the order of the model's arguments and results.
        returns_tuple: whether `run` gives a tuple even for one output.
        threads: what `run` uses; None leaves the pool as it is.
        library: the compiled code, or what was loaded from a bundle.
        weights: TVM's tensors, which the code takes after the inputs.
        arena: the plan of the values between kernels, which the code takes after the weights.
        foreign: operators, by TVM's names, that have no kernel of ours and so no blocked layout. Unknown, and
            empty, for ``tvm-default`` and for loaded bundles.
        scheduled: the lowered module that was compiled; None for loaded bundles.
        tuned: what `tune` found for the kernels it was tried on.
    """

    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    returns_tuple: bool
    threads: int | None
    pipeline: str
    library: Library = field(repr=False)
    weights: tuple[Any, ...] = field(repr=False)
    arena: Arena = field(repr=False)
    foreign: tuple[str, ...] = ()
    scheduled: Any = field(default=None, repr=False)
    tuned: tuple[Tuned, ...] = ()
    _machines: list[VirtualMachine] = field(default_factory=list, repr=False)

    @property
    def memory(self) -> Memory:
        """What the model needs beside its inputs and outputs."""
        return Memory(self.arena.bytes, self.arena.live_bytes, weight_bytes(self.weights))

    def run(self, *inputs: Any) -> Any:
        """The model's outputs for torch tensors or numpy arrays: one tensor, or a tuple of them.

        Raises:
            InputError: number, shape or dtype of the inputs is wrong, or the model is for another machine.
        """
        call = self.prepared(*inputs)
        return self._torch(call())

    def prepared(self, *inputs: Any) -> Callable[[], Any]:
        """A call without arguments on inputs that were checked and converted; what `benchmark` times.

        Raises:
            InputError: as `run`.
        """
        machine = self._machine()
        tensors = [_shared(tensor) for tensor in checked_inputs(self.inputs, inputs)]
        if self.threads is not None:
            use_threads(self.threads)
        return lambda: machine(*tensors)

    def benchmark(self, repeat: int = 50, warmup: int = 5, threads: int | None = None) -> Timing:
        """Wall time of one call on random inputs (seed 0), with `threads` or else those it was compiled with.

        Raises:
            InputError: the model is for another machine, or a number is out of range.
        """
        generator = np.random.default_rng(0)
        call = self.prepared(*[_random(spec, generator) for spec in self.inputs])
        used = threads or self.threads or 1
        use_threads(used)
        batch = self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else 1
        try:
            return time_calls({"model": call}, repeat, warmup, threads=used, batch=batch)["model"]
        finally:
            use_threads(self.threads or 1)

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        link: bool = True,
        runtime: Literal["static", "wheel", "none", "python"] | None = None,
        certificate: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes a bundle: the model for its target, what runs it there, and a manifest with checksums.

        Args:
            link: False leaves an archive of object files (``model.tar``), for a linker elsewhere.
            runtime: ``static``, a program with everything in it; ``wheel``, a program with the libraries of TVM's
                wheels; ``none``, C sources and objects without a runtime; ``python``, a library for Python. By default
                ``python`` for the host, ``none`` for machines without an operating system, else ``static``.
            certificate: of the compaction the model came from; it goes into the manifest.

        Raises:
            InputError: the folder cannot be written, or there is no compiler for the target, or it fails.
        """
        from .bundle import write_bundle

        return write_bundle(self, Path(folder), link=link, runtime=runtime, certificate=certificate)

    def _machine(self) -> VirtualMachine:
        if not self._machines:
            if not self.target.runs_here:
                raise InputError(
                    f"the model was compiled for '{self.target.name}' ({self.target.triple}) and cannot run"
                    " here; export() it, then copy the bundle to the board, or 'reconvene run BUNDLE --on qemu'"
                )
            self._machines.append(VirtualMachine(self.library.module, self.weights, self.arena))
        return self._machines[0]

    def _torch(self, result: Any) -> Any:
        tensors = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        outputs = tuple(torch.from_dlpack(tensor) for tensor in tensors)
        return outputs if self.returns_tuple else outputs[0]


def checked_inputs(specs: Sequence[TensorSpec], inputs: Sequence[Any]) -> list[torch.Tensor]:
    """`inputs` as contiguous tensors in main memory.

    Raises:
        InputError: their number, or the kind, shape or dtype of one, is not what `specs` say.
    """
    if len(inputs) != len(specs):
        names = ", ".join(f"{spec.name} ({spec})" for spec in specs)
        raise InputError(f"the model takes {len(specs)} inputs, got {len(inputs)}; give {names}")
    return [_checked(spec, value) for spec, value in zip(specs, inputs, strict=True)]


def _checked(spec: TensorSpec, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor | np.ndarray):
        raise InputError(f"input '{spec.name}' must be a torch tensor or numpy array, got {type(value).__name__}")
    tensor = torch.as_tensor(value).detach()
    got = TensorSpec(spec.name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    if got != spec:
        raise InputError(f"input '{spec.name}' must be {spec}, got {got}")
    return tensor.cpu().contiguous()


def _shared(tensor: torch.Tensor) -> Any:
    """`tensor` for TVM, without a copy where its memory is aligned for vectors."""
    if tensor.data_ptr() % 64:
        tensor = tensor.clone()
    return tvm.runtime.from_dlpack(tensor) if not tensor.data_ptr() % 64 else tvm.runtime.tensor(tensor.numpy())


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


def _random(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec.dtype.startswith("float"):
        return generator.standard_normal(spec.shape).astype(spec.dtype)
    return np.zeros(math.prod(spec.shape), spec.dtype).reshape(spec.shape)

"""A compiled model: it runs, is timed, and is exported."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import torch
import tvm

from ..frontend.base.errors import InputError
from ..frontend.base.turns import new_turn
from .code.library import Library
from .code.virtual_machine import VirtualMachine
from .code.weights import weight_bytes
from .lowering.arena import Arena
from .machines.targets import Target
from .machines.threads import available_threads, check_threads, on_threads
from .measure import Timing, time_calls
from .signature import Signature, TensorSpec, checked_inputs
from .state import State, state_bytes

if TYPE_CHECKING:
    from .choosing.tuning import Tuned

__all__ = ["Built", "Compiled", "Memory"]


@dataclass(frozen=True)
class Memory:
    """Bytes that a model needs to run, its inputs and outputs not counted.

    Attributes:
        arena_bytes: the block in which the values between kernels lie.
        live_bytes: the largest set of these that are needed at the same time; the arena cannot be smaller.
        weights_bytes: the weights as the kernels read them: packed, and transformed for Winograd's algorithm.
        state_bytes: the buffers that are kept from call to call.
    """

    arena_bytes: int
    live_bytes: int
    weights_bytes: int
    state_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Compiled:
    """What is known of compiled code, in memory or in a bundle.

    Attributes:
        target: what it was compiled for.
        inputs, outputs: in the order of the model's arguments and results.
        signature: how it is called, and what it gives.
        threads: what it runs on; None for as many as there can be.
        pipeline: ``reconvene``, or ``tvm-default``.
    """

    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signature: Signature
    threads: int | None
    pipeline: str


@dataclass(frozen=True, eq=False)
class Built(Compiled):
    """A compiled model.

    Threads may share one: it has one arena, so their calls take turns. For calls at the same time each takes a `clone`.
    It works on in a process that was forked. Where the model writes to buffers, each call finds them as the one before left
    them, as in PyTorch; `reset` begins anew.

    Attributes:
        library: the compiled code, or what was loaded from a bundle.
        weights: TVM's tensors, which the code takes after the inputs.
        arena: the plan of the values between kernels, which the code takes after the weights.
        foreign: operators, by TVM's names, that have no kernel of ours and so no blocked layout. Unknown, and
            empty, for ``tvm-default`` and for loaded bundles.
        scheduled: the lowered module that was compiled; None for loaded bundles.
        tuned: what `tune` found for the kernels it was tried on.
        state: the buffers that the model writes, with what they hold before the first call.
    """

    library: Library = field(repr=False)
    weights: tuple[Any, ...] = field(repr=False)
    arena: Arena = field(repr=False)
    foreign: tuple[str, ...] = ()
    scheduled: Any = field(default=None, repr=False)
    tuned: tuple[Tuned, ...] = ()
    state: tuple[State, ...] = ()
    _machines: list[VirtualMachine] = field(default_factory=list, repr=False)
    _turn: Any = field(default_factory=new_turn, repr=False)

    @property
    def memory(self) -> Memory:
        """What the model needs beside its inputs and outputs."""
        return Memory(self.arena.bytes, self.arena.live_bytes, weight_bytes(self.weights), state_bytes(self.state))

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives, in its own containers. It is called as the model is, by position or by name, with torch
        tensors or numpy arrays.

        Raises:
            InputError: the model is not called so, shape or dtype of an input is wrong, a number or another plain value is
                not the one it was compiled for, or the model is for another machine.
        """
        return self.signature.returned(self.run_tensors(self.signature.tensors(args, kwargs)))

    def run_tensors(self, tensors: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """The tensors of `outputs` for those of `inputs`, without the containers around them. They are the caller's: none
        shares memory with an input, a weight, or another output.

        Raises:
            InputError: as `run`.
        """
        machine, given = self._machine(), checked_inputs(self.inputs, tensors)
        result = self._call(machine, given)()
        found = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return machine.owned([torch.from_dlpack(tensor) for tensor in found], given)

    def prepared(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """A call without arguments on inputs that were checked and converted; what `benchmark` times.

        Raises:
            InputError: as `run`.
        """
        return self.prepared_tensors(self.signature.tensors(args, kwargs))

    def prepared_tensors(self, tensors: Sequence[Any]) -> Callable[[], Any]:
        """The same for the tensors of `inputs`.

        Raises:
            InputError: as `run`.
        """
        return self._call(self._machine(), checked_inputs(self.inputs, tensors))

    def _call(self, machine: VirtualMachine, tensors: Sequence[torch.Tensor]) -> Callable[[], Any]:
        given = [tvm.runtime.from_dlpack(tensor) for tensor in tensors]
        threads = self.threads or available_threads()

        def call() -> Any:
            with self._turn:
                return on_threads(threads, lambda: machine(*given))

        return call

    def clone(self) -> Built:
        """The same model with memory of its own for the values between kernels: both can run at the same time. The code and
        the weights are shared. A model with state begins anew in its clone: one stream of inputs to a clone.
        """
        return replace(self, _machines=[], _turn=new_turn())

    def reset(self) -> None:
        """Makes the state what it was before the first call; nothing to do for models without."""
        with self._turn:
            for machine in self._machines:
                machine.reset()

    def __deepcopy__(self, memo: object) -> Built:
        copied = self.clone()
        with self._turn:
            for machine in self._machines if self.state else ():
                copied._machine().follow(machine)
        return copied

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "a compiled model cannot be pickled; export() it, and load_bundle() it in the other process, or fork"
        )

    def benchmark(self, repeat: int = 50, warmup: int = 5, threads: int | None = None) -> Timing:
        """Wall time of one call on random inputs (seed 0), with `threads` or else those it was compiled with. The state of a
        model is left alone: it is a clone that runs.

        Raises:
            InputError: the model is for another machine, or a number is out of range.
        """
        generator = np.random.default_rng(0)
        used = threads or self.threads or available_threads()
        check_threads(used)
        timed = self.clone() if self.state else self
        call = replace(timed, threads=used).prepared_tensors([_random(spec, generator) for spec in self.inputs])
        batch = self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else 1
        return time_calls({"model": call}, repeat, warmup, threads=used, batch=batch)["model"]

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
        from .bundles.bundle import write_bundle

        return write_bundle(self, Path(folder), link=link, runtime=runtime, certificate=certificate)

    def _machine(self) -> VirtualMachine:
        if not self.target.runs_here:
            raise InputError(
                f"the model was compiled for '{self.target.name}' ({self.target.triple}) and cannot run"
                " here; export() it, then copy the bundle to the board, or 'reconvene run BUNDLE --on qemu'"
            )
        with self._turn:
            if not self._machines:
                self._machines.append(VirtualMachine(self.library.module, self.weights, self.arena, self.state))
            return self._machines[0]


def _random(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec.dtype.startswith("float"):
        return generator.standard_normal(spec.shape).astype(spec.dtype)
    return np.zeros(math.prod(spec.shape), spec.dtype).reshape(spec.shape)

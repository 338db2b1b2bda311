"""A compiled model: it runs, is timed, is exported, and is loaded again."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
import tvm

from ..frontend.base.errors import InputError
from ..frontend.base.turns import new_turn
from ..frontend.data.facts import DataFacts
from .artifact import Artifact, Compiled, Memory, memory_of
from .bundles.listed_files import FileSum
from .bundles.manifest import Bundle, Runtime
from .bundles.private_copy import private_copies
from .bundles.read import open_bundle
from .bundles.write import write_bundle
from .code.library import load_library
from .code.virtual_machine import VirtualMachine
from .code.weights import map_weights
from .lowering.arena import Arena
from .machines.threads import available_threads, check_threads, on_threads
from .measure import Timing, time_calls
from .signature import TensorSpec, checked_inputs
from .state import State

if TYPE_CHECKING:
    from .choosing.general_code import GeneralCode
    from .choosing.layer_choices import LayerChoice
    from .choosing.tuning import Tuned

__all__ = ["Built", "load_bundle"]


@dataclass(frozen=True, eq=False)
class Built(Compiled):
    """A compiled model.

    Threads may share one: it has one arena, so their calls take turns. For calls at the same time each takes a `clone`.
    It works on in a process that was forked. Where the model writes to buffers, each call finds them as the one before left
    them, as in PyTorch; `reset` begins anew.

    Attributes:
        module: what TVM's virtual machine runs; None for code of another machine.
        weights: TVM's tensors, which the code takes after the inputs and the state.
        arena: the plan of the values between kernels, which the code takes after the weights.
        state: the buffers that the model writes, with what they hold before the first call.
        data: classes and colours of the images that the model was trained on, if it said so; bundles keep it.
    """

    module: Any = field(repr=False)
    weights: tuple[Any, ...] = field(repr=False)
    arena: Arena = field(repr=False)
    state: tuple[State, ...] = ()
    data: DataFacts | None = None
    _artifact: Artifact | None = field(default=None, repr=False)
    _machines: list[VirtualMachine] = field(default_factory=list, repr=False)
    _turn: Any = field(default_factory=new_turn, repr=False)

    @classmethod
    def of(cls, artifact: Artifact) -> Built:
        """What was compiled, to be run."""
        return cls(
            **_facts(artifact),
            module=artifact.library.module,
            weights=artifact.weights,
            arena=artifact.arena,
            state=artifact.state,
            _artifact=artifact,
        )

    @property
    def artifact(self) -> Artifact:
        """What was compiled: the code as it was before it was linked, and after.

        Raises:
            InputError: the model was loaded from a bundle, which has only what runs.
        """
        if self._artifact is None:
            raise InputError("a model loaded from a bundle has nothing to link or to export; compile it again")
        return self._artifact

    @property
    def foreign(self) -> tuple[str, ...]:
        """Operators, by TVM's names, that have no kernel of ours and so no blocked layout. Unknown, and empty, for
        ``tvm-default`` and for loaded bundles.
        """
        return () if self._artifact is None else self._artifact.foreign

    @property
    def layers(self) -> tuple[LayerChoice, ...]:
        """Which kernel each layer has, and what the zeros in its weights brought; empty for ``tvm-default`` and for loaded
        bundles.
        """
        return () if self._artifact is None else self._artifact.layers

    @property
    def floats(self) -> tuple[str, ...]:
        """Of a quantised model, what is computed in float32 between codes, since there are no codes for it; empty for loaded
        bundles.
        """
        return () if self._artifact is None else self._artifact.floats

    @property
    def general(self) -> tuple[GeneralCode, ...]:
        """Operators that no kernel of ours computes, the dearest first: which layer calls them, and what part of the time they
        take, by a model. Empty for ``tvm-default`` and for loaded bundles.
        """
        return () if self._artifact is None else self._artifact.general

    @property
    def cost_unit(self) -> str:
        """Of the costs in `layers`: ``s`` where kernels were timed, else ``cycles``."""
        return "cycles" if self._artifact is None else self._artifact.cost_unit

    @property
    def tuned(self) -> tuple[Tuned, ...]:
        """What `tune` found for the kernels it was tried on; empty for loaded bundles."""
        return () if self._artifact is None else self._artifact.tuned

    @property
    def memory(self) -> Memory:
        """What the model needs beside its inputs and outputs."""
        return memory_of(self.weights, self.arena, self.state)

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
        runtime: Runtime | None = None,
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
            InputError: the folder cannot be written, or there is no compiler for the target, or it fails; or the
                model was loaded from a bundle.
        """
        return write_bundle(
            self.artifact, Path(folder), link=link, runtime=runtime, certificate=certificate, data=self.data
        )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """`export` as it is done unless somebody says otherwise; `Built.open` reads it where the model is for this machine."""
        return self.export(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Built:
        """The model that `save` wrote into `folder`, to be run here; as `load_bundle`, which has options, and its errors."""
        return load_bundle(folder)

    def _machine(self) -> VirtualMachine:
        if not self.target.runs_here:
            raise InputError(
                f"the model was compiled for '{self.target.name}' ({self.target.triple}) and cannot run"
                " here; export() it, then copy the bundle to the board, or 'reconvene run BUNDLE --on qemu'"
            )
        with self._turn:
            if not self._machines:
                self._machines.append(VirtualMachine(self.module, self.weights, self.arena, self.state))
            return self._machines[0]


def load_bundle(folder: str | os.PathLike[str], *, private: bool = False, manifest_sha256: str | None = None) -> Built:
    """The model in `folder`, loaded into this process, after all checks.

    Args:
        private: copy code and weights into sealed memory (Linux). Otherwise the files are mapped: whoever writes into them
            later changes what the model computes, and whoever shortens them ends the process. A file that is replaced by
            another one, as `write_bundle` does, is no such case.
        manifest_sha256: as for `open_bundle`.

    Raises:
        InputError: as `open_bundle`; or the bundle is for another machine, or holds a program, which is not loaded but
            run (`reconvene.backends.bundles.execution.run_bundle`).
    """
    bundle = open_bundle(folder, manifest_sha256=manifest_sha256)
    path, target = bundle.folder, bundle.target
    if "model.tar" in bundle.files:
        raise InputError(f"bundle '{path}' holds objects that are not linked; link model.tar for {target.triple}")
    if bundle.runtime != "python":
        raise InputError(f"bundle '{path}' holds a program, not a library for Python; run it with reconvene run")
    if bundle.versions.get("apache-tvm") != metadata.version("apache-tvm"):
        raise InputError(
            f"bundle '{path}' was compiled with TVM {bundle.versions.get('apache-tvm')}, this is"
            f" {metadata.version('apache-tvm')}; compile the model again"
        )
    if not target.runs_here:
        raise InputError(f"bundle '{path}' is for '{target.name}' ({target.triple}) and cannot run here; copy it there")
    assert bundle.arena is not None
    with private_copies(path, _mapped_files(bundle)) if private else nullcontext(path) as place:
        weights = map_weights(bundle.weights, place, links=private)
        module = load_library(place / "model.so")
    return Built(
        **_facts(bundle), module=module, weights=weights, arena=bundle.arena, state=bundle.state, data=bundle.data
    )


def _mapped_files(bundle: Bundle) -> dict[str, FileSum]:
    return {name: bundle.files[name] for name in {"model.so", *(place.file for place in bundle.weights)}}


def _facts(compiled: Compiled) -> dict[str, Any]:
    return {entry.name: getattr(compiled, entry.name) for entry in fields(Compiled)}


def _random(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec.dtype.startswith("float"):
        return generator.standard_normal(spec.shape).astype(spec.dtype)
    return np.zeros(math.prod(spec.shape), spec.dtype).reshape(spec.shape)

"""What was compiled, as data: what a model in this process runs, and what its bundles are written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .code.library import Library
from .code.weights import weight_bytes
from .lowering.arena import Arena
from .machines.targets import Target
from .signature import Signature, TensorSpec
from .state import State, state_bytes

if TYPE_CHECKING:
    from tvm import IRModule

    from .choosing.general_code import GeneralCode
    from .choosing.layer_choices import LayerChoice
    from .choosing.tuning import Tuned

__all__ = ["Artifact", "Compiled", "Memory", "memory_of"]


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


def memory_of(weights: Sequence[Any], arena: Arena, state: Sequence[State]) -> Memory:
    """What a model with these parts needs."""
    return Memory(arena.bytes, arena.live_bytes, weight_bytes(weights), state_bytes(state))


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
class Artifact(Compiled):
    """What `compile` made of a model, for this machine or for another one.

    Attributes:
        library: the compiled code.
        weights: TVM's tensors, which the code takes after the inputs and the state.
        arena: the plan of the values between kernels, which the code takes after the weights.
        scheduled: the lowered module that was compiled.
        foreign: operators, by TVM's names, that have no kernel of ours and so no blocked layout; unknown, and empty, for
            ``tvm-default``.
        tuned: what `tune` found for the kernels it was tried on.
        state: the buffers that the model writes, with what they hold before the first call.
        layers: which kernel each layer has, and what the zeros in its weights brought; empty for ``tvm-default``.
        cost_unit: of the costs in `layers`: ``s`` where kernels were timed, else ``cycles``.
        floats: of a quantised model, what is computed in float32 between codes.
        general: the operators of `foreign` with where they are called and what part of the time they take, by a model.
    """

    library: Library = field(repr=False)
    weights: tuple[Any, ...] = field(repr=False)
    arena: Arena = field(repr=False)
    scheduled: IRModule = field(repr=False)
    foreign: tuple[str, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    state: tuple[State, ...] = ()
    layers: tuple[LayerChoice, ...] = ()
    cost_unit: str = "cycles"
    floats: tuple[str, ...] = ()
    general: tuple[GeneralCode, ...] = ()

    @property
    def memory(self) -> Memory:
        """What the model needs beside its inputs and outputs."""
        return memory_of(self.weights, self.arena, self.state)

    @property
    def objects(self) -> Mapping[str, bytes]:
        """The code as object files by name, for a linker. Raises InputError if the disk is full."""
        return self.library.objects

"""What kernels and the families of kernels have in common.

A specification is a frozen dataclass of everything that the code of a kernel depends on, so it is the key of choices, of
kernels in a module, and of caches. It knows its kernel itself; nobody asks of which family it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from tvm import tirx

from ..graph.nodes import Array, Convolution
from .convolution import ConvolutionSpec
from .image import Slots, View
from .tiles import Machine

__all__ = ["Family", "LayerSpec", "Spec", "Task", "Trial", "Workspaced", "trial_of"]


class Spec(Protocol):
    """One kernel.

    Attributes:
        family: what its kernels are named after.
    """

    family: ClassVar[str]

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core, weights coming from memory."""
        ...

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function."""
        ...


@runtime_checkable
class Workspaced(Protocol):
    """A kernel that may need arrays to write and read again, its last arguments."""

    @property
    def source(self) -> View:
        """Where its input lies."""
        ...

    @property
    def workspace(self) -> tuple[int, ...]:
        """Elements of these arrays, of the type of sums of products of its input."""
        ...


@runtime_checkable
class LayerSpec(Spec, Workspaced, Protocol):
    """The kernel of a convolution or linear layer: ``(source, packed arrays..., leaves..., result, workspace...)``."""

    @property
    def result(self) -> View:
        """Where its output lies."""
        ...

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer as it is defined, unused lanes included."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, which are read from memory in every pass of a network."""
        ...

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """What the kernel reads of a layer whose input channels lie in `slots`: weights and bias, and tables of where
        weights are that not all layers of this specification have at the same places.
        """
        ...


@dataclass(frozen=True, eq=False)
class Trial:
    """A kernel that is run to see what it costs.

    Attributes:
        tables: what some of its arguments have to hold, by their places, since the work that it does depends on them.
        weighted: whether its second argument are weights.
    """

    function: tirx.PrimFunc
    tables: Mapping[int, Array] = field(default_factory=dict)
    weighted: bool = True


@runtime_checkable
class Tabled(Protocol):
    """A specification of a kernel whose work depends on tables."""

    def typical(self) -> Mapping[int, Array]:
        """Tables as layers of this specification have them, by the places of arguments."""
        ...


def trial_of(spec: Spec) -> Trial:
    """The kernel of `spec`, with tables that are typical of it."""
    tables = spec.typical() if isinstance(spec, Tabled) else {}
    return Trial(spec.function(spec.family), tables, isinstance(spec, LayerSpec))


@dataclass(frozen=True)
class Task:
    """What is to be computed: the key of a choice.

    Attributes:
        spec: the layer as the direct kernel computes it.
        sparsity: what candidates may depend on of the zeros in its weights, and no more: counts and shapes, not places,
            which are packed as tables; None where nothing is known.
    """

    spec: ConvolutionSpec
    sparsity: Hashable = None


class Family(Protocol):
    """Kernels of one algorithm."""

    @property
    def name(self) -> str:
        """By which settings name it."""
        ...

    def candidates(self, task: Task, machine: Machine) -> tuple[LayerSpec, ...]:
        """The specifications that are worth a trial, the best by the estimate first; none where it does not apply."""
        ...

"""The backend's small graph: what has to be computed, before any choice of layout.

Values are logical: an image is ``(N, C, H, W)`` whatever order its bytes get later, and a line ``(N, C, L)`` is one of
height 1. A node produces one value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "IMAGES",
    "Array",
    "Convolution",
    "Detail",
    "Foreign",
    "Frame",
    "Graph",
    "Node",
    "Normalization",
    "Pool",
    "Reference",
    "Reindex",
    "Scalar",
    "Transposed",
    "Weights",
    "constant",
    "turned",
]

Array = npt.NDArray[Any]


D = TypeVar("D")

IMAGES = frozenset(
    {
        "convolution",
        "transposed",
        "normalize",
        "pool",
        "mean",
        "largest",
        "total",
        "table",
        "scalar",
        "concat",
        "reindex",
        "frame",
    }
)
"""Operations that kernels of ours compute as images."""


@dataclass(eq=False)
class Node:
    """One operation.

    Attributes:
        op: ``input``, ``constant``, ``convolution``, ``transposed`` (a transposed convolution), ``normalize`` (groups of
            channels), ``pool``, ``mean``, ``largest`` and ``total`` (of all pixels), ``table`` (of what codes become),
            ``scalar``, ``concat``, ``reindex``, ``frame``, ``product`` (of matrices), ``softmax``, ``layer_norm``, ``flatten``,
            ``reshape``, ``item`` (of a tuple), ``convert`` (to its own type) or ``foreign`` (kept as TVM's operator).
        detail: what the operation needs to know, by `op`: Convolution, Pool, Scalar, Reindex, Frame, a numpy
            array, an item's index, or the Relax call of a foreign operator; read by `detail_as`.
        shape: of the value; empty for a tuple.
        origin: of what is foreign, the variable that the imported program has for it.
    """

    op: str
    inputs: list[Node]
    shape: tuple[int, ...]
    dtype: str = "float32"
    detail: Detail | None = None
    name: str = ""
    origin: str = ""

    def detail_as(self, kind: type[D]) -> D:
        """The detail, which has to be of this kind.

        Raises:
            AssertionError: it is another.
        """
        if not isinstance(self.detail, kind):
            raise AssertionError(f"'{self.op}' has the detail {type(self.detail).__name__}, not {kind.__name__}")
        return self.detail

    @property
    def is_image(self) -> bool:
        """Whether the value can live in the packed layout: one of the shape of an image, ``(N, C, H, W)`` or ``(N, C)``, and a
        line ``(N, C, L)`` that is computed as one. Other values of three axes may be rows of features.
        """
        return (len(self.shape) in (2, 4) or self.is_line) and 0 not in self.shape

    @property
    def is_line(self) -> bool:
        """Whether it is ``(N, C, L)``, computed as an image of height 1."""
        return len(self.shape) == 3 and self.op in IMAGES

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """``(N, C, H, W)``; a matrix ``(N, C)`` is an image of one pixel, a line ``(N, C, L)`` one of height 1."""
        batch, channels, *area = self.shape
        height, width = (1, 1, *area)[-2:]
        return batch, channels, height, width


@dataclass
class Weights:
    """Weights ``(O, I / groups, KH, KW)`` and bias ``(O,)``, in float64 until they are packed."""

    kernel: Array
    bias: Array


@dataclass
class Convolution:
    """A 2-D convolution, or with a 1x1 kernel on one pixel a linear layer. `padding`: top, left, bottom, right.

    Of codes, weights and bias are whole numbers, the bias with what `zero` (the code for zero, which padding is) adds to every
    sum taken away.
    """

    weights: Weights
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    zero: int = 0

    def arranged(self, weight: Array) -> Array:
        """A weight of the model, or what there is for each of its elements, as the kernel is here."""
        return weight.reshape(self.weights.kernel.shape)

    def as_modelled(self) -> Array:
        """The kernel's elements in the model's order, in a row."""
        return self.weights.kernel.reshape(-1)


@dataclass
class Transposed(Convolution):
    """A transposed convolution: each pixel times the kernel is added to outputs that lie `stride` apart.

    Weights are ``(O, I / groups, KH, KW)`` as those of a convolution, the kernel as PyTorch has it. `padding` is cut off the
    result above and to the left; its size is the node's.
    """

    def arranged(self, weight: Array) -> Array:
        """The model has weights ``(I, O / groups, ...)``."""
        outputs, inputs, *window = self.weights.kernel.shape
        return turned(weight.reshape(inputs * self.groups, outputs // self.groups, *window), self.groups)

    def as_modelled(self) -> Array:
        """As `arranged`, the other way."""
        return turned(self.weights.kernel, self.groups).reshape(-1)


def turned(weight: Array, groups: int) -> Array:
    """``(O, I / groups, ...)`` from ``(I, O / groups, ...)``, and the other way."""
    rows, columns, *window = weight.shape
    opened = weight.reshape(groups, rows // groups, columns, *window).swapaxes(1, 2)
    return opened.reshape(groups * columns, rows // groups, *window)


@dataclass(frozen=True)
class Pool:
    """A pooling window. `kind` is ``max``, ``average`` or ``sum`` (of codes); `counts_padding` belongs to the average."""

    kind: str
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    counts_padding: bool = False


@dataclass(frozen=True, eq=False)
class Normalization:
    """Groups of channels, each less its mean and divided by its deviation, then `scale` and `shift` for each channel."""

    groups: int
    epsilon: float
    scale: Array
    shift: Array


@dataclass(frozen=True)
class Frame:
    """Another frame around the pixels: padding with `fill` where a margin is positive, cropping where it is
    negative, and of what is left every `step`-th row and column. `margins`: top, left, bottom, right.
    """

    margins: tuple[int, int, int, int]
    step: tuple[int, int] = (1, 1)
    fill: float = 0.0


@dataclass(frozen=True)
class Scalar:
    """A function of single elements, by name in `kernels.scalar`, with its literal parameters."""

    function: str
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reindex:
    """Output channel ``i`` is input channel ``source[i]``: a slice, a split's part, a channel shuffle."""

    source: tuple[int, ...]


@dataclass(frozen=True)
class Reference:
    """Stands for a node's input in the arguments of a foreign call."""

    index: int


@dataclass(frozen=True)
class Foreign:
    """A Relax call that is kept, and its arguments: references, tuples of them, kernels, or Relax expressions."""

    call: Any
    arguments: tuple[Any, ...]


Detail = Array | Convolution | Normalization | Pool | Scalar | Reindex | Frame | Foreign | int
"""What an operation needs to know beside its inputs."""


@dataclass
class Graph:
    """Nodes in an order in which every node follows its inputs. `names` are those that texts give them."""

    nodes: list[Node]
    inputs: list[Node]
    outputs: list[Node]
    returns_tuple: bool
    users: dict[Node, list[Node]] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)

    def refresh(self) -> None:
        """Drops nodes that no output needs and recounts the users of the rest."""
        self.nodes = _ordered(self.outputs, self.inputs)
        users: defaultdict[Node, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for source in node.inputs:
                users[source].append(node)
        self.users = dict(users)

    def replace(self, old: Node, new: Node) -> None:
        """Lets every reader of `old` read `new`, which nobody else reads; call `refresh` when all is done."""
        readers = self.users.pop(old, [])
        for node in readers:
            node.inputs = [new if source is old else source for source in node.inputs]
        self.users[new] = readers
        self.outputs = [new if node is old else node for node in self.outputs]

    def only_user(self, node: Node) -> Node | None:
        """The single reader of `node`, or None when there are several or it is an output."""
        users = self.users.get(node, [])
        return users[0] if len(users) == 1 and node not in self.outputs else None


def constant(value: Array, name: str = "") -> Node:
    """A node that holds a known array."""
    array = np.asarray(value)
    return Node("constant", [], tuple(array.shape), str(array.dtype), array, name)


def _ordered(outputs: Iterable[Node], inputs: Iterable[Node]) -> list[Node]:
    """Depth-first order without recursion, because networks are thousands of nodes deep."""
    order: list[Node] = []
    state: dict[Node, bool] = {}
    for root in [*inputs, *outputs]:
        stack = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                if not state[node]:
                    state[node] = True
                    order.append(node)
            elif node not in state:
                state[node] = False
                stack.append((node, True))
                stack.extend((source, False) for source in reversed(node.inputs) if source not in state)
    return order

"""Channel axes and the index maps between them: the data the dependency view, groups and liveness are made of.

Two axes that always lose the same positions (the two sides of a ReLU, the operands of a sum, a convolution's output and
its bias) are one *axis class*. What joins different classes is one of three relations: positions that correspond
(`Gather`: concatenation, slices, pixel shuffle), a flat axis that is the product of others (`Product`: reshape), and the
equal shares of a grouped convolution (`Grouped`). Operators that mix channels (`Mix`) do not tie their axes together;
there, liveness decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from .values import Operation, is_static, is_tensor, is_unit, operator_name, shape_of, tensor_inputs

__all__ = ["Axes", "AxesBuilder", "Axis", "Freeze", "Gather", "Grouped", "Mix", "Product"]

Axis = tuple[fx.Node, Any]
"""A value and one of its axes. A hidden axis (a factor of a reshape) has a tuple in the axis' place."""

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Gather:
    """Position ``source_index[i]`` of class `source` and ``target_index[i]`` of class `target` stay or go together."""

    node: fx.Node
    source: int
    target: int
    source_index: Index
    target_index: Index


@dataclass(frozen=True, eq=False)
class Product:
    """Class `flat` is the row-major product of `factors`; what is kept of it must be a product too."""

    node: fx.Node
    flat: int
    factors: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Grouped:
    """A grouped convolution: `source` and `target` are cut into `groups` blocks that keep equally many channels."""

    node: fx.Node
    source: int
    target: int
    groups: int


@dataclass(frozen=True, eq=False)
class Mix:
    """An operator whose every output channel along `target` may read every input channel along `source`."""

    operation: Operation
    source: int
    target: int


@dataclass(frozen=True, eq=False)
class Freeze:
    """Something that needs every position of a class."""

    node: fx.Node
    reason: str
    barrier: bool
    """An operator without an exact rule, rather than the model's interface or a spatial axis."""

    @property
    def told(self) -> str:
        """The reason for a person, with the name of the call in quotes (see `DependencyView.located`)."""
        if self.node.op != "call_function":
            return self.reason
        reason = self.reason or f"{operator_name(self.node).removeprefix('aten.')} needs this axis whole"
        return f"{reason} ('{self.node.name}')"


@dataclass(frozen=True, eq=False)
class Axes:
    """All axis classes of a graph with the relations between them. Classes are numbered from 0."""

    index: dict[Axis, int]
    members: list[list[Axis]]
    sizes: list[int]
    """Positions of each class; 0 stands for a dynamic size."""
    gathers: list[Gather]
    products: list[Product]
    grouped: list[Grouped]
    mixes: list[Mix]
    freezes: dict[int, list[Freeze]]
    producers: dict[int, list[Axis]]
    """Parameter axes that make the channels of a class: a convolution's weight rows."""
    consumers: dict[int, list[Axis]]
    """Parameter axes that read them: the next weight's columns."""
    bundles: list[tuple[int, Index]]
    """Classes with a label for every position: pruning takes equal ones together, although liveness need not."""

    def of(self, node: fx.Node, axis: Any) -> int:
        """The class of an axis; negative axes count from the end."""
        if isinstance(axis, int) and axis < 0:
            axis += len(shape_of(node))
        return self.index[node, axis]

    def frozen(self, number: int) -> bool:
        """Returns if nothing of the class may go."""
        return number in self.freezes or self.sizes[number] == 0


class AxesBuilder:
    """Collects what the rules say about axes. An axis that an operator's rule does not mention stays whole."""

    def __init__(self) -> None:
        self._parent: dict[Axis, Axis] = {}
        self._size: dict[Axis, Any] = {}
        self._gathers: list[tuple[fx.Node, Axis, Axis, Index, Index]] = []
        self._products: list[tuple[fx.Node, Axis, tuple[Axis, ...], tuple[int, ...]]] = []
        self._grouped: list[tuple[fx.Node, Axis, Axis, int]] = []
        self._mixes: list[tuple[Operation, Axis, Axis]] = []
        self._freezes: list[tuple[Axis, Freeze]] = []
        self._bundles: list[tuple[Axis, Index]] = []
        self._roles: dict[str, list[Axis]] = {"producer": [], "consumer": []}
        self._touched: set[Axis] = set()
        self._operation: Operation | None = None

    # What rules call -------------------------------------------------------------------------------------------

    def same(self, first: Axis, second: Axis) -> None:
        """The two axes have the same positions, one to one."""
        a, b = self._touch(first), self._touch(second)
        self._union(a, b)

    def pass_through(self, source: fx.Node, target: fx.Node, pairs: Iterable[tuple[int, int]]) -> None:
        """`same` for several pairs (axis of source, axis of target)."""
        for source_axis, target_axis in pairs:
            self.same((source, source_axis), (target, target_axis))

    def gather(self, source: Axis, target: Axis, source_index: Any, target_index: Any) -> None:
        """Positions of one axis correspond to positions of another; axes of dynamic size have none, and stay whole."""
        if not all(is_static(shape_of(node)[axis]) for node, axis in (source, target) if isinstance(axis, int)):
            return
        a, b = self._touch(source), self._touch(target)
        index = (np.asarray(source_index, np.int64), np.asarray(target_index, np.int64))
        self._gathers.append((self._here.node, a, b, *index))

    def product(self, flat: Axis, factors: Sequence[Axis], sizes: Sequence[int]) -> None:
        """A flat axis is the row-major product of others, which may be hidden ones made by `hidden`."""
        handles = tuple(self._touch(factor) for factor in factors)
        self._products.append((self._here.node, self._touch(flat), handles, tuple(sizes)))

    def hidden(self, name: Any, size: int | None) -> Axis:
        """An axis of the operator's own that no tensor has; None where its size is dynamic."""
        axis = (self._here.node, ("hidden", name))
        self._parent.setdefault(axis, axis)
        self._size[axis] = size
        return axis

    def grouped(self, source: Axis, target: Axis, groups: int) -> None:
        """The axes are cut into `groups` blocks of equal counts, as in a grouped convolution."""
        self._grouped.append((self._here.node, self._touch(source), self._touch(target), groups))

    def together(self, axis: Axis, labels: Index) -> None:
        """Positions with equal labels are better pruned together; nothing forces them to go together."""
        self._bundles.append((self._touch(axis), labels))

    def mixes(self, source: Axis, target: Axis) -> None:
        """The operator mixes the channels of `source` into those of `target`; its rule's `demand` decides."""
        self._mixes.append((self._here, self._touch(source), self._touch(target)))

    def touch(self, *axes: Axis) -> None:
        """The axes need no relation: nothing can be removed from them, or nothing depends on it."""
        for axis in axes:
            self._touch(axis)

    def freeze(self, axis: Axis, reason: str, barrier: bool = True) -> None:
        """Every position of the axis is needed."""
        handle = self._touch(axis)
        self._freezes.append((handle, Freeze(self._here.node, reason, barrier)))

    def producer(self, parameter: Any, axis: int) -> None:
        """Slices of `parameter` along `axis` make the channels of their class; nothing is said of a computed one."""
        self._assign("producer", parameter, axis)

    def consumer(self, parameter: Any, axis: int) -> None:
        """Slices of `parameter` along `axis` read the channels of their class; nothing is said of a computed one."""
        self._assign("consumer", parameter, axis)

    # What the engine calls -------------------------------------------------------------------------------------

    def begin(self, operation: Operation) -> None:
        """Starts one operator."""
        self._operation = operation
        self._touched = set()

    def end(self, reason: str) -> None:
        """Ends it: every axis of its operands and results that was not mentioned stays whole, for `reason`."""
        operation = self._here
        values = [*tensor_inputs(operation.node), *(out for out in operation.outputs if out is not None)]
        for value in values:
            for axis, size in enumerate(shape_of(value)):
                handle = (value, axis)
                if handle not in self._touched and not is_unit(size):
                    self._register(handle)
                    freeze = Freeze(operation.node, reason, bool(reason))
                    self._freezes.append((handle, freeze))

    def interface(self, node: fx.Node, value: fx.Node, reason: str) -> None:
        """An input or output of the model: all its axes stay whole."""
        for axis in range(len(shape_of(value))):
            handle = self._register((value, axis))
            self._freezes.append((handle, Freeze(node, reason, False)))

    def finish(self, graph: fx.Graph) -> Axes:
        """Numbers the classes in the order of the graph."""
        for node in graph.nodes:
            if is_tensor(node):
                for axis in range(len(shape_of(node))):
                    self._register((node, axis))
        numbers: dict[Axis, int] = {}  # By the root of each class.
        index: dict[Axis, int] = {}
        members: list[list[Axis]] = []
        sizes: list[int] = []
        for handle in self._parent:
            root = self._find(handle)
            number = numbers.get(root)
            if number is None:
                number = numbers[root] = len(members)
                members.append([])
                sizes.append(self._size[root] if is_static(self._size[root]) else 0)
            index[handle] = number
            members[number].append(handle)
        freezes: dict[int, list[Freeze]] = {}
        for handle, freeze in self._freezes:
            freezes.setdefault(index[handle], []).append(freeze)
        return Axes(
            index,
            members,
            sizes,
            [Gather(node, index[a], index[b], i, j) for node, a, b, i, j in self._gathers],
            [Product(node, index[a], tuple(index[f] for f in fs), sz) for node, a, fs, sz in self._products],
            [Grouped(node, index[a], index[b], groups) for node, a, b, groups in self._grouped],
            [Mix(operation, index[a], index[b]) for operation, a, b in self._mixes],
            freezes,
            self._by_class(index, "producer"),
            self._by_class(index, "consumer"),
            [(index[axis], labels) for axis, labels in self._bundles],
        )

    def _by_class(self, index: dict[Axis, int], role: str) -> dict[int, list[Axis]]:
        grouped: dict[int, list[Axis]] = {}
        for axis in dict.fromkeys(self._roles[role]):
            grouped.setdefault(index[axis], []).append(axis)
        return grouped

    @property
    def _here(self) -> Operation:
        assert self._operation is not None
        return self._operation

    def _assign(self, role: str, parameter: fx.Node, axis: int) -> None:
        handle = self._touch((parameter, axis))
        if parameter.op == "get_attr":
            self._roles[role].append(handle)

    def _touch(self, axis: Axis) -> Axis:
        handle = self._register(axis)
        self._touched.add(handle)
        return handle

    def _register(self, axis: Axis) -> Axis:
        node, position = axis
        if isinstance(position, int):
            shape = shape_of(node)
            if position < 0:
                axis = (node, position + len(shape))
            if axis not in self._parent:
                self._parent[axis] = axis
                self._size[axis] = shape[axis[1]]
        return axis

    def _find(self, axis: Axis) -> Axis:
        parent = self._parent
        root = axis
        while parent[root] is not root:
            root = parent[root]
        while parent[axis] is not root:
            parent[axis], axis = root, parent[axis]
        return root

    def _union(self, first: Axis, second: Axis) -> None:
        a, b = self._find(first), self._find(second)
        if a is not b:
            self._parent[b] = a
            if not is_static(self._size[a]):
                self._size[a] = self._size[b]

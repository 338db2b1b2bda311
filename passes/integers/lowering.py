"""Rewrites a graph of float operators between quantise and dequantise nodes into arithmetic on codes.

Every quantise node asks for the codes of a number, and the question is passed on: through what only moves numbers, and
through clamps, which make the range of codes smaller, to a layer, a sum, a product, a pooling, or any function of one value,
which is a table of 256 codes. What has no answer is computed in float32 between dequantise and quantise, and is named.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from ...frontend.source_line import source_line
from ...frontend.writes import changed_values, written_operands
from .constants import Constants
from .elements import product_of_codes, sum_of_codes
from .layers import Layer, layer_of
from .moves import LARGEST, PARTS, is_move, moved, origin
from .operators import OPERATORS
from .pooling import pooled_codes
from .scheme import DEQUANTIZE, OF_TENSORS, PER_CHANNEL, QUANTIZE, Codes, codes_of_node, gives_float32
from .tables import codes_of_bytes, codes_of_unsigned, recoding, table_of

__all__ = ["IntegerProgram", "with_integers"]

A = torch.ops.aten

CLAMPS: dict[Any, Callable[..., tuple[float, float]]] = {
    A.relu.default: lambda: (0.0, math.inf),
    A.relu_.default: lambda: (0.0, math.inf),
    A.relu6.default: lambda: (0.0, 6.0),
    A.hardtanh.default: lambda low=-1.0, high=1.0: (low, high),
    A.hardtanh_.default: lambda low=-1.0, high=1.0: (low, high),
    A.clamp.default: lambda low=None, high=None: (
        -math.inf if low is None else low,
        math.inf if high is None else high,
    ),
    A.clamp_min.default: lambda low: (low, math.inf),
    A.clamp_max.default: lambda high: (-math.inf, high),
}
"""What keeps numbers in a range, from the operator's further arguments to its ends."""

JOINS = frozenset({A.cat.default, A.stack.default})
"""What puts several values into one."""

OFF_IN_EVAL = frozenset({A.dropout.default, A.dropout_.default, A.feature_dropout.default})
"""What drops some numbers in training only: with the third argument True."""

_FASTER = "in fewer cycles than on codes"
"""Why a layer is in float32 that could be on codes."""


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """A graph of arithmetic on codes.

    Attributes:
        module: a copy; `OPERATORS` are what it computes with.
        layers: how many convolutions and linear layers add products of codes.
        floats: what is computed in float32, each with the line it was written in, and why where that is known; moves and
            conversions are left out.
        weights: of layers, by the names that they have in the model: codes, or what these stand for.
    """

    module: fx.GraphModule
    layers: int
    floats: tuple[str, ...]
    weights: Mapping[str, Tensor]


def with_integers(module: fx.GraphModule, floats: Collection[str] = ()) -> IntegerProgram:
    """`module`, whose values are in ``meta["val"]`` of its nodes, with all that can be computed on codes computed so.

    Args:
        floats: names of weights whose layers are computed in float32 all the same.
    """
    module = copy.deepcopy(module)
    lowering = _Lowering(module, frozenset(floats))
    lowering.run()
    graph = module.graph
    graph.lint()
    module.recompile()
    calls = [node for node in graph.nodes if node.op == "call_function"]
    layers = sum(node.target in (OPERATORS.integer_conv2d.default, OPERATORS.integer_linear.default) for node in calls)
    left = tuple(_told(node, lowering.why(node)) for node in calls if _computes_in_float(node, lowering.constants))
    weights = {layer.name: layer.weight for layer, _ in filter(None, lowering.sums.values()) if layer.name}
    weights |= lowering.dequantized
    return IntegerProgram(module, layers, left, weights)


def _told(node: fx.Node, why: str) -> str:
    line = source_line(node)
    return f"{node.name}{f' at {line}' if line else ''}{f': {why}' if why else ''}"


def _computes_in_float(node: fx.Node, constants: Constants) -> bool:
    """Whether a call computes floats of what depends on inputs; an LSTM, say, gives several values."""
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else [value]
    moves = is_move(node) or node.target in PARTS | JOINS or getattr(node.target, "__name__", "") == "getitem"
    if moves or getattr(node.target, "namespace", "") == "reconvene":
        return False
    stays = not node.all_input_nodes or constants.value(node) is not None
    return not stays and any(isinstance(each, Tensor) and each.is_floating_point() for each in values)


class _Lowering:
    """One pass over a graph. What is made for a node stands directly before it."""

    def __init__(self, module: fx.GraphModule, floats: frozenset[str]) -> None:
        self.graph = module.graph
        self.floats = floats
        self.changed = changed_values(module.graph)
        self.constants = Constants(module, self.changed)
        self.made: dict[tuple[fx.Node, Codes], fx.Node | None] = {}
        self.ours: dict[fx.Node, Codes] = {}
        self.split: dict[tuple[fx.Node, fx.Node], fx.Node] = {}
        self.bytes: dict[fx.Node, tuple[Codes, fx.Node] | None] = {}
        self.reasons: dict[fx.Node, str] = {}
        self.sums: dict[fx.Node, tuple[Layer, fx.Node] | None] = {}
        self.dequantized: dict[str, Tensor] = {}

    def run(self) -> None:
        for node in self._calls(OFF_IN_EVAL):
            if not node.args[2] and isinstance(value := node.args[0], fx.Node):
                node.replace_all_uses_with(value)
                self.graph.erase_node(node)
        for node in self._calls(OF_TENSORS):
            self._with_known_scale(node)
        for node in self._calls({QUANTIZE}):
            self._quantize(node)
        for node in list(self.graph.nodes):
            if node.op == "call_function" and node.users and (found := self.summed(node)) is not None:
                self._rescale(node, *found)
        self.graph.eliminate_dead_code(self._has_effects)
        for node in self._calls({DEQUANTIZE, PER_CHANNEL}):
            self._dequantize_weight(node)
        # The largest of codes is found before they are numbers, which are four times as large.
        for node in (*self._calls(LARGEST), *self._calls({DEQUANTIZE})):
            known = self._dequantized(node) if node.target is DEQUANTIZE else self.known(node)
            if node.users and known is not None:
                codes, source = known
                self._replace(node, self.emit(node, OPERATORS.dequantize.default, source, codes.scale, codes.zero))
        self.graph.eliminate_dead_code(self._has_effects)

    def _has_effects(self, node: fx.Node) -> bool:
        """Whether a call does something besides giving its result: not so an activation in place that nothing else reads."""
        return node.is_impure() and (node in self.changed or not written_operands(node))

    def _calls(self, targets: Collection[Any]) -> list[fx.Node]:
        return [node for node in self.graph.nodes if node.op == "call_function" and node.target in targets]

    def _quantize(self, node: fx.Node) -> None:
        codes = codes_of_node(node)
        read_as_codes = all(user.target is DEQUANTIZE for user in node.users)
        if codes is None or (codes.moved and not read_as_codes):
            return
        found = self.coded(node.args[0], codes)
        if found is None:
            arguments = (node.args[0], codes.inverse, codes.zero, codes.low, codes.high)
            found = self.emit(node, OPERATORS.quantize.default, *arguments)
        self._replace(node, found)
        self.ours[found] = codes

    def _with_known_scale(self, node: fx.Node) -> None:
        """Puts numbers in place of a scale, a zero and ends that are tensors, where these are always the same."""
        value, *given = node.args[:5]
        known = [
            self.constants.value(number) if isinstance(number, fx.Node) else torch.tensor(number) for number in given
        ]
        numbers = [number.item() for number in known if number is not None and number.numel() == 1]
        if len(numbers) == len(given):
            node.target = OF_TENSORS[node.target]  # type: ignore[index]
            node.args = (value, float(numbers[0]), *map(int, numbers[1:]), *node.args[5:])

    def _rescale(self, node: fx.Node, layer: Layer, sums: fx.Node) -> None:
        scale = self.constants.node(node, layer.scale.float())
        found = self.emit(node, OPERATORS.rescale.default, sums, scale, layer.axis, 0)
        self._replace(node, self.shaped(node, found))

    def _dequantize_weight(self, node: fx.Node) -> None:
        """What weights stand for, where a layer is left that reads them so."""
        value, stored = self.constants.value(node), node.args[0]
        if value is not None:
            self._replace(node, self.constants.node(node, value))
            if isinstance(stored, fx.Node) and stored.op == "get_attr":
                self.dequantized[str(stored.target)] = value

    def _replace(self, node: fx.Node, found: fx.Node) -> None:
        node.replace_all_uses_with(found)

    def emit(self, at: fx.Node, target: Any, *args: Any) -> fx.Node:
        """A call right before `at`."""
        with self.graph.inserting_before(at):
            node = self.graph.call_function(target, args)
        node.meta = {key: at.meta[key] for key in ("stack_trace", "nn_module_stack") if key in at.meta}
        node.meta["val"] = target(*map_arg(args, lambda argument: argument.meta["val"]))
        return node

    def known(self, value: Any) -> tuple[Codes, fx.Node] | None:
        """The codes that a value is read from, through what only moves it; None where it is computed in float32."""
        if not isinstance(value, fx.Node) or value in self.changed:
            return None
        if value.target is DEQUANTIZE:
            return self._dequantized(value)
        if value.target in JOINS:
            return self._joined(value)
        if not is_move(value):
            return self._converted(value)
        found = self.known(origin(value))
        if found is None:
            return None
        codes, source = found
        return codes, self._once(value, codes, lambda: moved(self, value, source))

    def _converted(self, node: fx.Node) -> tuple[Codes, fx.Node] | None:
        if node not in self.bytes:
            self.bytes[node] = codes_of_bytes(self, node)
        return self.bytes[node]

    def _joined(self, node: fx.Node) -> tuple[Codes, fx.Node] | None:
        """What is joined, where all of it is written in the same codes."""
        given: Any = node.args[0]
        found = [self.known(part) for part in given]
        kinds = {(part[0].scale, part[0].zero) for part in found if part is not None}
        if None in found or len(kinds) != 1:
            return None
        parts = [part for part in found if part is not None]
        codes = replace(parts[0][0], low=min(part.low for part, _ in parts), high=max(part.high for part, _ in parts))
        sources = [source for _, source in parts]
        return codes, self._once(node, codes, lambda: self.emit(node, node.target, sources, *node.args[1:]))

    def _dequantized(self, node: fx.Node) -> tuple[Codes, fx.Node] | None:
        codes, source = codes_of_node(node), node.args[0]
        if codes is None or not isinstance(source, fx.Node) or source in self.changed:
            return None
        made = self.ours.get(source)
        if codes.moved and made is None:
            if node not in self.bytes:
                self.bytes[node] = codes_of_unsigned(self, node, codes)
            return self.bytes[node]
        # The ends that the node itself has are not what it does: it clamps nothing.
        ends = made or Codes(codes.scale, codes.zero)
        return replace(codes, low=ends.low, high=ends.high), source

    def _once(self, node: fx.Node, codes: Codes, make: Callable[[], fx.Node]) -> fx.Node:
        """What stands for `node` in codes of a scale and a zero, once for all who ask."""
        key = node, Codes(codes.scale, codes.zero)
        found = self.made.get(key)
        if found is None:
            found = self.made[key] = make()
        return found

    def parts(self, whole: fx.Node, codes: fx.Node) -> fx.Node:
        """The parts of `codes` as `whole` gives those of numbers, once for all who take one."""
        key = whole, codes
        if key not in self.split:
            self.split[key] = self.emit(whole, whole.target, codes, *whole.args[1:])
        return self.split[key]

    def shaped(self, at: fx.Node, found: fx.Node) -> fx.Node:
        """`found`, whose numbers are those of `at` in order, in the shape of `at`."""
        shape = [int(extent) for extent in at.meta["val"].shape]
        return found if list(found.meta["val"].shape) == shape else self.emit(at, A.reshape.default, found, shape)

    def coded(self, value: Any, codes: Codes) -> fx.Node | None:
        """`value` as codes; None where they have to be made of float32."""
        if not isinstance(value, fx.Node) or value in self.changed or 0 in value.meta["val"].shape:
            return None
        key = value, codes
        if key not in self.made:
            self.made[key] = self._coded(value, codes)
        return self.made[key]

    def _coded(self, value: fx.Node, codes: Codes) -> fx.Node | None:
        known = self.known(value)
        if known is not None:
            return recoding(self, value, known, codes)
        if value.op != "call_function":
            return None
        if value.target in CLAMPS:
            limits = CLAMPS[value.target](*value.args[1:], **value.kwargs)
            return self.coded(value.args[0], codes.within(*limits))
        if is_move(value):
            source = self.coded(origin(value), codes)
            return None if source is None else moved(self, value, source)
        if value.target in JOINS:
            parts = [self.coded(part, codes) for part in value.args[0]]  # type: ignore[union-attr]
            return None if None in parts else self.emit(value, value.target, parts, *value.args[1:])
        if value.target is A.pad.default or value.target is A.constant_pad_nd.default:
            return self._padded(value, codes)
        return self._computed(value, codes)

    def _padded(self, node: fx.Node, codes: Codes) -> fx.Node | None:
        widths, *rest = node.args[1:]
        constant = node.target is A.constant_pad_nd.default or not rest or rest[0] == "constant"
        fill = rest[-1] if rest and not isinstance(rest[-1], str) else 0.0
        if not constant or not isinstance(fill or 0.0, int | float) or fill != fill:  # NaN has no code.
            return None
        source = self.coded(node.args[0], codes)
        code = codes.of(float(fill or 0.0))  # type: ignore[arg-type]
        return None if source is None else self.emit(node, A.constant_pad_nd.default, source, widths, code)

    def _computed(self, node: fx.Node, codes: Codes) -> fx.Node | None:
        layer = self.summed(node)
        if layer is not None:
            multipliers = (layer[0].scale / codes.scale).float()
            if not bool(multipliers.isfinite().all()):
                return None
            scale = self.constants.node(node, multipliers)
            target = OPERATORS.requantize.default
            codes_of_sum = self.emit(node, target, layer[1], scale, layer[0].axis, 0, codes.zero, codes.low, codes.high)
            return self.shaped(node, codes_of_sum)
        for rule in (sum_of_codes, product_of_codes, pooled_codes, table_of):
            found = rule(self, node, codes)
            if found is not None:
                return found
        return None

    def summed(self, node: fx.Node) -> tuple[Layer, fx.Node] | None:
        """The layer that `node` is, and the sums of its products; None where it is none on codes."""
        if node not in self.sums:
            layer = layer_of(node, self.constants, self.known)
            if isinstance(layer, Layer) and layer.name in self.floats:
                layer = _FASTER
            if isinstance(layer, Layer):
                self.sums[node] = layer, layer.emitted(node, self.emit, self.constants)
            else:
                self.sums[node] = None
                self.reasons[node] = layer or ""
        return self.sums[node]

    def why(self, node: fx.Node) -> str:
        """Why a call is computed in floats, where there is more to say than that it has no form on codes."""
        if node.target in (DEQUANTIZE, PER_CHANNEL) and not gives_float32(node):
            return "it gives other floats than float32"
        if node.target in (QUANTIZE, DEQUANTIZE) and codes_of_node(node) is None:
            return "its codes are wider than a byte, or their scale is no positive number"
        return self.reasons.get(node, "")

"""A quantised network that takes and gives codes where it took and gave the numbers that these stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule, with_own_graph
from ...frontend.source_line import source_line
from .constants import Constants
from .moves import LARGEST, MOVES
from .scheme import DEQUANTIZE, OF_TENSORS, QUANTIZE, gives_float32

__all__ = ["ENDS", "CodedEnds", "Ends", "Scale", "on_codes"]

Ends = Literal["inputs", "outputs", "both"]
ENDS: tuple[Ends, ...] = ("inputs", "outputs", "both")
"""Which ends of a network may be on codes."""

_REARRANGES = MOVES - LARGEST


@dataclass(frozen=True)
class Scale:
    """How the codes of a value are read: ``scale * (code - zero_point)``, from `low` to `high`, in `dtype`."""

    scale: float
    zero_point: int
    low: int
    high: int
    dtype: torch.dtype

    def codes(self, values: Tensor) -> Tensor:
        """The codes of float32 numbers, as the network itself makes them."""
        return QUANTIZE(values, self.scale, self.zero_point, self.low, self.high, self.dtype)

    def values(self, codes: Tensor) -> Tensor:
        """What codes stand for, float32."""
        return DEQUANTIZE(codes, self.scale, self.zero_point, self.low, self.high, self.dtype)


@dataclass(frozen=True, eq=False)
class CodedEnds:
    """A network on codes.

    Attributes:
        module: takes and gives codes at the ends that were asked for.
        inputs, outputs: of each tensor that goes in or comes out its scale; None where it is what it was.
    """

    module: CapturedModule
    inputs: tuple[Scale | None, ...]
    outputs: tuple[Scale | None, ...]

    def coded(self, inputs: Any) -> Any:
        """Inputs of the network as it was, as this one takes them."""
        leaves, structure = pytree.tree_flatten(inputs)
        scales = iter(self.inputs)
        made = [_coded(leaf, next(scales)) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return pytree.tree_unflatten(made, structure)


def on_codes(module: CapturedModule, ends: Ends) -> CodedEnds:
    """`module`, on codes at some ends. What is no float32 stays what it is.

    Raises:
        InputError: a number goes in that is not quantised before all else, or one comes out that no code stands for.
    """
    if ends not in ENDS:
        raise InputError(f"codes cannot be at '{ends}'; choose {', '.join(ENDS[:-1])} or {ENDS[-1]}")
    made = with_own_graph(module)
    work = _Ends(made)
    inputs = work.inputs(ends != "outputs")
    outputs = work.outputs(ends != "inputs")
    made.graph.eliminate_dead_code()
    made.graph.lint()
    made.recompile()
    return CodedEnds(made, inputs, outputs)


class _Ends:
    """One graph that is changed."""

    def __init__(self, module: CapturedModule) -> None:
        self._graph, self._constants = module.graph, Constants(module)

    def inputs(self, asked: bool) -> tuple[Scale | None, ...]:
        found: list[Scale | None] = []
        for node in self._graph.find_nodes(op="placeholder"):
            value = node.meta.get("val")
            if isinstance(value, Tensor):
                found.append(self._input(node) if asked and value.dtype == torch.float32 else None)
        return tuple(found)

    def _input(self, node: fx.Node) -> Scale:
        """The scale of an input, whose codes are read from now on."""
        moves = [node]
        while len(moves[-1].users) == 1 and (user := next(iter(moves[-1].users))).target in _REARRANGES:
            moves.append(user)
        readers = list(moves[-1].users)
        scales = [self._scale(user, QUANTIZE) for user in readers]
        first = scales[0] if scales else None
        other = next(
            (user for user, scale in zip(readers, scales, strict=True) if scale is None or scale != first), None
        )
        if first is None or other is not None:
            why = f"{_named(other)} reads its numbers" if other is not None else "nothing reads it"
            raise InputError(
                f"input '{node.target}' cannot be codes: {why}; leave inputs out of codes, or quantise all layers that read it"
            )
        for user in readers:
            user.replace_all_uses_with(moves[-1])
            self._graph.erase_node(user)
        for move in moves:
            move.meta["val"] = move.meta["val"].to(first.dtype)
        return first

    def outputs(self, asked: bool) -> tuple[Scale | None, ...]:
        (output,) = self._graph.find_nodes(op="output")
        found: list[Scale | None] = []

        def coded(node: fx.Node) -> fx.Node:
            value = node.meta.get("val")
            if not isinstance(value, Tensor):
                return node
            if not asked or value.dtype != torch.float32:
                found.append(None)
                return node
            scale, codes = self._output(node, len(found))
            found.append(scale)
            return codes

        output.args = fx.node.map_arg(output.args, coded)
        return tuple(found)

    def _output(self, node: fx.Node, number: int) -> tuple[Scale, fx.Node]:
        moves: list[fx.Node] = []
        at = node
        while at.target in _REARRANGES:
            moves.append(at)
            at = at.args[0]  # type: ignore[assignment]
        scale = self._scale(at, DEQUANTIZE)
        if scale is None:
            raise InputError(
                f"output {number} cannot be codes: {_named(at)} gives its numbers, and nothing quantises them; leave outputs"
                " out of codes, or quantise with rounded outputs (round_outputs=True, --round-outputs)"
            )
        if scale.dtype != torch.int8:
            raise InputError(
                f"output {number} cannot be codes: {_named(at)} reads {str(scale.dtype).removeprefix('torch.')}, and codes that"
                " come out are int8; leave outputs out of codes, or quantise to int8"
            )
        codes: Any = at.args[0]
        for move in reversed(moves):
            with self._graph.inserting_after(move):
                copied = self._graph.node_copy(move, partial(_in_place_of, move.args[0], codes))
            copied.meta = {**move.meta, "val": move.meta["val"].to(scale.dtype)}
            codes = copied
        return scale, codes

    def _scale(self, node: fx.Node, wanted: Any) -> Scale | None:
        """That of a quantise or a dequantise node, whichever is wanted, of bytes; None for any other node."""
        target: Any = node.target
        if OF_TENSORS.get(target, target) is not wanted or not gives_float32(node):
            return None
        given: Any = node.args[1:6]
        *numbers, dtype = given
        known = [self._constants.value(each) if isinstance(each, fx.Node) else torch.tensor(each) for each in numbers]
        plain = [each.item() for each in known if each is not None and each.numel() == 1]
        if len(plain) != len(numbers) or dtype not in (torch.int8, torch.uint8):
            return None
        scale, zero, low, high = plain
        return Scale(float(scale), int(zero), int(low), int(high), dtype)


def _in_place_of(old: Any, new: fx.Node, node: fx.Node) -> fx.Node:
    return new if node is old else node


def _coded(value: Tensor, scale: Scale | None) -> Tensor:
    return value if scale is None or value.dtype == scale.dtype else scale.codes(value)


def _named(node: fx.Node | None) -> str:
    if node is None:
        return "nothing"
    line = source_line(node)
    return f"'{node.name}'{f' at {line}' if line else ''}"

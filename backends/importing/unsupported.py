"""What cannot be compiled is refused by the operator's name and the line of the model that calls it.

TVM says neither: its importer names what PyTorch's decompositions left of an operator, and its compiler a kernel, or nothing.
So the node at which the importer stopped, or the one that does not compile by itself either, is followed back to the
operator that the model called.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram

from ...passes.values import operator_name, source_line

__all__ = ["Search", "UnsupportedError", "culprit", "draws_numbers", "named_in", "reason_of"]

_SEARCH_SECONDS = 20.0
"""How long `culprit` begins further trials in search of the operator that fails."""

_INSTEAD = "write that line with other operators, or compile the model without it"


class UnsupportedError(Exception):
    """An operator, the line that calls it, why it cannot be compiled and what to do, in one line."""

    def __init__(self, node: fx.Node, exported: ExportedProgram, why: str, instead: str = _INSTEAD) -> None:
        called = _called(node, exported)
        line = source_line(called) or source_line(node)
        self.operator = operator_name(called)
        super().__init__(f"'{self.operator}'{f' at {line}' if line else ''} {why}; {instead}")


def draws_numbers(decomposed: ExportedProgram, exported: ExportedProgram) -> UnsupportedError | None:
    """The refusal of the first operator of a decomposed program that draws random numbers; None if none does."""
    for node in decomposed.graph.nodes:
        if node.op == "call_function" and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            why = "draws random numbers, and compiled code has no generator of them"
            return UnsupportedError(node, exported, why, "make the numbers an input of the model")
    return None


def named_in(error: Exception, program: ExportedProgram) -> fx.Node | None:
    """The node of `program` that was being decomposed when `error` was raised, as torch.fx says in its text."""
    found = re.search(r"While executing %(\w+)", str(error))
    return next((node for node in program.graph.nodes if found and node.name == found[1]), None)


def reason_of(error: Exception) -> tuple[str, str]:
    """Why an operator is not imported, and what to do: our own words if `error` has some, and else that TVM lacks it."""
    if _raised_here(error):
        why, _, instead = re.split(r"\n\s*\n|\nWhile executing", str(error))[0].partition("; ")
        return f"cannot be compiled: {why}", instead or _INSTEAD
    return "is not among the operators that TVM can take, in this form", _INSTEAD


@dataclass(frozen=True)
class Search:
    """What came of the search for the operator that fails.

    Attributes:
        node: the first that fails by itself; None if none was found.
        tried: how many kinds of calls do not fail by themselves, of `kinds` that there are.
    """

    node: fx.Node | None
    tried: int
    kinds: int

    @property
    def finding(self) -> str:
        """Where no node was found: what is known."""
        if self.tried == self.kinds:
            return "on none of its operators by itself"
        return f"on none of {self.tried} of its {self.kinds} kinds of calls that there was time to try"


def culprit(program: ExportedProgram, build: Callable[[nn.Module, tuple[Any, ...]], Any]) -> Search:
    """Looks for a node of a decomposed program that `build` fails on when it is all there is, for a limited time.

    Operators that are called seldom come first: what a network is made of is what compiles. A call that has graphs of its
    own, such as ``torch.cond``, is to blame if nothing else is.
    """
    began = time.monotonic()
    calls = Counter(node.target for node in program.graph.nodes)
    kinds = sorted(_single_nodes(program), key=lambda kind: calls[kind[0].target])
    for tried, (node, module, inputs) in enumerate(kinds):
        if time.monotonic() - began > _SEARCH_SECONDS:
            return Search(None, tried, len(kinds))
        try:
            build(module, tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in inputs))
        except Exception:
            return Search(node, tried, len(kinds))
    branching = next((node for node in program.graph.nodes if isinstance(node.target, HigherOrderOperator)), None)
    return Search(branching, len(kinds), len(kinds))


def _single_nodes(program: ExportedProgram) -> Iterator[tuple[fx.Node, nn.Module, list[tuple[Any, torch.dtype]]]]:
    """Each kind of call as a model of its own, and what it takes: equal operators on equal shapes and types once."""
    seen = set()
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        operands = [operand for operand in node.all_input_nodes if isinstance(operand.meta.get("val"), torch.Tensor)]
        if len(operands) != len(node.all_input_nodes):
            continue
        kinds = [(tuple(value.meta["val"].shape), value.meta["val"].dtype) for value in operands]
        rest = fx.map_arg((node.args, dict(node.kwargs)), operands.index)
        key = (node.target, str(kinds), str(rest))
        if key in seen:
            continue
        seen.add(key)
        yield node, _alone(node), kinds


def _alone(node: fx.Node) -> nn.Module:
    graph = fx.Graph()
    inputs = {operand: graph.placeholder(f"x{number}") for number, operand in enumerate(node.all_input_nodes)}
    graph.output(graph.node_copy(node, inputs.__getitem__))
    return fx.GraphModule(nn.Module(), graph)


def _called(node: fx.Node, exported: ExportedProgram) -> fx.Node:
    """The call of the exported program that a decomposed node comes from; the node itself where that is not known."""
    names = {source.name for source in node.meta.get("from_node") or ()}
    return next((other for other in exported.graph.nodes if other.op == "call_function" and other.name in names), node)


def _raised_here(error: Exception) -> bool:
    """Whether code of this package raised `error` on purpose, so that its words are meant for a person."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = "" if trace is None else trace.tb_frame.f_code.co_filename
    return isinstance(error, ValueError) and Path(file).parent == Path(__file__).parent

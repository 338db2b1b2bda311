"""What a rule does to one call, as the text that its docstring shows: the call before channels go, and after."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from reconvene.passes.compaction import analyse
from reconvene.passes.rewriting import rewrite
from reconvene.passes.rules import Rule, registered
from reconvene.passes.values import operator_name

from .models import Exactness, randomise
from .operators import CASES, Case

__all__ = ["examples"]

_WIDTH = 100

_PLACE = ("device", "pin_memory")
"""Arguments that say where memory is, which no rule changes."""


def examples(rule: type[Rule]) -> Iterator[str]:
    """An example for every call of the rule's operators in their cases, two lines or more each."""
    own = [name for name, instance in registered().items() if type(instance) is rule]
    for name in own:
        for case in CASES.get(name, []):
            for kind in ("M2", "M1"):
                yield from dict.fromkeys(_examples(name, case, kind))


def _examples(name: str, case: Case, kind: str) -> Iterator[str]:
    torch.manual_seed(0)
    exactness = Exactness(randomise(case.build()), case.example(), "fixed")
    view, live = analyse(exactness.graph, exactness.masks(kind))
    after = {node.name: node for node in rewrite(view, live).graph.nodes}
    known = {node.name for node in view.module.graph.nodes}
    for call in (node for node in view.operations if operator_name(node) == name and node.name in after):
        before, later = _text([call], call.name), _text(_around(after[call.name], known), call.name)
        later = later if later != before else ["the same"]
        yield "\n".join([*_beside("before ", before), *_beside("after  ", later)])


def _beside(word: str, lines: list[str]) -> list[str]:
    """Lines behind a word, broken so that they fit into a docstring."""
    broken = [part for line in lines for part in textwrap.wrap(line, _WIDTH, subsequent_indent="    ")]
    return [f"{word if place == 0 else ' ' * len(word)}{part}" for place, part in enumerate(broken)]


def _around(call: fx.Node, known: set[str]) -> list[fx.Node]:
    """The call with those that were put before or behind it, in order."""
    found, pending = {call}, [call]
    while pending:
        node = pending.pop()
        for other in (*node.all_input_nodes, *node.users):
            if other.op == "call_function" and other.name not in known and other not in found:
                found.add(other)
                pending.append(other)
    return [node for node in call.graph.nodes if node in found]


def _text(calls: list[fx.Node], name: str) -> list[str]:
    """A line for each call. Operands that are computed elsewhere are x, y, ...; stored tensors have their own last names."""
    names: dict[str, str] = {}
    letters = iter("abcdefghijklm")
    made = {call.name: "result" if call.name == name else next(letters) for call in calls}

    def shown(value: Any) -> str:
        if isinstance(value, fx.Node):
            if value.name in made:
                return made[value.name]
            if value.op != "get_attr" and value.name not in names:
                names[value.name] = "xyzuvw"[len(names)]
            own = str(value.target).rpartition(".")[2] if value.op == "get_attr" else names[value.name]
            return f"{own} {_shape(value.meta['val'])}"
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(shown, value))}]"
        return f"{value:g}" if isinstance(value, float) else str(value)

    lines = []
    for call in calls:
        arguments = [
            *map(shown, call.args),
            *(f"{key}={shown(value)}" for key, value in call.kwargs.items() if key not in _PLACE),
        ]
        start = f"{made[call.name]} = " if len(calls) > 1 else ""
        operator = operator_name(call).removeprefix("aten.")
        lines.append(f"{start}{operator}({', '.join(arguments)}) -> {_shape(call.meta['val'])}")
    return lines


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "x".join(map(str, value.shape)) or "scalar"
    return ", ".join(map(_shape, value)) if isinstance(value, list | tuple) else str(value)

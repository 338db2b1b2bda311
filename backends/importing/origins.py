"""Where in the user's model the values of an imported program come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.export import ExportedProgram
from tvm import IRModule

from ...passes.values import source_line

__all__ = ["Origin", "origins_of"]


@dataclass(frozen=True)
class Origin:
    """A call that the model makes.

    Attributes:
        layer: the name of the module that makes it, such as ``encoder.0.norm``; empty for the model itself.
        line: of its code, ``file.py:12``; empty where that is not known.
    """

    layer: str = ""
    line: str = ""


def origins_of(module: IRModule, env: Mapping[fx.Node, Any], exported: ExportedProgram) -> dict[str, Origin]:
    """By the names of Relax' variables. `env` has the value of each node of the decomposed program; what is computed on the way
    to one is of that node.
    """
    calls = {node.name: node for node in exported.graph.nodes if node.op == "call_function"}
    made = {str(getattr(value, "name", "")): node for node, value in env.items() if node.op == "call_function"}
    found: dict[str, Origin] = {}
    before: list[str] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            before.append(str(binding.var.name))
            if (node := made.get(before[-1])) is not None:
                found.update(dict.fromkeys(before, _origin(node, calls)))
                before = []
    return found


def _origin(node: fx.Node, calls: Mapping[str, fx.Node]) -> Origin:
    called = next((calls[s.name] for s in node.meta.get("from_node") or () if s.name in calls), node)
    modules = called.meta.get("nn_module_stack") or node.meta.get("nn_module_stack") or {}
    layer = str(next(reversed(modules.values()))[0]) if modules else ""
    return Origin(layer, source_line(called) or source_line(node) or "")

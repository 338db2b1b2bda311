"""The graph module that every part of this package hands on.

It is a ``torch.fx.GraphModule`` in torch.export's training IR whose ``train()`` and ``eval()`` work: they set the
flag arguments of dropout and normalisation nodes, because a captured graph has no submodules that could listen.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import fx

__all__ = ["CapturedModule", "captured_module", "copy_calling_convention"]

_FLAGS = ("training", "train", "use_input_stats")


class CapturedModule(fx.GraphModule):
    """A captured or rewritten model. Parameters keep the names they had in the original module."""

    def train(self, mode: bool = True) -> CapturedModule:
        """Switches dropout, batch normalisation and recurrent dropout to training (or inference) behaviour."""
        super().train(mode)
        changed = False
        for node in self.graph.nodes:
            changed |= _set_training_flag(node, mode)
        if changed:
            self.recompile()
        return self

    def eval(self) -> CapturedModule:
        """The same as ``train(False)``."""
        return self.train(False)


def captured_module(root: Any, graph: fx.Graph, meta: dict[str, Any] | None = None) -> CapturedModule:
    """Makes a module, in inference mode, from `graph` and the tensors it reads from `root` (a module or a dict)."""
    module = CapturedModule(root, graph, class_name="CapturedModule")
    module.meta.update(copy.copy(meta) if meta else {})
    return module.eval()


def copy_calling_convention(source: fx.Graph, target: fx.Graph) -> None:
    """Makes `target` take and give its values in the containers that `source` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies its own tree specifications in a deprecated way.
        target._codegen = copy.deepcopy(source._codegen)


def _set_training_flag(node: fx.Node, mode: bool) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name not in _FLAGS or not isinstance(argument.type, torch.BoolType):
            continue
        if argument.name == "use_input_stats":
            return False  # Instance norm without running statistics always normalises by its input.
        return _set_argument(node, position, argument.name, mode)
    return False


def _set_argument(node: fx.Node, position: int, name: str, value: bool) -> bool:
    if name in node.kwargs:
        if node.kwargs[name] == value:
            return False
        node.update_kwarg(name, value)
        return True
    if position >= len(node.args) or node.args[position] == value:
        return False
    node.update_arg(position, value)
    return True

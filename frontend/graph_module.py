"""The graph module that every part of this package hands on.

It is a ``torch.fx.GraphModule`` in torch.export's training IR whose ``train()`` and ``eval()`` work: they set the
flag arguments of dropout and normalisation nodes, because a captured graph has no submodules that could listen.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx import _pytree as fx_pytree

from .errors import InputError
from .input_sizes import InputSizes, check_inputs

__all__ = [
    "CapturedModule",
    "captured_module",
    "cloned",
    "copy_calling_convention",
    "with_own_graph",
]

_FLAGS = ("training", "train", "use_input_stats")


class CapturedModule(fx.GraphModule):
    """A captured or rewritten model. Parameters keep the names they had in the original module.

    It is called as the model is. Inputs of sizes that the graph does not hold for raise InputError (``meta["input_sizes"]``).
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.check_inputs(args, kwargs)
        return super().__call__(*args, **kwargs)

    def check_inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> None:
        """Raises InputError unless the graph holds for inputs of these sizes; names the input, its axis and both sizes."""
        sizes: InputSizes | None = self.meta.get("input_sizes")
        if sizes is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        leaves = self._flattened(args, kwargs or {})
        if all(_has_plain_sizes(leaf) for leaf in leaves):
            check_inputs(sizes, leaves)

    def _flattened(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The inputs of a call in the order of the graph's placeholders."""
        names = getattr(getattr(self.graph._codegen, "pytree_info", None), "orig_args", None)
        if names is None:
            return [*args, *kwargs.values()]
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        if len(given) != len(args) + len(kwargs) or given.keys() != set(names):
            raise InputError(
                f"the captured model takes the inputs {', '.join(names)}; it was called with {len(args)} by position"
                + (f" and {', '.join(kwargs)} by name" if kwargs else "")
            )
        spec = self._in_spec
        by_position, by_name = spec.children()
        split = [given[name] for name in names[: by_position.num_children]]
        named = {name: given[name] for name in by_name.context}
        try:
            flat: list[Any] = fx_pytree.tree_flatten_spec((split, named), spec)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"the captured model takes its inputs in other containers than these: {error}; give them as the model"
                " was captured with"
            ) from None
        return flat

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


def _has_plain_sizes(leaf: Any) -> bool:
    """Returns if a value is one of a call, rather than a stand-in of somebody who traces."""
    if isinstance(leaf, torch.Tensor):
        return all(isinstance(size, int) for size in leaf.shape)
    return not isinstance(leaf, fx.Proxy)


def captured_module(root: Any, graph: fx.Graph, meta: dict[str, Any] | None = None) -> CapturedModule:
    """Makes a module, in inference mode, from `graph` and the tensors it reads from `root` (a module or a dict)."""
    module = CapturedModule(root, graph, class_name="CapturedModule")
    module.meta.update(copy.copy(meta) if meta else {})
    return module.eval()


def with_own_graph(module: fx.GraphModule) -> CapturedModule:
    """A module on the same tensors with a graph of its own, so that its mode is its own."""
    return captured_module(module, _copied_graph(module), module.meta)


def cloned(module: fx.GraphModule) -> CapturedModule:
    """A copy with a graph and tensors of its own; tensors with several names stay one."""
    copies: dict[int, torch.Tensor] = {}
    tensors: dict[str, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            value: Any = module
            for part in name.split("."):
                value = getattr(value, part)
            if isinstance(value, torch.Tensor) and id(value) not in copies:
                copy_ = value.detach().clone()
                trained = isinstance(value, torch.nn.Parameter)
                copies[id(value)] = torch.nn.Parameter(copy_, value.requires_grad) if trained else copy_
            tensors[name] = copies.get(id(value), value)
    return captured_module(tensors, _copied_graph(module), module.meta)


def _copied_graph(module: fx.GraphModule) -> fx.Graph:
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    copy_calling_convention(module.graph, graph)
    return graph


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
        if _argument(node, "running_mean", "absent") is None:
            return False  # Without stored statistics a norm always uses those of its input.
        return _set_argument(node, position, argument.name, mode)
    return False


def _argument(node: fx.Node, name: str, missing: Any) -> Any:
    """An argument by its name in the schema; `missing` if the operator has none of that name."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name == name:
            return node.args[position] if position < len(node.args) else node.kwargs.get(name)
    return missing


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

"""The graph module that every part of this package hands on.

It is a ``torch.fx.GraphModule`` in torch.export's training IR whose ``train()`` and ``eval()`` do what the captured
model's own do, and whose layers, copies and files are those of a module.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx import _pytree as fx_pytree

from .base.errors import InputError
from .calls import named_arguments
from .execution import add_parts, executed_graph
from .input_sizes import InputSizes, check_inputs
from .layer_kinds import LayerCall, layers_of
from .layers import Part, differs_from, follows_flag, furnish
from .literals import moved_literals
from .modes import DIFFERENCES, modes_of, note_differences, set_mode, training_flag
from .stored_graph import load_graph, store_graph

__all__ = [
    "CapturedModule",
    "as_changed",
    "captured_module",
    "changed_layer",
    "cloned",
    "copied_graph",
    "copy_calling_convention",
    "with_own_graph",
]

_MADE_BY_FX = frozenset(fx.GraphModule(nn.Module(), fx.Graph()).__dict__) - frozenset(nn.Module().__dict__) - {"meta"} | {
    "_in_spec", "_out_spec", "_counts",
}  # fmt: skip
"""Attributes that are made anew for a graph."""


class CapturedModule(fx.GraphModule):
    """A captured or rewritten model. Parameters keep the names they had in the original module.

    Its layers are real where the graph allows (``nn.Conv2d``, ``nn.Linear``, ``nn.BatchNorm2d``, ...): hooks on them
    fire, and what is changed on them holds; `reconvene.capture` of such a module captures it anew. Other submodules refuse
    hooks. It can be copied, pickled and saved with ``torch.save``; ``.pt2`` files need no unpickling.

    It is called as the model is. Inputs of sizes that the graph does not hold for raise InputError (``meta["input_sizes"]``).
    """

    def __init__(
        self, root: Any, graph: fx.Graph, class_name: str = "CapturedModule", counts: nn.Module | None = None
    ) -> None:
        self.__dict__["_counts"] = root if counts is None and isinstance(root, nn.Module) else counts
        super().__init__(root, graph, class_name)
        self.__dict__["_counts"] = None

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
        """Switches to what the captured model does in its own training (or inference) mode.

        Flags that are the same in both modes stay: frozen normalisation, ``dropout(training=True)``.

        Warns:
            UserWarning: the model does something in training that the graph does not hold; the message names it.
        """
        super().train(mode)
        set_mode(self.graph, mode)
        flags = {node.name: bool(_flag(node)) for node in self.graph.nodes if follows_flag(node)}
        for path, (layer, names) in self._layers.items():
            part = self.get_submodule(path)
            if type(part) is layer.kind and names[0] in flags:
                part.training = flags[names[0]]
        if mode and self.meta.get(DIFFERENCES):
            warnings.warn(_differences(self.meta[DIFFERENCES]), stacklevel=2)
        return self

    def eval(self) -> CapturedModule:
        """The same as ``train(False)``."""
        return self.train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> CapturedModule:
        """What ``to()``, ``double()`` and ``half()`` call: types and devices that the graph names go with the tensors.

        Raises:
            InputError: the graph does not tell what the model would do in that type; nothing is changed then.
        """
        moved = moved_literals(self.graph, fn)
        super()._apply(fn, recurse)
        for node, args, kwargs in moved:
            node.args, node.kwargs = args, kwargs
        if moved:
            self.recompile()
        return self

    def recompile(self) -> Any:
        """Makes the code of the graph as it is now. Called by torch.fx."""
        graph, known = self._graph, self._layers
        found = layers_of(graph, self) | self._changed(graph)
        layers = {path: layer for path, (layer, _) in found.items()}
        changed = {path for path, (layer, _) in known.items() if layers.get(path) != layer}
        furnish(self, layers, changed, self.__dict__.get("_counts"))
        add_parts(self, {modes.owner for node in graph.nodes if (modes := modes_of(node)) is not None})
        calls = {node: path for path, (_, nodes) in found.items() for node in nodes}
        self.__dict__["_layers"] = {
            path: (layer, [node.name for node in nodes]) for path, (layer, nodes) in found.items()
        }
        self._graph = executed_graph(self, graph, calls)
        try:
            return super().recompile()
        finally:
            self._graph = graph

    @property
    def _layers(self) -> dict[str, tuple[LayerCall, list[str]]]:
        """By path, what each layer was when the code was made, and the names of its calls."""
        layers: dict[str, tuple[LayerCall, list[str]]] = self.__dict__.get("_layers", {})
        return layers

    def _changed(self, graph: fx.Graph) -> dict[str, tuple[LayerCall, list[fx.Node]]]:
        """Layers that a person has changed, whose calls are still those of what now stands there."""
        nodes = {node.name: node for node in graph.nodes if node.op == "call_function"}
        parts = dict(self.named_modules(remove_duplicate=False))
        return {
            path: (layer, [nodes[name] for name in names])
            for path, (layer, names) in self._layers.items()
            if all(name in nodes for name in names) and path in parts and differs_from(parts[path], layer) is not None
        }

    def __reduce__(self) -> tuple[Any, ...]:
        state = _state(self)
        parts = state["_modules"].items()
        state["_modules"] = {name: _Branch(part) if isinstance(part, fx.GraphModule) else part for name, part in parts}
        return _restored, (store_graph(self._graph), state)

    def __reduce_package__(self, exporter: Any) -> tuple[Any, ...]:
        raise InputError("torch.package cannot hold a captured module; use torch.save, or a .pt2 file")

    def __deepcopy__(self, memo: dict[int, Any]) -> CapturedModule:
        result = CapturedModule.__new__(CapturedModule)
        memo[id(self)] = result
        state = _state(self)
        meta = copy.copy(state.pop("meta"))
        return _filled(result, {**copy.deepcopy(state, memo), "meta": meta}, copied_graph(self._graph))

    def __copy__(self) -> CapturedModule:
        """A module of its own on the same tensors."""
        found = [
            *self.parameters(),
            *self.buffers(),
            *(value for part in self.modules() for value in vars(part).values()),
        ]
        shared = [value for value in found if isinstance(value, torch.Tensor)]  # A pruned weight is an attribute.
        return self.__deepcopy__({id(tensor): tensor for tensor in shared})


def _has_plain_sizes(leaf: Any) -> bool:
    """Returns if a value is one of a call, rather than a stand-in of somebody who traces."""
    if isinstance(leaf, torch.Tensor):
        return all(isinstance(size, int) for size in leaf.shape)
    return not isinstance(leaf, fx.Proxy)


def captured_module(
    root: Any, graph: fx.Graph, meta: dict[str, Any] | None = None, counts: nn.Module | None = None
) -> CapturedModule:
    """Makes a module, in inference mode, from `graph` and the tensors it reads from `root` (a module or a dict).

    Its batch normalisations go on from the number of batches that those of `counts` have seen, or those of `root`.
    """
    note_differences(graph, (meta or {}).get(DIFFERENCES, ()))
    module = CapturedModule(root, graph, counts=counts)
    module.meta.update(copy.copy(meta) if meta else {})
    return module.eval()


def changed_layer(module: CapturedModule) -> str | None:
    """What a person has changed on the layers since the graph was made, None if nothing: then the graph is the module."""
    layers = module._layers
    for path, (layer, _) in layers.items():
        reason = differs_from(module.get_submodule(path), layer)
        if reason is not None:
            return f"'{path}': {reason}"
    for path, part in module.named_modules():
        if not path or path in layers or isinstance(part, fx.GraphModule):  # Branches of ``torch.cond`` are graphs.
            continue
        if type(part) is not Part or part._forward_pre_hooks:
            return f"'{path}': it is a {type(part).__name__}" + (" with hooks" if part._forward_pre_hooks else "")
    return None


def as_changed(module: CapturedModule) -> nn.Module:
    """The module as it runs, with what was changed on its layers. torch.export would look at its graph instead."""
    kind = type("Changed", (_AsChanged,), {"forward": type(module).forward})
    changed: nn.Module = kind(module)
    return changed


class _AsChanged(nn.Module):
    """A captured module's code on its own parts."""

    def __init__(self, module: CapturedModule) -> None:
        super().__init__()
        names = ("_parameters", "_buffers", "_modules", "_in_spec", "_out_spec")
        self.__dict__ |= {name: module.__dict__[name] for name in names if name in module.__dict__}
        self.__dict__["_captured"] = module
        self.training = module.training

    def train(self, mode: bool = True) -> _AsChanged:
        self.__dict__["_captured"].train(mode)
        self.training = mode
        return self


def with_own_graph(module: fx.GraphModule) -> CapturedModule:
    """A module on the same tensors with a graph of its own, so that its mode is its own."""
    return captured_module(module, copied_graph(module.graph), module.meta)


def cloned(module: fx.GraphModule) -> CapturedModule:
    """A copy with a graph and tensors of its own; tensors with several names stay one."""
    return (
        copy.deepcopy(module).eval()
        if isinstance(module, CapturedModule)
        else captured_module(copy.deepcopy(module), copied_graph(module.graph), module.meta)
    )


def _state(module: fx.GraphModule) -> dict[str, Any]:
    """All that a module is beside its graph."""
    return {name: value for name, value in module.__dict__.items() if name not in _MADE_BY_FX}


class _Branch:
    """Pickles a graph that an operator calls, such as a branch of ``torch.cond``, as what it is."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored_branch, (store_graph(self.module.graph), _state(self.module))


def _restored(graph: bytes, state: dict[str, Any]) -> CapturedModule:
    return _filled(CapturedModule.__new__(CapturedModule), state, load_graph(graph))


def _restored_branch(graph: bytes, state: dict[str, Any]) -> fx.GraphModule:
    module = fx.GraphModule(nn.Module(), fx.Graph())
    module.__dict__.update(state)
    module.graph = load_graph(graph)
    return module


def _filled(module: CapturedModule, state: dict[str, Any], graph: fx.Graph) -> CapturedModule:
    CapturedModule.__init__(module, nn.Module(), fx.Graph())
    module.__dict__.update(state)
    module.graph = graph
    return module


def copied_graph(source: fx.Graph, copies: dict[fx.Node, fx.Node] | None = None) -> fx.Graph:
    """A graph with the same calls and output that is called as `source` is; `copies` receives the new node of every old one."""
    graph, copies = fx.Graph(), {} if copies is None else copies
    graph.graph_copy(source, copies)
    output = source.output_node()
    copies[output] = graph.output(fx.map_arg(output.args[0], copies.__getitem__))
    copies[output].meta = copy.copy(output.meta)
    copy_calling_convention(source, graph)
    return graph


def copy_calling_convention(source: fx.Graph, target: fx.Graph) -> None:
    """Makes `target` take and give its values in the containers that `source` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies its own tree specifications in a deprecated way.
        target._codegen = copy.deepcopy(source._codegen)


def _flag(node: fx.Node) -> Any:
    name = training_flag(node)
    return name is not None and named_arguments(node)[name]


def _differences(found: tuple[str, ...]) -> str:
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (
        f"in training the model does what this module does not: {'; '.join(found[:3])}{more}; the graph is that of"
        " inference, with the flags of training"
    )

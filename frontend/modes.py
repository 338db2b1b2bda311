"""Which arguments of a captured graph follow ``train()`` and ``eval()``: those that differ between the model's own modes.

A flag that the user wrote is the same in both modes, and stays. Which flags are not is told in one of two ways. Where
only layers of torch's own read their ``training``, each hands it to one operator, and nothing else can differ. Where
other code reads it, or ``train()`` is overridden, the model is captured in its own training mode as well, and the two
graphs are compared (see `comparison`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from .base.json_text import parse_json
from .calls import describe, innermost, is_path, named_arguments, set_named_argument
from .comparison import compare
from .snapshot import preserved
from .training_reads import Reads

__all__ = [
    "DIFFERENCES",
    "Modes",
    "mark_modes",
    "mark_modes_of_a_program",
    "modes_of",
    "note_differences",
    "read_records",
    "set_mode",
    "training_flag",
]

_RECORD = "reconvene_modes"
"""Key in ``node.meta["custom"]``, which torch.export keeps in programs and files, of calls that have a flag."""

_DIFFERENCES = "reconvene_differences"
"""Key beside that one, of the first call: what the model does in training and the graph does not."""

DIFFERENCES = "training_differences"
"""Key in a module's ``meta``: what the model does in training and the graph does not, one line each."""

_FLAGS = ("training", "train", "use_input_stats")


@dataclass(frozen=True)
class Modes:
    """How one call differs between inference and training."""

    owner: str
    """The module whose ``training`` decides, by its path."""
    arguments: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Argument by name: its value in inference and in training."""
    cumulative: bool = False
    """Running statistics are the mean over all batches (``momentum=None``), which the operator has no word for."""


def modes_of(node: fx.Node) -> Modes | None:
    """How `node` differs between the modes; None if it does not."""
    record = (node.meta.get("custom") or {}).get(_RECORD)
    if not record or not isinstance(node.target, torch._ops.OpOverload):
        return None  # Calls that export or a rewriting puts beside the operator have its records, too.
    names = {argument.name for argument in node.target._schema.arguments}
    arguments = {name: (values[0], values[1]) for name, values in record["arguments"].items() if name in names}
    return Modes(record["owner"], arguments, record["cumulative"]) if arguments or record["cumulative"] else None


def _note(node: fx.Node, modes: Modes) -> None:
    """Writes down how a call differs, as data that files can hold; with no arguments, that it does not."""
    arguments = {name: list(values) for name, values in modes.arguments.items()}
    record = {"owner": modes.owner, "arguments": arguments, "cumulative": modes.cumulative}
    node.meta["custom"] = {**(node.meta.get("custom") or {}), _RECORD: record}


def note_differences(graph: fx.Graph, differences: Sequence[str]) -> None:
    """Writes down what a model does in training and the graph does not, where files keep it: at the first call."""
    calls = (
        node for node in graph.nodes if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
    )
    first = next((node for node in calls if isinstance(node.meta.get("val"), torch.Tensor)), None)
    if first is not None and differences:
        first.meta["custom"] = {**(first.meta.get("custom") or {}), _DIFFERENCES: list(differences)}


def _noted_differences(graph: fx.Graph) -> list[str]:
    found: list[str] = []
    for node in graph.nodes:
        lines = (node.meta.get("custom") or {}).get(_DIFFERENCES, ())
        found.extend(str(line) for line in lines if str(line) not in found)
    return found


def set_mode(graph: fx.Graph, training: bool) -> None:
    """Gives every call that follows the mode its arguments for this one."""
    for node in graph.nodes:
        modes = modes_of(node)
        if modes is not None:
            for name, values in modes.arguments.items():
                set_named_argument(node, name, values[training])


def training_flag(node: fx.Node) -> str | None:
    """The name of the flag by which an operator is told that it runs in training; None for other operators."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return None
    for argument in node.target._schema.arguments:
        if argument.name in _FLAGS and isinstance(argument.type, torch.BoolType):
            return str(argument.name)
    return None


# Layers whose flag is their mode

_LAYERS: tuple[Any, ...] = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU, nn.RNN,
    nn.LSTM, nn.GRU, nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d,
)  # fmt: skip
"""Layers whose forward hands ``self.training`` to one operator and does nothing else with it."""
_FORWARDS = {layer.forward for layer in _LAYERS}
_READERS = {forward.__code__ for forward in _FORWARDS} | {nn.InstanceNorm2d._apply_instance_norm.__code__}
_NAMES = re.compile(
    r"torch\.nn\.modules\.(dropout\.\w+|batchnorm\.\w+|instancenorm\.\w+|rnn\.(RNN|LSTM|GRU)|activation\.RReLU)"
)


def _is_plain(module: nn.Module) -> bool:
    return type(module).forward in _FORWARDS


def _only_flags_differ(model: nn.Module, reads: Reads) -> bool:
    """Whether the model's graph in training is that in inference but for flags of torch's own layers."""
    if any(
        type(part).train is not nn.Module.train or type(part).eval is not nn.Module.eval for part in model.modules()
    ):
        return False
    attention, parts = nn.MultiheadAttention, set(model.modules())  # torch.fx reads the flags of modules of its own.
    return all(
        (code in _READERS and _is_plain(module))
        or (code is attention.forward.__code__ and isinstance(module, attention) and not module.dropout)
        for code, modules in reads.items()
        for module in modules
        if module in parts
    )


# From a model


def mark_modes(
    graph: fx.Graph, model: nn.Module, reads: Reads | None, in_training: Callable[[], fx.Graph]
) -> tuple[str, ...]:
    """Marks the calls of a graph captured in inference that follow the mode; returns what else differs in training.

    Args:
        graph: of `model` in inference.
        model: what was captured.
        reads: who read ``training`` while it was; None if that is not known.
        in_training: captures the model in its own training mode, for where that has to be known. May raise.
    """
    parts = dict(model.named_modules(remove_duplicate=False))
    if reads is not None and _only_flags_differ(model, reads):
        return _mark_layers(graph, parts, dict.fromkeys(parts, True))
    flags = _flags_in_training(model, parts)
    with _with_momentum(model):
        try:
            trained = in_training()
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return (
                f"a model that cannot be captured in training ({reason.rstrip('.')})",
                *_mark_layers(graph, parts, flags),
            )
    arguments, differences = compare(graph, trained)
    for node in graph.nodes:
        path, _ = innermost(node)
        part = parts.get(path)
        cumulative = _is_cumulative(node, part)
        found = dict(arguments.get(node, {}))
        if cumulative:
            found.pop("momentum", None)
        if found or training_flag(node) is not None:
            _note(node, Modes(path, found, cumulative))
            if cumulative and not _is_plain(parts[path]):
                differences.append(f"running statistics over all batches, momentum=None: {describe(node)}")
    return (*differences, *_unsynchronised(parts))


def _mark_layers(graph: fx.Graph, parts: Mapping[str, nn.Module], flags: Mapping[str, bool]) -> tuple[str, ...]:
    """Marks the flags of torch's own layers, which are in training if `flags` says so of their paths."""
    for node in graph.nodes:
        name, (path, _) = training_flag(node), innermost(node)
        part = parts.get(path)
        if name is None:
            continue
        follows = part is not None and _is_plain(part) and flags[path] and named_arguments(node)[name] is False
        _note(node, Modes(path, {name: (False, True)} if follows else {}, _is_cumulative(node, part)))
    return _unsynchronised(parts)


def _is_cumulative(node: fx.Node, part: nn.Module | None) -> bool:
    norm = isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats and part.momentum is None
    return norm and training_flag(node) == "training"


def _flags_in_training(model: nn.Module, parts: Mapping[str, nn.Module]) -> dict[str, bool]:
    """Which parts the model's own ``train()`` puts in training. It is left as it was."""
    with preserved(model):
        with suppress(NotImplementedError):  # A module of torch.export has one mode, and says so.
            model.train()
        return {path: part.training for path, part in parts.items()}


@contextmanager
def _with_momentum(model: nn.Module) -> Iterator[None]:
    """Statistics over all batches read their count, which no graph can hold: they have a momentum within the block."""
    norms = [
        part for part in model.modules() if isinstance(part, nn.modules.batchnorm._NormBase) and part.momentum is None
    ]
    for part in norms:
        part.momentum = 0.1
    try:
        yield
    finally:
        for part in norms:
            part.momentum = None


def _unsynchronised(parts: Mapping[str, nn.Module]) -> tuple[str, ...]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return ()
    names = [path for path, part in parts.items() if isinstance(part, nn.SyncBatchNorm)]
    return (f"statistics over all processes in '{names[0]}' and {len(names) - 1} more",) if names else ()


# From a program, which has one mode only


def mark_modes_of_a_program(graph: fx.Graph) -> tuple[str, ...]:
    """Marks the calls of an exported program that follow the mode, as far as a program of one mode can tell.

    Flags of torch's own layers follow it, and dropout that is off, which nobody writes for its own sake. A flag that is
    on where the layers' are off was written so. A normalisation outside of torch's layers that runs on stored statistics
    keeps them, and is named in the result. A program that was exported in training is brought to inference. Programs of
    captured modules tell of each call how it differs.
    """
    flagged = [
        (node, name) for node in graph.nodes if (name := training_flag(node)) is not None and not _is_noted(node)
    ]
    layers = {node for node, _ in flagged if _NAMES.fullmatch(innermost(node)[1])}
    trained = any(
        named_arguments(node)[name] is True and _has_statistics(node) for node, name in flagged if node in layers
    )
    differences = _noted_differences(graph)
    for node, name in flagged:
        value, dropout = named_arguments(node)[name], "dropout" in str(node.target)
        if not _has_statistics(node):
            continue  # Without stored statistics a norm always uses those of its input.
        if value is False and not (node in layers or dropout or trained):
            differences.append(f"perhaps statistics of the batch, which the file does not tell: {describe(node)}")
        elif value is False if not trained else value is True:
            _note(node, Modes(innermost(node)[0], {name: (False, True)}))
    if trained:
        _drop_counts(graph)
    return tuple(differences)


def _is_noted(node: fx.Node) -> bool:
    """Whether it is written down how a call differs."""
    return _RECORD in (node.meta.get("custom") or {})


def _drop_unsound(node: fx.Node) -> None:
    """Drops what is under our keys and is not ours."""
    custom = node.meta.get("custom") or {}
    for key in (_RECORD, _DIFFERENCES):
        if key in custom and not _is_safely_sound(key, custom[key]):
            node.meta["custom"] = custom = {name: value for name, value in custom.items() if name != key}


def _is_safely_sound(key: str, value: Any) -> bool:
    try:
        return _is_sound(key, value)
    except (TypeError, KeyError, AttributeError):
        return False


def read_records(text: Any) -> dict[str, Any]:
    """What a file tells of one call, as far as it is what `mark_modes` writes. Of other data nothing is kept."""
    try:
        found = parse_json(text)
        return {
            key: found[key] for key in (_RECORD, _DIFFERENCES) if key in found and _is_safely_sound(key, found[key])
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def _is_sound(key: str, value: Any) -> bool:
    if key == _DIFFERENCES:
        return isinstance(value, list) and all(isinstance(line, str) and line.isprintable() for line in value)
    pairs = value["arguments"].items()
    known = value.keys() == {"owner", "arguments", "cumulative"} and is_path(value["owner"])
    return known and isinstance(value["cumulative"], bool) and all(_is_pair(*pair) for pair in pairs)


def _is_pair(name: str, values: Any) -> bool:
    plain = name.isidentifier() and isinstance(values, list) and len(values) == 2
    return plain and all(value is None or isinstance(value, bool | int | float) for value in values)


def _has_statistics(node: fx.Node) -> bool:
    return named_arguments(node).get("running_mean", node) is not None


def _drop_counts(graph: fx.Graph) -> None:
    """A layer counts its batches itself."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and node.target is torch.ops.aten.add_.Tensor:
            counter = node.args[0]
            if isinstance(counter, fx.Node) and str(counter.target).endswith("num_batches_tracked"):
                graph.erase_node(node)

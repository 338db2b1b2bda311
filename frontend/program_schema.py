"""Which texts a stored program may hold.

torch's reader evaluates sizes as expressions, imports what the structure of inputs names, looks operators up by
attribute, and writes names into source code that it then executes. So every text of a program has to match a
pattern of what torch itself writes there. The walk follows torch's own description of the format
(``torch._export.serde.schema``): a text at a place that is not listed here is refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from torch._export.serde import schema
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE
from torch._export.serde.union import _Union

from .base.json_text import parse_json
from .base.limits import check_limit
from .modes import read_records
from .size_expressions import is_size_expression

__all__ = ["Unvetted", "vetted_payloads", "vetted_program"]


class Unvetted(Exception):
    """What an entry of a record asks for; the message goes on from the record's name."""


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Of a value or an argument: both become names in Python code."""

_PATH = re.compile(r"[\w.\-:/ @+]*")
"""Of a parameter or a module: dotted, and no quote, bracket or backslash, since it becomes a quoted text in Python code."""

_WORDS = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*")
"""Text that is only shown or handed to an operator."""

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.(?!(from_file|save|_print|warn)\b)\w+(\.\w+)?"
    r"|torch\.ops\.torchvision\.(nms|roi_align|roi_pool|ps_roi_align|ps_roi_pool|deform_conv2d)(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|associative_scan|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast)"
    r"|(torch\.)?(_operator|operator)\.(getitem|eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|truediv|floordiv|mod|pow|and_|or_"
    r"|not_|xor|invert|lshift|rshift)"
    r"|math\.(trunc|ceil|floor|sqrt)|torch\._?sym_(not|int|float|ite|max|min|sum|sqrt|fresh_size|constrain_range_for_size)"
)
"""Functions that a graph may call. Operators of unknown libraries may do anything; these few touch files or the terminal."""

_STRUCTURES = {
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
    "collections.namedtuple",
    "torch.fx.immutable_collections.immutable_list",
    "torch.fx.immutable_collections.immutable_dict",
    "torch.Size",
}
"""Containers of inputs and outputs. Others name a module to import (defaultdict), or a class of another package."""


def vetted_program(text: bytes) -> bytes:
    """The JSON of an exported program, without what is not needed: guards, and data of other packages.

    Raises:
        Unvetted: an entry asks for something that is not known to be harmless; the message names it.
        ValueError: it is not JSON.
    """
    program = _parsed(text)
    if isinstance(program, dict):
        program["guards_code"] = []
        if isinstance(program.get("graph_module"), dict):
            program["graph_module"]["metadata"] = {}
    return json.dumps(_walk(schema.ExportedProgram, program, "program")).encode()


def vetted_payloads(text: bytes, sizes: Mapping[str, int]) -> bytes:
    """The JSON that describes stored tensors, whose records have `sizes` in bytes. Raises as `vetted_program`."""
    found, expanded = _walk(schema.PayloadConfig, _parsed(text), "tensors"), 0
    for name, entry in found["config"].items():
        if entry["use_pickle"]:
            raise Unvetted(f"stores '{name}' as a pickle, which may run code")
        if not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            # Constants of other kinds than tensors are pickles, whatever they say.
            raise Unvetted(f"stores '{name}' as a pickle, which may run code")
        if entry["path_name"] not in sizes:
            raise Unvetted(f"names a record for '{name}' that is not there, '{entry['path_name']}'")
        expanded += _expanded(name, entry["tensor_meta"], sizes[entry["path_name"]])
    # By repeating what is stored, with strides of 0.
    check_limit("unpacked", expanded, "what its tensors repeat of what is stored")
    return json.dumps(found).encode()


def _expanded(name: str, tensor: dict[str, Any] | None, stored: int) -> int:
    """The bytes that a stored tensor has by its description, beyond those `stored`; all of them have to lie there."""
    if tensor is None:
        raise Unvetted(f"does not describe '{name}'")
    extents, strides, (offset,) = (_numbers(name, tensor[key]) for key in ("sizes", "strides", "storage_offset"))
    kind = _SERIALIZE_TO_TORCH_DTYPE.get(tensor["dtype"])
    if kind is None or tensor["layout"] != schema.Layout.Strided or len(strides) != len(extents):
        raise Unvetted(f"says that '{name}' is of a kind that is not known")
    count = math.prod(extents)
    last = offset + sum((extent - 1) * stride for extent, stride in zip(extents, strides, strict=True)) if count else -1
    if (last + 1) * kind.itemsize > stored or max([0, *extents]) > _MAX_EXTENT:
        raise Unvetted(f"says that '{name}' is larger than what is stored")
    return max(0, count * kind.itemsize - stored)


_MAX_EXTENT = 2**63 - 1


def _numbers(name: str, values: Any) -> list[int]:
    found = [value.get("as_int") for value in (values if isinstance(values, list) else [values])]
    if any(value is None or value < 0 for value in found):
        raise Unvetted(f"says that '{name}' has sizes that are no numbers")
    return found


def _parsed(text: bytes) -> Any:
    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise Unvetted(f"says one thing twice, '{pairs[0][0]}'")
        return dict(pairs)

    return parse_json(text, make_object=no_repeats)


def _walk(kind: Any, value: Any, where: str) -> Any:
    """`value`, if it is of the type `kind`, and all texts in it match."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _walk(kind.__origin__, value, where)
    if isinstance(kind, str | typing.ForwardRef):
        return _walk(getattr(schema, kind if isinstance(kind, str) else kind.__forward_arg__), value, where)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (one for one in typing.get_args(kind) if one is not type(None))
        return None if value is None else _walk(inner, value, where)
    if dataclasses.is_dataclass(kind):
        return _walk_record(kind, value, where)
    if origin is list:
        _require(isinstance(value, list), where, value)
        return [_walk(typing.get_args(kind)[0], entry, where) for entry in value]
    if origin is dict:
        _require(isinstance(value, dict), where, value)
        inner = typing.get_args(kind)[1]
        return {_text(f"{where}, key", key): _walk(inner, entry, f"{where}, value") for key, entry in value.items()}
    return _walk_plain(kind, value, where)


def _walk_record(kind: Any, value: Any, where: str) -> dict[str, Any]:
    """A dataclass of the schema, by its fields; of a union exactly one."""
    _require(isinstance(value, dict), where, value)
    if kind is schema.Node and "metadata" in value:
        value = {**value, "metadata": _kept_metadata(value["metadata"])}
    hints = _hints(kind)
    found = {
        name: _walk(hints[name], entry, f"{kind.__name__}.{name}") for name, entry in value.items() if name in hints
    }
    if isinstance(kind, type) and issubclass(kind, _Union):
        _require(len(found) == 1, where, value)
        return found
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in found:
            raise Unvetted(f"lacks '{kind.__name__}.{field.name}'")
    return found


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _HINTS:
        names = {field.name for field in dataclasses.fields(kind)}
        hints = typing.get_type_hints(kind, globalns=vars(schema), include_extras=True)
        _HINTS[kind] = {name: hint for name, hint in hints.items() if name in names}
    return _HINTS[kind]


def _walk_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is str:
        _require(isinstance(value, str), where, value)
        return _text(where, value)
    if kind is bool:
        _require(isinstance(value, bool), where, value)
    elif kind is float:
        _require(isinstance(value, int | float | str), where, value)
        return value if not isinstance(value, str) else _number(where, value)
    elif kind is int or (isinstance(kind, type) and issubclass(kind, IntEnum)):
        _require(isinstance(value, int) and not isinstance(value, bool), where, value)
    else:
        raise Unvetted(f"has an entry of a kind that is not known at '{where}'")
    return value


def _number(where: str, value: str) -> str:
    """Infinities and NaN are spelled out."""
    if value not in ("Infinity", "-Infinity", "NaN", "inf", "-inf", "nan"):
        raise Unvetted(f"asks for {_shown(value)} as a number at '{where}'")
    return value


def _require(holds: bool, where: str, value: Any) -> None:
    if not holds:
        raise Unvetted(f"has {_shown(value)} at '{where}', which makes no sense there")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _kept_metadata(value: Any) -> dict[str, str]:
    """Of a node: the lines and modules it comes from, and how it differs in training, which is plain data.

    The rest is looked up, imported or decoded again by torch.
    """
    _require(isinstance(value, dict), "Node.metadata", value)
    kept = {key: value[key] for key in ("stack_trace", "nn_module_stack", "torch_fn") if value.get(key)}
    records = read_records(value.get("custom"))
    return kept | {"custom": json.dumps(records)} if records else kept


def _text(where: str, value: str) -> str:
    if where not in _TEXTS:
        raise Unvetted(f"has a text at '{where}', where none is known")
    if not _TEXTS[where](value):
        raise Unvetted(f"asks for {_shown(value)} at '{where}', which may run code")
    return value


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: pattern.fullmatch(value) is not None


def _is_structure(text: str) -> bool:
    """Whether the containers of inputs or outputs are plain ones. torch reads the text as JSON, and again what is in it."""
    try:
        protocol, root = parse_json(text)
        pending = [root]
        while pending:
            entry = pending.pop()
            kind, context = entry["type"], entry["context"]
            pending += entry["children_spec"]
            if kind is None:
                if context is not None:
                    return False
            elif kind not in _STRUCTURES or not _is_context(context):
                return False
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return protocol == 1


def _is_context(context: Any) -> bool:
    """What a container knows of itself: nothing, the keys of a dict, the name of a named tuple."""
    if isinstance(context, str):
        try:
            context = parse_json(context)
        except ValueError:
            return _PATH.fullmatch(context) is not None
    keys = [context] if isinstance(context, str | int) or context is None else context
    return isinstance(keys, list) and all(
        key is None or isinstance(key, int) or (isinstance(key, str) and _PATH.fullmatch(key)) for key in keys
    )


_TEXTS: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(
        (
            "TensorArgument.name", "TokenArgument.name", "GraphArgument.name", "NamedArgument.name", "Node.name",
            "SymIntArgument.as_name", "SymFloatArgument.as_name", "SymBoolArgument.as_name",
            "Graph.tensor_values, key", "Graph.sym_int_values, key", "Graph.sym_bool_values, key",
            "Graph.sym_float_values, key", "InputToConstantInputSpec.name", "GradientToUserInputSpec.user_input_name",
            "UserInputMutationSpec.user_input_name", "ModuleCallSignature.forward_arg_names", "Device.type",
            "NamedTupleDef.field_names", "ExportedProgram.opset_version, key", "ExportedProgram.verifiers",
            "Argument.as_string_to_argument, key",
        ),
        lambda value: _NAME.fullmatch(value) is not None or value == "",
    ),
    **dict.fromkeys(
        (
            "InputToParameterSpec.parameter_name", "InputToBufferSpec.buffer_name", "ModuleCallEntry.fqn",
            "InputToTensorConstantSpec.tensor_constant_name", "BufferMutationSpec.buffer_name",
            "ParameterMutationSpec.parameter_name", "GradientToParameterSpec.parameter_name", "PayloadConfig.config, key",
            "PayloadMeta.path_name", "ExportedProgram.torch_version", "GraphModule.treespec_namedtuple_fields, key",
        ),
        _matches(_PATH),
    ),
    **dict.fromkeys(
        (
            "Argument.as_string", "Argument.as_strings", "ConstantValue.as_string", "Node.metadata, key",
            "Node.metadata, value", "GraphModule.metadata, key",
        ),
        _matches(_WORDS),
    ),
    "Node.target": _matches(_OPERATOR),
    "Argument.as_operator": _matches(_OPERATOR),
    "SymExpr.expr_str": is_size_expression,
    "ExportedProgram.range_constraints, key": is_size_expression,
    "ModuleCallSignature.in_spec": _is_structure,
    "ModuleCallSignature.out_spec": _is_structure,
}  # fmt: skip
"""By where a text stands: the class and the field of torch's schema."""

"""What a compiled model takes and gives, how it is called, and whether given values are that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument

from ..frontend.base.arrays import as_tensor
from ..frontend.base.errors import CaptureError, InputError
from ..frontend.base.json_text import json_array, json_count, json_object, json_text
from .structure import TENSOR, Structure, structure_of
from .tensor_spec import ALIGNMENT, TensorSpec

__all__ = ["Signature", "TensorSpec", "checked_inputs", "signature_of"]


@dataclass(frozen=True)
class Signature:
    """How a model is called, and what it gives: containers and plain values around its tensors.

    Attributes:
        arguments: by name, in order.
        positional: how many of them, the first ones, may be given without their names.
        result: None, numbers and strings in it are as they were when the model was compiled.
    """

    arguments: Mapping[str, Structure]
    positional: int
    result: Structure

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """What a call has in the places of the input tensors, in their order.

        Raises:
            InputError: it is not how the model is called.
        """
        names = list(self.arguments)
        if len(args) > self.positional:
            raise InputError(
                f"the model takes {self.positional} inputs by position, got {len(args)}; give {self._described()}"
            )
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in kwargs:
            if name not in self.arguments:
                raise InputError(
                    f"the model was compiled without an input '{name}'; give {self._described()}, or compile it with an"
                    f" example of '{name}'"
                )
            if name in names[: len(args)]:
                raise InputError(f"input '{name}' was given twice, by position and by name")
        found: list[Any] = []
        for name, structure in self.arguments.items():
            if name in given:
                found += structure.taken(given[name], f"input '{name}'")
            elif structure != _NONE:
                # What the model takes instead, its default, may be another value than the one that was compiled.
                raise InputError(f"input '{name}' is missing; give {self._described()}")
        return found

    def returned(self, tensors: Iterable[Any]) -> Any:
        """The model's result with these output tensors."""
        return self.result.built(iter(tensors))

    def input_names(self) -> tuple[str, ...]:
        """A name for each input tensor: of its argument, with ``.`` before the keys and places within it."""
        return _names(((name,), structure) for name, structure in self.arguments.items())

    def output_names(self) -> tuple[str, ...]:
        """A name for each output tensor: the keys and fields that lead to it, or ``output0`` and so on without any."""
        return _names([((), self.result)])

    def counts(self) -> tuple[int, int]:
        """How many tensors go in, and come out."""
        return sum(structure.tensors for structure in self.arguments.values()), self.result.tensors

    def constants(self) -> dict[str, Any]:
        """Plain values among the outputs, by what leads to them."""
        return {
            ".".join(map(str, path)) or "output": leaf.value
            for leaf, path in self.result.paths()
            if leaf.kind == "value"
        }

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "arguments": [[name, structure.plain()] for name, structure in self.arguments.items()],
            "positional": self.positional,
            "result": self.result.plain(),
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Signature:
        """What `plain` gave. Raises ValueError if it did not give that."""
        fields = json_object(data, ("arguments", "positional", "result"))
        pairs = [json_array(pair) for pair in json_array(fields["arguments"])]
        arguments = {json_text(name, "argument"): Structure.from_plain(structure) for name, structure in pairs}
        if len(arguments) < len(pairs):
            raise ValueError("two arguments of one name")
        positional = json_count(fields["positional"], "positional", len(arguments))
        return cls(arguments, positional, Structure.from_plain(fields["result"]))

    def _described(self) -> str:
        return ", ".join(f"'{name}'" for name in self.arguments) or "nothing"


_NONE = Structure("value")


def signature_of(program: ExportedProgram) -> Signature:
    """How the model that was exported is called."""
    arguments, result = program.call_spec.in_spec, program.call_spec.out_spec
    assert arguments is not None and result is not None
    leaves = (_leaf(spec.arg) for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT)
    by_position, by_name = structure_of(arguments, leaves).entries
    named = program.module_call_graph[0].signature.forward_arg_names
    count = len(by_position.entries)
    names = named[:count] if named is not None else [f"input{number}" for number in range(count)]
    structures = {
        **dict(zip(names, by_position.entries, strict=True)),
        **dict(zip(by_name.keys, by_name.entries, strict=True)),
    }
    outputs = program.graph_signature.output_specs
    given = (_leaf(spec.arg) for spec in outputs if spec.kind in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT))
    return Signature(structures, count, structure_of(result, given))


def checked_inputs(specs: Sequence[TensorSpec], inputs: Sequence[Any]) -> list[torch.Tensor]:
    """`inputs` as contiguous tensors in main memory that vectors can be loaded from.

    They share memory with tensors and arrays that are so already.

    Raises:
        InputError: their number, or the kind, shape or dtype of one, is not what `specs` say.
    """
    if len(inputs) != len(specs):
        names = ", ".join(f"{spec.name} ({spec})" for spec in specs)
        raise InputError(f"the model takes {len(specs)} inputs, got {len(inputs)}; give {names}")
    return [_checked(spec, value) for spec, value in zip(specs, inputs, strict=True)]


def _checked(spec: TensorSpec, value: Any) -> torch.Tensor:
    tensor = as_tensor(value, f"input '{spec.name}'")
    got = TensorSpec(spec.name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    if (got.shape, got.dtype) != (spec.shape, spec.dtype):
        raise InputError(f"input '{spec.name}' must be {spec}, got {got}")
    return _placed(tensor)


def _placed(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_contiguous() and not tensor.data_ptr() % ALIGNMENT:
        return tensor
    return copied(tensor)


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy that vectors can be loaded from."""
    # PyTorch aligns what it allocates. NumPy copies on this thread: PyTorch's others may not have survived a fork.
    placed = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    if tensor.dtype is torch.bfloat16:
        return placed.copy_(tensor)
    np.copyto(placed.numpy(), tensor.numpy())
    return placed


def _leaf(argument: Any) -> Structure:
    if isinstance(argument, TensorArgument):
        return TENSOR
    if isinstance(argument, ConstantArgument):
        return Structure("value", value=argument.value)
    kind = type(argument).__name__.removesuffix("Argument")
    raise CaptureError(
        f"the model takes or gives a {kind}, and compiled code only tensors; leave it out, or make it a tensor"
    )


def _names(structures: Iterable[tuple[tuple[Any, ...], Structure]]) -> tuple[str, ...]:
    """Names for all tensors, no two the same."""
    found: dict[str, None] = {}
    for start, structure in structures:
        for path in _tensor_paths(structure):
            steps = (*start, *path)
            named = any(isinstance(step, str) for step in steps)
            name = ".".join(map(str, steps)) if named else f"output{len(found)}"
            while name in found:
                name += "_"
            found[name] = None
    return tuple(found)


def _tensor_paths(structure: Structure) -> Iterator[tuple[Any, ...]]:
    return (path for leaf, path in structure.paths() if leaf.kind == "tensor")

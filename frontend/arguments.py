"""Example inputs as a person gives them, and as arguments of one call: by position, by keyword, or one tensor alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from .base.errors import InputError

__all__ = ["Inputs", "arguments", "input_names", "positional"]

Inputs = Sequence[Any] | Mapping[str, Any] | torch.Tensor
"""A sequence of positional inputs, a mapping of keyword inputs, or one tensor that is the only input."""


def arguments(model: nn.Module, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of one call of `model`; keywords in the order of its forward's parameters.

    Raises:
        InputError: the model's forward does not take these keywords.
    """
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if not isinstance(inputs, Mapping):
        return tuple(inputs), {}
    parameters = inspect.signature(model.forward).parameters
    keywords = {str(name): value for name, value in inputs.items()}
    any_name = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [name for name in keywords if name not in parameters]
    if unknown and not any_name:
        raise InputError(
            f"{type(model).__name__} takes no input '{unknown[0]}'; a dict of example inputs gives them by name, and it"
            f" takes {_listed(list(parameters))}; where the dict itself is one input, give ({{...}},)"
        )
    place = {name: number for number, name in enumerate(parameters)}
    return (), dict(sorted(keywords.items(), key=lambda item: place.get(item[0], len(place))))


def positional(module: fx.GraphModule, inputs: Inputs) -> tuple[Any, ...]:
    """`inputs` in the order in which a captured module takes them.

    Raises:
        InputError: a keyword is missing, or the module has no input of that name.
    """
    if isinstance(inputs, torch.Tensor):
        return (inputs,)
    if not isinstance(inputs, Mapping):
        return tuple(inputs)
    names = input_names(module)
    for name in [*names, *inputs]:
        if name not in inputs or name not in names:
            what = "lacks" if name in names else "has no"
            raise InputError(f"the captured model takes the inputs {_listed(names)}; what was given {what} '{name}'")
    return tuple(inputs[name] for name in names)


def input_names(module: fx.GraphModule) -> list[str]:
    """The names of a captured module's inputs, in order: those of the model's forward."""
    return [name for name in inspect.signature(module.forward).parameters if name != "self"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"

"""What a person may write for MODEL on the command line, and the inputs it is run with."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..frontend.base.errors import InputError
from ..frontend.base.own_code import failure
from ..frontend.base.progress import stage
from ..frontend.capture import capture
from ..frontend.data.datasets import find_dataset
from ..frontend.data.facts import DataFacts
from ..frontend.networks.names import unknown_model
from ..frontend.networks.papers import NETWORKS, SHORT_NAMES, Network, find_network, network_for
from ..frontend.program_file import load_stored
from ..frontend.stored_compute import Compute
from ..frontend.weights import load_weights, place_and_key
from .arrays import Given
from .example_inputs import arranged, check_bytes, random_input, shaped

WEIGHTS_ALONE = (".pth", ".ckpt", ".safetensors")
"""Ends of the names of files that hold no graph."""

__all__ = ["Fit", "LoadedModel", "called", "load_model", "named_object", "rebatched"]


@dataclass(frozen=True)
class Fit:
    """Images that a network by name is made for."""

    classes: int
    side: int | None
    """In pixels; None where nothing says it."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that was named on the command line."""

    module: torch.fx.GraphModule
    example_inputs: tuple[Any, ...]
    name: str
    """For titles."""
    beside: Path
    """Where its outputs go unless said otherwise: its path without the suffix."""
    certificate: Mapping[str, Any] | None = None
    """Of the compaction it came from, if its file carries one."""
    compute: Compute | None = None
    """Beside that of the dense network, if its file carries it."""
    data: DataFacts | None = None
    """What it was trained on, if its file carries that."""
    origin: Mapping[str, Any] | None = None
    """How it came about, if its file carries that."""


def load_model(
    model: str,
    inputs: Sequence[str] = (),
    seed: int = 0,
    dynamic: Sequence[str] = (),
    *,
    batch: int | None = None,
    dataset: str | Fit | None = None,
    width: float = 1.0,
    given: Sequence[Given] = (),
    weights: str | None = None,
) -> LoadedModel:
    """Loads MODEL: a ``.pt2`` path, ``package.module:attribute``, ``file.py:attribute`` or the name of a network.

    Args:
        model: what the person wrote. An attribute is an nn.Module or a callable that gives one.
        inputs: shapes of example inputs, as `example_inputs.shaped` reads them.
        seed: of a network's initial weights and of the example inputs' values.
        dynamic: ``batch`` and/or ``size`` for sizes that must be able to vary. Without it the batch may, if the model allows
            that; a ``.pt2`` says itself what may.
        batch: size of the first axis of every example input, instead of the one they have.
        dataset: of `frontend.data.datasets.DATASETS`, or what one of the papers' networks is fitted to instead.
        width: scales the layers of such a network.
        given: arrays, which are the example inputs instead.
        weights: ``FILE`` or ``FILE:KEY``, a state dict for what code or a network's name gives; see `frontend.weights`.

    Raises:
        InputError: there is no such model, it does not load, or its inputs do not fit.
    """
    torch.manual_seed(seed)
    wanted = shaped(inputs, seed) if inputs else [(entry.name, entry.tensor) for entry in given]
    if model.endswith(".pt2") or Path(model).is_file():
        if weights is not None:
            raise InputError(f"'{model}' has its weights in it; give others to the code that the model is made by")
        if model.endswith(WEIGHTS_ALONE):
            raise InputError(
                f"'{model}' is weights without a model; name the code that builds it, file.py:callable, and '--weights {model}'"
            )
        with stage(f"reading {model}"):
            stored = load_stored(model)
            certificate, compute, data = stored.certificate, stored.compute, stored.data
        used = arranged(wanted, stored.module, stored.example_inputs) if wanted else stored.example_inputs
        if not used:
            raise InputError(f"'{model}' carries no example inputs; give their shapes with --input 1x3x224x224")
        used = rebatched(used, batch)
        check_free(stored.module, dynamic, model)
        stored.module.check_inputs(used)
        beside = Path(model).with_suffix("")
        return LoadedModel(
            stored.module, used, Path(model).stem, beside, certificate, compute, data, origin=stored.origin
        )
    if ":" in model:
        module, name = from_code(model), model.rpartition(":")[2]
        if not wanted:
            raise InputError(f"'{model}' needs example inputs; give their shapes with --input 1x3x224x224")
    elif model in NETWORKS or (dataset is not None and model in SHORT_NAMES):
        network, name = fitted(model, dataset, width), model
        with stage(f"building {model}"):
            module = network.build()
        wanted = wanted or [(None, random_input(network.shape, torch.float32, seed))]
    else:
        raise unknown_model(model)
    if weights is not None:
        with stage(f"reading {weights}"):
            if not weights:
                raise InputError("--weights names no file; write --weights FILE")
            file, key = place_and_key(weights)
            load_weights(module, file, key=key)
    used = rebatched(arranged(wanted, module), batch)
    return LoadedModel(capture(module, used, dynamic_shapes(used, dynamic)), used, name, Path(name))


def fitted(model: str, dataset: str | Fit | None, width: float) -> Network:
    """The network of that name, for the data set if there is one."""
    if dataset is None:
        if width != 1.0:
            raise InputError("a width is for networks that are fitted to a data set; name it with --dataset")
        return find_network(model)
    if isinstance(dataset, Fit):
        if dataset.side is None:
            raise InputError(f"images of any size could be made for '{model}'; say of which, such as --input 1x3x64x64")
        return network_for(model, dataset.classes, dataset.side, width)
    facts = find_dataset(dataset)
    return network_for(model, facts.classes, facts.side, width)


def rebatched(inputs: tuple[Any, ...], batch: int | None) -> tuple[Any, ...]:
    """The inputs with a first axis of `batch`, cut or repeated."""
    if batch is None:
        return inputs
    if batch < 1:
        raise InputError(f"batch {batch} is not 1 or more")

    def repeated(value: torch.Tensor) -> torch.Tensor:
        if value.dim():
            check_bytes(value[0].nbytes * batch, f"of batch {batch}")
        return value.repeat(-(-batch // len(value)), *[1] * (value.dim() - 1))[:batch] if value.dim() else value

    return tuple(pytree.tree_map_only(torch.Tensor, repeated, inputs))


def check_free(graph: torch.fx.GraphModule, dynamic: Sequence[str], model: str) -> None:
    """Raises InputError if a size in `dynamic` is fixed in a graph that comes from a file."""
    check_dynamic(dynamic)
    shapes = [taken.shape for taken in graph.meta["input_sizes"].inputs if taken.shape]
    for what, axes in (("batch", slice(0, 1)), ("size", slice(2, None))):
        if what in dynamic and not any(isinstance(size, str) for shape in shapes for size in shape[axes]):
            raise InputError(
                f"the {what} of '{model}' is fixed: it was captured so; capture or prune the model again from its code, with"
                f" --dynamic {what}"
            )


def check_dynamic(dynamic: Sequence[str]) -> None:
    """Raises InputError unless these are ``batch`` and ``size``."""
    unknown = set(dynamic) - {"batch", "size"}
    if unknown:
        raise InputError(f"nothing is called '{min(unknown)}' that could be dynamic; there are batch and size")


def dynamic_shapes(inputs: tuple[Any, ...], dynamic: Sequence[str]) -> Any:
    """torch.export's form of ``batch`` (axis 0) and ``size`` (axes 2 and up). None when nothing is dynamic."""
    check_dynamic(dynamic)
    if not dynamic:
        return None

    def free(value: Any) -> dict[int, Any] | None:
        if not isinstance(value, torch.Tensor):
            return None
        axes = [
            axis for axis in range(value.dim()) if ("batch" if axis == 0 else "size" if axis > 1 else "") in dynamic
        ]
        return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)

    return tuple(pytree.tree_map(free, inputs))


def from_code(model: str) -> nn.Module:
    """The module behind ``file.py:attribute`` or ``package.module:attribute``."""
    found = named_object(model, "a callable in it that gives an nn.Module")
    if not isinstance(found, nn.Module) and callable(found):
        found = called(model, found)
    if not isinstance(found, nn.Module):
        raise InputError(f"'{model}' gives a {type(found).__name__}, not an nn.Module")
    return found


def named_object(name: str, wanted: str) -> Any:
    """What ``file.py:attribute`` or ``package.module:attribute`` names. `wanted`: what it should be, for messages.

    Raises:
        InputError: there is no such file, module or attribute, or importing it fails.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise InputError(f"'{name}' names no callable; write package.module:callable or file.py:callable")
    with stage(f"importing {place}"):
        try:
            code = from_file(Path(place)) if place.endswith(".py") else from_name(place)
            found: Any = code
            for part in attribute.split("."):
                found = getattr(found, part)
        except InputError:
            raise
        except AttributeError as error:
            if error.obj is not code:
                raise broken(name, error) from error
            raise InputError(f"'{place}' has no '{attribute}'; name {wanted}") from None
        except Exception as error:
            raise broken(name, error) from error
    return found


def called(name: str, function: Any) -> Any:
    """What a person's function gives. Raises InputError, saying where, if it fails."""
    with stage(f"calling {name}"):
        try:
            return function()
        except Exception as error:
            raise broken(name, error) from error


def from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"no such file: '{path}'")
    # Under a name of its own: the file may be called like a package it imports.
    spec = importlib.util.spec_from_file_location(f"_reconvene_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"'{path}' cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def from_name(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise InputError(f"there is no Python module '{name}'; is its package installed?") from None
        raise
    finally:
        sys.path.pop(0)


def broken(model: str, error: Exception) -> InputError:
    """The person's own code failed: one line with where."""
    return failure(f"'{model}' does not load", error)

"""torch.export as this package calls it: in inference mode, on a model that is left as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .attributes import check_kept_attributes
from .base.errors import CaptureError
from .base.torch_logs import FAILURES, quiet
from .capture_errors import capture_error
from .graph_module import CapturedModule, as_changed, changed_layer
from .outside import check_kept_outside, outside_of, preserved_outside
from .snapshot import preserved
from .state import tracing_state
from .strict_export import strict_export

__all__ = ["distinct", "export_program", "exported", "inference"]


def export_program(
    model: nn.Module, args: tuple[Any, ...], dynamic_shapes: Any = None, kwargs: dict[str, Any] | None = None
) -> ExportedProgram:
    """Exports `model` in inference mode and leaves it as it was. Raises CaptureError.

    What cannot be traced is exported strictly, from the bytecode of forward, if the program then computes what the model does.
    """
    if isinstance(model, CapturedModule) and changed_layer(model) is not None:
        model = as_changed(model)
    try:
        return exported(model, args, kwargs or {}, dynamic_shapes)
    except CaptureError:
        raise
    except Exception as error:
        with _exporting(model, (args, kwargs or {}), False):
            program = strict_export(model, args, kwargs or {}, dynamic_shapes)
        if program is not None:
            return program
        raise capture_error(model, args, kwargs or {}, error) from error


def exported(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any = None, training: bool = False
) -> ExportedProgram:
    """The same with torch's own errors, or in the model's own training mode."""
    outside = outside_of(model)
    with _exporting(model, (args, kwargs), training), tracing_state(model) as traced, _DetachedData():
        args, kwargs = distinct((args, kwargs))
        program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
        changed = outside.changed()
    if changed and not training:
        with inference(model, (args, kwargs)):
            check_kept_outside(model, program, (args, kwargs), changed)
    if traced.attributes and not training:
        with inference(model, (args, kwargs)):
            check_kept_attributes(model, program, (args, kwargs), traced.attributes)
    return program


@contextmanager
def _exporting(model: nn.Module, inputs: Any, training: bool) -> Iterator[None]:
    with _mode(model, inputs, training), warnings.catch_warnings():
        # Pruning hooks and parametrisations assign the weight they compute; the graph has the computation.
        warnings.filterwarnings("ignore", message=".*assigned during export.*")
        # A batch of one is then an ordinary one, and a branch on "is it one?" is a condition that is written down.
        with symbolic_shapes.patch(backed_size_oblivious=True), quiet(*FAILURES):  # type: ignore[attr-defined]
            yield


def distinct(inputs: Any) -> Any:
    """`inputs` without one tensor at two places, as in ``attention(x, x, x)``: torch.export would read one of them for both."""
    seen: set[int] = set()

    def own(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or id(value) not in seen:
            seen.add(id(value))
            return value
        return value.view_as(value)

    return pytree.tree_map(own, inputs)


@contextmanager
def inference(model: nn.Module, inputs: Any) -> Iterator[None]:
    """Within the block, `model` is in inference mode and may be run or traced; then it and `inputs` are as before."""
    with _mode(model, inputs, False):
        yield


@contextmanager
def _mode(model: nn.Module, inputs: Any, training: bool) -> Iterator[None]:
    before = isinstance(model, CapturedModule) and model.training
    with preserved(model, inputs), preserved_outside(model):
        _switch(model, training)
        try:
            yield
        finally:
            if isinstance(model, CapturedModule) and before != training:
                _switch(model, before)  # Its flags are in its graph, too.


def _switch(model: nn.Module, training: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What a captured module's training lacks is said when a person asks for it.
        with suppress(NotImplementedError):  # A module of torch.export has one mode, and says so.
            model.train(training)


class _DetachedData(TorchFunctionMode):
    """``x.data`` is ``x.detach()``, which torch.export follows; it takes the former for a tensor from elsewhere."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _DATA:
            return args[0].detach()
        return func(*args, **(kwargs or {}))


_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]

"""Masks that hold in a training loop of anybody's: PyTorch, Lightning, the Trainer of Hugging Face."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...frontend.base.errors import InputError
from ...passes.pruning.methods.masked import Masked

__all__ = ["Masks"]


@dataclass(frozen=True, eq=False)
class Masks:
    """Entries of parameters that stay zero, whatever an optimizer does.

    ``masks = Masks.of(model)`` and one of ``masks.apply(optimizer)``, ``masks.lightning_callback()`` and
    ``masks.trainer_callback()`` is all that a training needs.
    """

    parameters: Mapping[str, nn.Parameter] = field(repr=False)
    """By name; the model's own, which may be moved to another device."""
    kept: Mapping[str, Tensor] = field(repr=False)
    """By the same names: boolean, of the parameters' shapes, True where a weight is."""

    @classmethod
    def of(cls, model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> Masks:
        """Masks for a model that is about to be trained; nothing is changed yet.

        Args:
            model: as it is trained.
            masks: by parameter name; of the parameter's shape, or one entry per output channel. None: what is zero now in the
                weights of the model, of whatever has two dimensions or more.

        Raises:
            InputError: a mask does not fit, or there is nothing to keep zero.
        """
        parameters = dict(model.named_parameters())
        if masks is None:
            weights = {name: value.detach() for name, value in parameters.items() if value.dim() > 1}
            masks = {name: value != 0 for name, value in weights.items() if not bool(value.all())}
        kept = Masked.of(model, masks).masks
        if not kept:
            raise InputError(
                "the model has no weights that are zero, and no masks were given; there is nothing to keep"
            )
        return cls({name: parameters[name] for name in kept}, kept)

    @torch.no_grad()
    def set(self) -> None:
        """Sets what is masked to zero, now."""
        for name, parameter in self.parameters.items():
            parameter.mul_(self.kept[name].to(parameter.device))

    def apply(self, optimizer: torch.optim.Optimizer) -> RemovableHandle:
        """Sets what is masked to zero now and after every step of `optimizer`, until the handle's ``remove()``.

        Raises:
            InputError: the optimizer is of another model.
        """
        at_work = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in at_work for parameter in self.parameters.values()):
            raise InputError(
                f"the optimizer trains none of the masked parameters, such as '{next(iter(self.parameters))}'; make the masks"
                " of the model that it trains"
            )
        self.set()
        handle: RemovableHandle = optimizer.register_step_post_hook(lambda *_: self.set())
        return handle

    def lightning_callback(self) -> Any:
        """A ``Callback`` for Lightning's Trainer: ``Trainer(callbacks=[masks.lightning_callback()])``.

        Raises:
            InputError: Lightning is not installed.
        """
        base = _lightning().Callback

        class Keeping(base):  # type: ignore[misc, valid-type]
            """Applies the masks to the trainer's optimizers while it trains."""

            def on_train_start(keeping, trainer: Any, *_: Any) -> None:
                keeping.handles = [self.apply(optimizer) for optimizer in trainer.optimizers]

            def on_train_end(keeping, *_: Any) -> None:
                _remove(keeping.handles)

        return Keeping()

    def trainer_callback(self) -> Any:
        """A ``TrainerCallback`` for the Trainer of Hugging Face: ``Trainer(..., callbacks=[masks.trainer_callback()])``.

        Raises:
            InputError: the package transformers is not installed.
        """
        try:
            from transformers import TrainerCallback
        except ImportError:
            raise InputError(
                "the Trainer of Hugging Face is not installed; run: pip install transformers accelerate"
            ) from None

        class Keeping(TrainerCallback):  # type: ignore[misc]
            """Applies the masks to the trainer's optimizer while it trains."""

            def on_train_begin(keeping, *_: Any, optimizer: Any, **__: Any) -> None:
                wrapped = getattr(optimizer, "optimizer", optimizer)  # Accelerate's steps with the one that it wraps.
                keeping.handles = [self.apply(wrapped)]

            def on_train_end(keeping, *_: Any, **__: Any) -> None:
                _remove(keeping.handles)

        return Keeping()


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()


def _lightning() -> Any:
    """Lightning under the name that the program knows it by already, else under the one that is installed."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in (*(name for name in names if name in sys.modules), *names):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise InputError("Lightning is not installed; run: pip install lightning")

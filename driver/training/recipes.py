"""Methods that presets bring: some are recipes for pruning in training, a paper's or ours."""

from __future__ import annotations

from ...passes.pruning.methods import find_method
from ...passes.pruning.methods.base import TrainingMethod
from .presets import find_preset, tables

__all__ = ["preset_method"]


def preset_method(preset: str) -> TrainingMethod | None:
    """The method of the preset called `preset`, with its options; None if it only trains.

    Raises:
        InputError: there is no such preset.
    """
    find_preset(preset)
    options = dict(tables()[preset].get("method", {}))
    return find_method(options.pop("name"), TrainingMethod).with_options(options) if options else None

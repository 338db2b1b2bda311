"""Recovery as it is asked for on the command line: its options, and calibration inputs from a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...frontend.base.errors import InputError
from ...passes.recovery.least_squares import LeastSquares
from ...passes.recovery.synthetic import KINDS, Synthetic
from ..arrays import read_given
from ..recovering import LEAST_SQUARES, CalibrationInputs

__all__ = ["inputs_in_file", "recovery_options"]


def recovery_options(
    recover: str | None, calibration: str | None, settings: Sequence[str]
) -> tuple[str | LeastSquares | None, CalibrationInputs | None]:
    """`recover` and `calibration` of `reconvene.prune`, as ``--recover``, ``--calibration`` and ``--recover-set`` say.

    Raises:
        InputError: there is no such option, or its value is none; the file cannot be read, or makes a setting meaningless.
    """
    options = _values(settings)
    solving = {name: options.pop(name) for name in _fields(LeastSquares) if name in options}
    unknown = [name for name in options if name not in _fields(Synthetic)]
    if unknown:
        known = ", ".join([*_fields(LeastSquares), *_fields(Synthetic)])
        raise InputError(f"recovery has no setting '{unknown[0]}'; it has {known}")
    inputs: CalibrationInputs | None = calibration
    if calibration is not None and calibration not in KINDS:
        if options:
            raise InputError(
                f"'{min(options)}' is for synthetic inputs, and '{calibration}' holds inputs; leave it out"
            )
        inputs = inputs_in_file(calibration)
    elif options:
        inputs = Synthetic(calibration or "synthetic", **options)
    if not solving:
        return recover, inputs
    if recover != LEAST_SQUARES:
        raise InputError(f"'{min(solving)}' is a setting of --recover {LEAST_SQUARES}; say that as well")
    return LeastSquares(**solving), inputs


def _fields(kind: Any) -> list[str]:
    return [entry.name for entry in dataclasses.fields(kind) if entry.name != "kind"]


def _values(settings: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs, numbers read as such."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name or name in found:
            raise InputError(f"'{setting}' is no setting; write each once as NAME=VALUE, such as ridge=0.1")
        found[name] = _number(value)
    return found


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def inputs_in_file(name: str) -> Mapping[str, Any] | tuple[Any, ...]:
    """The arrays of a file: by name where it has several and names them, else in their order."""
    try:
        given = read_given([name])
    except InputError as error:
        kinds = ", ".join(KINDS)
        raise InputError(f"no calibration inputs: {error}; give a .npy or .npz file, or one of {kinds}") from None
    if len(given) > 1 and all(entry.name is not None for entry in given):
        return {str(entry.name): entry.tensor for entry in given}
    return tuple(entry.tensor for entry in given)

"""What a model's file is to say of its images, checked once for `reconvene.save` and the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..frontend.base.errors import InputError
from ..frontend.base.files import read_text
from ..frontend.data.facts import DataFacts

__all__ = ["class_count", "fits", "read_names", "recorded"]

_MOST = {"mean": 1.0, "std": 255.0}
"""Bytes are 1 at most: a mean of 123.7 is meant for images that were not divided by 255."""


def fits(what: str, numbers: Iterable[float]) -> bool:
    """Whether these can be the ``mean`` or the ``std`` of the colours of images, as shares of 255."""
    found = list(numbers)
    return all(0 <= value <= _MOST[what] for value in found) and (what == "mean" or all(found))


def read_names(path: Path) -> list[str]:
    """The lines of a file of text that are not empty, such as names of classes. Raises InputError if it cannot be read."""
    try:
        text = read_text(path)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"'{path}' is no text in UTF-8: it has the byte 0x{byte:02x} at {error.start}; save it as UTF-8"
        ) from None
    names = [line.strip() for line in text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").splitlines()]
    return [name for name in names if name]


def recorded(
    module: torch.fx.GraphModule, classes: Any, mean: Any, std: Any, known: DataFacts | None, source: str = "classes"
) -> DataFacts:
    """Facts for a model's file.

    Args:
        module: the captured model.
        classes: names of its outputs, in order.
        mean: what was subtracted from red, green and blue, as shares of 255: numbers, an array or a tensor; None as `known`.
        std: what they were divided by; the same.
        known: what the model said of its images before.
        source: of the classes, for messages.

    Raises:
        InputError: the model gives other numbers of classes, or these are no names, no colours, or not for this model.
    """
    if isinstance(classes, str | bytes):
        raise InputError(f"classes is one text, {classes!r}; give a list of names")
    if (mean is None) != (std is None):
        raise InputError("mean and std are one normalisation; give both, or neither")
    if mean is not None and takes_bytes(module):
        raise InputError("the model takes bytes and normalises them itself; leave out mean and std")
    colours = _numbers("mean", mean), _numbers("std", std)
    if mean is None and known is not None and known.colours is not None:
        colours = list(known.colours.mean), list(known.colours.std)
    share = 0.0 if known is None else known.test_share
    try:
        names = list(classes)
        facts = DataFacts.from_plain({"classes": names, "mean": colours[0], "std": colours[1], "test_share": share})
    except (TypeError, ValueError) as error:
        raise InputError(
            f"classes or colours cannot be recorded: {error}; name each class once, and three colours"
        ) from None
    scores = class_count(module)
    if scores is not None and scores != len(names):
        given = "classes names" if source == "classes" else f"'{source}' names"
        raise InputError(f"{given} {len(names)} classes, and the model gives {scores}; name each of them")
    return facts


def class_count(module: torch.fx.GraphModule) -> int | None:
    """How many scores a captured model gives for each item; None if it gives something else."""
    given = module.graph.output_node().args[0]
    outputs = given if isinstance(given, tuple | list) else (given,)
    value = outputs[0].meta.get("val") if len(outputs) == 1 and isinstance(outputs[0], torch.fx.Node) else None
    return int(value.shape[1]) if isinstance(value, torch.Tensor) and value.dim() == 2 else None


def takes_bytes(module: torch.fx.GraphModule) -> bool:
    """Whether a captured model's inputs are bytes."""
    values = [node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")]
    return any(isinstance(value, torch.Tensor) and value.dtype == torch.uint8 for value in values)


def _numbers(what: str, given: Any) -> list[float] | None:
    if given is None:
        return None
    try:
        found = [float(value) for value in given]
    except (TypeError, ValueError):
        raise InputError(f"{what} is {given!r}; give three numbers, such as [0.485, 0.456, 0.406]") from None
    if len(found) != 3:
        raise InputError(f"{what} is {found}; give three numbers, one for each of red, green and blue")
    if not fits(what, found):
        raise InputError(f"{what} {found} is out of range; give shares of 255, deviations above 0")
    return found

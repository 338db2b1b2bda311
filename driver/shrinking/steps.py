"""Steps that are done, as they lie in a folder: a network each, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import parse_json

__all__ = ["MODEL", "SHRINKING_FILE", "Step", "claim", "finished", "open_steps", "place_of", "write_step"]

SHRINKING_FILE = "shrinking.json"
MODEL = "model.pt2"
_FORMAT = "reconvene-shrinking/1"
_STEP_FILE = "step.json"


@dataclass(frozen=True)
class Step:
    """A step that is done; number 0 is the network as it came.

    Attributes:
        number: of the step.
        filters: that are left in layers that can lose any.
        macs: multiply-accumulates of the network.
        parameters: of it.
        before: accuracy (0..1, or another metric) on the images held out, before the step.
        pruned: the same without what went, before training.
        after: and after it.
        latency: modelled cycles of the layers on one core of the target, where one is named; else None.
        widths: channels by group.
        distribution: over the groups, for the next step.
        seconds: by phase: search, removal, training.
        teacher: the step whose network teaches the next; None for the one that was given, or the dense one.
        asked: candidates that were scored.
        explored: whether the one that was taken was drawn.
        reset: whether the search was made twice, since accuracy fell.
        held: groups whose channels stay, and why.
    """

    number: int
    filters: int
    macs: int
    parameters: int
    before: float
    pruned: float
    after: float
    latency: float | None = None
    widths: Mapping[str, int] = field(default_factory=dict)
    distribution: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    teacher: int | None = None
    asked: int = 0
    explored: bool = False
    reset: bool = False
    held: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Step:
        """Raises ValueError, KeyError or TypeError for what is none."""
        found = cls(**values)
        numbers = (found.number, found.filters, found.macs, found.parameters, found.asked)
        if not all(type(value) is int and value >= 0 for value in numbers):
            raise ValueError("counts are whole numbers")
        if not all(isinstance(value, int | float) for value in (found.before, found.pruned, found.after)):
            raise ValueError("accuracies are numbers")
        if found.teacher is not None and type(found.teacher) is not int:
            raise ValueError("a teacher is a step")
        for entries, kind in (
            (found.widths, int), (found.distribution, int | float), (found.seconds, int | float), (found.held, str),
        ):  # fmt: skip
            if not all(isinstance(value, kind) for value in dict(entries).values()):
                raise ValueError("an entry is of another kind")
        return found


def place_of(folder: Path, number: int) -> Path:
    return folder / f"step-{number:03d}"


def write_step(folder: Path, step: Step) -> None:
    """The last file of a step, which says that it is whole."""
    write_text(place_of(folder, step.number) / _STEP_FILE, json.dumps(asdict(step), indent=1) + "\n")


def finished(folder: Path, number: int) -> Step | None:
    """A step that is whole; None for one that is not. Raises InputError where it is damaged."""
    place = place_of(folder, number)
    try:
        return Step.from_plain(parse_json(read_text(place / _STEP_FILE), nonfinite=True))
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"'{place / _STEP_FILE}' is damaged; remove the folder '{place}' and those after it, they are made again"
        ) from None


def open_steps(folder: Path) -> tuple[Step, ...]:
    """The steps in `folder` that are done, in order.

    Raises:
        InputError: there are none, or a file is damaged.
    """
    _described(folder)
    found: list[Step] = []
    while (step := finished(folder, len(found))) is not None:
        found.append(step)
    if not found:
        raise InputError(f"'{folder}' has no finished step yet; run reconvene shrink again, it goes on")
    return tuple(found)


def claim(folder: Path, identity: str, settings: Mapping[str, Any]) -> None:
    """Makes a folder this shrinking's own. Raises InputError if it is another's."""
    path = folder / SHRINKING_FILE
    if path.exists():
        if _described(folder)["identity"] != identity:
            raise InputError(f"'{folder}' holds a shrinking of another model, data or settings; choose another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"'{folder}' is not empty and holds no shrinking; choose an empty or a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format": _FORMAT, "identity": identity, "settings": dict(settings)}, indent=1) + "\n")


def _described(folder: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_text(folder / SHRINKING_FILE))
        if found["format"] != _FORMAT:
            raise ValueError
        return {"identity": found["identity"], "settings": dict(found["settings"])}
    except OSError:
        raise InputError(f"'{folder}' holds no shrinking; make one with reconvene shrink") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"'{folder / SHRINKING_FILE}' is damaged; shrink into another folder") from None

"""What is known of every variant, as it lies in an exploration's folder: one line each, and what says whose folder it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_regular, read_text, write_text
from ...frontend.base.json_text import json_object, json_text, parse_json
from .ground import Choice

__all__ = [
    "DENSE",
    "LOG",
    "Refusal",
    "Variant",
    "append",
    "claim",
    "decided",
    "log_lines",
    "place_of",
    "write_decision",
]

DENSE = "dense"
LOG = "variants.jsonl"
_CLAIM, _DECISION = "exploration.json", "decision.json"
_FORMAT = "reconvene-exploration/1"


@dataclass(frozen=True)
class Variant:
    """A network that is trained, compiled and tested.

    Attributes:
        name: of its folder.
        kind: ``dense``, or of the settings' variants.
        budget: share of the dense network's time that it was made for; None for the dense one.
        reached: the share that it takes, as whoever told times in the search has it.
        accuracy: on the test images, 0..1, or another metric.
        time: of one example on the target, in the exploration's unit; None until it is measured.
        macs: multiply-accumulates of one example.
        needed_macs: those of them whose weight is not zero.
        parameters: of the network, zeros among them.
        bytes: of weights as the compiled code has them.
        zeros: share of zeros in the weights of layers.
        told: what it is, in words.
    """

    name: str
    kind: str
    budget: float | None
    reached: float
    accuracy: float
    time: float | None
    macs: int
    needed_macs: int
    parameters: int
    bytes: int
    zeros: float
    told: str

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Variant:
        """Raises ValueError or TypeError for what is none."""
        found = cls(**json_object(dict(values), [field.name for field in fields(cls)]))
        texts = (found.name, found.kind, found.told)
        counts = (found.macs, found.needed_macs, found.parameters, found.bytes)
        numbers = (found.reached, found.accuracy, found.zeros, found.budget or 0.0, found.time or 0.0)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("names are texts")
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("counts are whole numbers")
        if not all(type(number) in (int, float) for number in numbers):
            raise ValueError("figures are numbers")
        return found


@dataclass(frozen=True)
class Refusal:
    """A budget that a variant does not reach, and why."""

    kind: str
    budget: float
    reason: str


def place_of(folder: Path, kind: str, budget: float | None) -> Path:
    """The folder of a variant."""
    written = re.sub(r"[^\w.]+", "-", kind)
    return folder / (written if budget is None else f"{written}-{budget:g}")


def claim(folder: Path, identity: str, settings: Mapping[str, Any]) -> None:
    """Makes a folder this exploration's own. Raises InputError if it is another's."""
    path = folder / _CLAIM
    if path.exists():
        if _identity(path) != identity:
            raise InputError(
                f"'{folder}' holds an exploration of another model, data, target or settings; choose another folder"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"'{folder}' is not empty and holds no exploration; choose an empty or a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format": _FORMAT, "identity": identity, "settings": dict(settings)}, indent=1) + "\n")


def _identity(path: Path) -> str:
    try:
        found = json_object(parse_json(read_text(path)), ("format", "identity", "settings"))
        json_text(found["format"], "format", (_FORMAT,))
        return json_text(found["identity"], "identity")
    except (OSError, ValueError):
        raise InputError(f"'{path}' is damaged; explore into another folder") from None


def write_decision(place: Path, decision: Choice | Refusal) -> None:
    """The last file of a decision, which says that it is whole. A smaller network lies beside it."""
    if isinstance(decision, Refusal):
        said: dict[str, Any] = {"refused": decision.reason}
    else:
        structures = dict(decision.structures)
        said = {"reached": decision.reached, "told": decision.told, "structures": structures}
    write_text(place / _DECISION, json.dumps(said, indent=1) + "\n")


def decided(place: Path, kind: str, budget: float) -> Choice | Refusal | None:
    """What was decided before, without its network; None where nothing was. Raises InputError where it is damaged."""
    path = place / _DECISION
    try:
        said = json_object(parse_json(read_text(path)))
        if "refused" in said:
            return Refusal(kind, budget, json_text(said["refused"], "reason"))
        structures = {name: json_text(value, "structure") for name, value in json_object(said["structures"]).items()}
        return Choice(float(said["reached"]), json_text(said["told"], "text"), structures=structures)
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"'{path}' is damaged; remove the folder '{place}', it is made again") from None


def append(folder: Path, variant: Variant) -> None:
    """Adds a line to the log, on the disk when this returns."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(variant)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def log_lines(folder: Path) -> dict[str, Variant]:
    """The variants that are done, by name. A last line that a kill cut short is taken away.

    Raises:
        InputError: another line is none.
    """
    path = folder / LOG
    try:
        raw = read_regular(path)
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        found = [Variant.from_plain(parse_json(line, nonfinite=True)) for line in whole.decode().splitlines()]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError):
        raise InputError(f"'{path}' is damaged; explore into another folder") from None
    return {variant.name: variant for variant in found}

"""A plan of structures: what every layer of a network takes, how many zeros, what that is expected to gain, and why."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import json_array, json_number, json_object, json_text, parse_json, shortened
from ..structures import find_structure
from .structure_rules import AskedStructure

__all__ = ["PlannedLayer", "StructurePlan"]

_FORMAT, _VERSION = "reconvene-structures", 1
_FIELDS = ("format", "version", "target", "timed_by", "unit", "asked", "layers")
_UNITS = ("cycles", "s")
_MOST_LAYERS = 100_000

Scalar = str | float | int | bool | None


@dataclass(frozen=True)
class PlannedLayer:
    """One layer.

    Attributes:
        name: of its weight.
        structure: as it is spelled, ``row-block:4``; None where the layer stays dense.
        share: of its weights that are to be zero; 0 where it stays dense.
        dense: what it is expected to take without zeros, in the plan's unit; None where nobody knows.
        sparse: and with them.
        reason: why, in words.

    Raises:
        InputError: the structure or its share is none.
    """

    name: str
    structure: str | None = None
    share: float = 0.0
    dense: float | None = None
    sparse: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if self.structure is not None:
            _ = self.asked
        elif self.share:
            raise InputError(f"'{self.name}' stays dense, so its share of zeros is 0, not {self.share:g}")

    @property
    def asked(self) -> AskedStructure:
        """What it takes. Raises ValueError where it stays dense."""
        if self.structure is None:
            raise ValueError(f"'{self.name}' stays dense")
        return AskedStructure(find_structure(self.structure), self.share)

    @property
    def scheme(self) -> str:
        """Its structure, or ``dense``."""
        return self.structure or "dense"


@dataclass(frozen=True)
class StructurePlan(Mapping[str, str]):
    """Structures with their shares of zeros, layer by layer; layers that stay dense are in it, too.

    It is a mapping from the names of weights to what they take, ``row-block:4@0.8``, of those that have a structure. So it can
    be given wherever structures are asked for by patterns of names.

    Attributes:
        layers: in the order of the network, each once.
        target: what expected times are for; None where there are none.
        timed_by: who told them: ``model``, ``cycles`` or ``time``.
        unit: of times: ``s`` where they were measured, else ``cycles``.
        made: what the plan was asked for, by name: numbers, texts, true and false.

    Raises:
        InputError: two layers have one name.
    """

    layers: tuple[PlannedLayer, ...]
    target: str | None = None
    timed_by: str | None = None
    unit: str = "cycles"
    made: Mapping[str, Scalar] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"a plan of structures says two things of '{twice}'; name every layer once")

    def __getitem__(self, name: str) -> str:
        return self._spelled[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spelled)

    def __len__(self) -> int:
        return len(self._spelled)

    @property
    def _spelled(self) -> dict[str, str]:
        return {layer.name: str(layer.asked) for layer in self.layers if layer.structure is not None}

    @property
    def schemes(self) -> dict[str, tuple[PlannedLayer, ...]]:
        """Layers by structure, in the order in which these come first; ``dense`` for those that have none."""
        names = dict.fromkeys(layer.scheme for layer in self.layers)
        return {name: tuple(layer for layer in self.layers if layer.scheme == name) for name in names}

    @property
    def dense(self) -> float:
        """What all layers of known times are expected to take without zeros."""
        return math.fsum(layer.dense for layer in self.layers if layer.dense is not None)

    @property
    def sparse(self) -> float:
        """And with them. What lays images out for kernels is in neither."""
        times = (layer.dense if layer.sparse is None else layer.sparse for layer in self.layers)
        return math.fsum(time for time in times if time is not None)

    def to_json(self) -> str:
        """As JSON text, which `from_json` reads."""
        said = {
            "format": _FORMAT, "version": _VERSION, "target": self.target, "timed_by": self.timed_by, "unit": self.unit,
            "asked": dict(self.made),
            "layers": [
                {
                    "name": layer.name, "structure": layer.structure, "share": layer.share, "dense": layer.dense,
                    "sparse": layer.sparse, "reason": layer.reason,
                }
                for layer in self.layers
            ],
        }  # fmt: skip
        return json.dumps(said, indent=2, allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON. Raises InputError if that is not possible."""
        write_text(Path(path), self.to_json())

    @classmethod
    def from_json(cls, text: str, where: str = "the text") -> StructurePlan:
        """Raises InputError, one line that names `where`, for what is no such plan."""
        try:
            parsed = parse_json(text)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict) or parsed.get("format") != _FORMAT:
            raise InputError(f"'{where}' is no plan of structures; give the .json file that 'reconvene map' wrote")
        if type(parsed.get("version")) is not int or parsed["version"] != _VERSION:
            version = shortened(parsed.get("version"))
            raise InputError(f"'{where}' is a plan of version {version}; this program reads version {_VERSION}")
        try:
            return _plan(parsed)
        except (ValueError, InputError) as error:
            raise InputError(f"'{where}' is a damaged plan of structures: {error}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StructurePlan:
        """Reads what `save` wrote. Raises InputError for another file, or none."""
        try:
            text = read_text(Path(path))
        except OSError as error:
            raise InputError(f"cannot read the plan '{path}': {error.strerror}") from None
        except UnicodeDecodeError:
            text = ""
        return cls.from_json(text, os.fspath(path))


def _plan(parsed: dict[str, Any]) -> StructurePlan:
    said = json_object(parsed, _FIELDS)
    layers = json_array(said["layers"])
    if len(layers) > _MOST_LAYERS:
        raise ValueError(f"it has {len(layers)} layers, more than {_MOST_LAYERS}")
    return StructurePlan(
        tuple(map(_layer, layers)),
        _optional_text(said["target"], "target"),
        _optional_text(said["timed_by"], "timed_by"),
        json_text(said["unit"], "unit", _UNITS),
        {_text(name, "name"): _scalar(value) for name, value in json_object(said["asked"]).items()},
    )


def _layer(value: object) -> PlannedLayer:
    said = json_object(value, ("name", "structure", "share", "dense", "sparse", "reason"))
    dense, sparse = (None if said[name] is None else json_number(said[name], name) for name in ("dense", "sparse"))
    structure = _optional_text(said["structure"], "structure")
    share = json_number(said["share"], "share", 1)
    return PlannedLayer(_text(said["name"], "name"), structure, share, dense, sparse, _text(said["reason"], "reason"))


def _text(value: object, what: str) -> str:
    """What is shown on terminals: without control characters."""
    text = json_text(value, what)
    if not text.isprintable():
        raise ValueError(f"{what} {shortened(value)} cannot be printed")
    return text


def _optional_text(value: object, what: str) -> str | None:
    return None if value is None else _text(value, what)


def _scalar(value: object) -> Scalar:
    if isinstance(value, str):
        return _text(value, "text")
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{shortened(value)} is no number or text")

"""A plan: which channels of which parameters were kept, as JSON and safetensors, to be read, compared or applied again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ..frontend.base.errors import InputError
from ..frontend.base.files import read_regular, read_text, replacing, write_text
from ..frontend.base.json_text import parse_json
from ..frontend.base.tensor_files import parse_tensors

__all__ = ["Plan"]

_FORMAT = "reconvene-plan"
_VERSION = 2
"""Version 1 had no checksum of the tensors, so that a plan could be joined with another one's; it is not read any more."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Kept channels by parameter name.

    Attributes:
        kept: for every parameter that lost something, by axis: the kept positions of the original (int64, ascending).
        shapes: the original shape of each of these parameters.
        masks: the masks that were asked for (boolean, True to keep), by parameter name; what `apply` starts from.
        origin: how it came about: method, sparsity, seed and the like; plain JSON values.
    """

    kept: Mapping[str, Mapping[int, torch.Tensor]] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes ``path`` (JSON) and, beside it, the index tensors (``.safetensors``).

        Raises:
            InputError: the folder cannot be written.
        """
        file = Path(path)
        tensors = {f"kept/{name}/{axis}": index for name, axes in self.kept.items() for axis, index in axes.items()}
        tensors |= {f"mask/{name}": mask.to(torch.uint8).contiguous() for name, mask in self.masks.items()}
        contents = save(tensors)
        description = {
            "format": _FORMAT,
            "version": _VERSION,
            "tensors": file.with_suffix(".safetensors").name,
            "sha256": hashlib.sha256(contents).hexdigest(),
            "origin": dict(self.origin),
            "parameters": {
                name: {
                    "shape": list(self.shapes[name]),
                    "kept": {str(axis): int(index.numel()) for axis, index in axes.items()},
                }
                for name, axes in self.kept.items()
            },
        }
        with replacing(file.with_suffix(".safetensors")) as temporary:
            temporary.write_bytes(contents)
        write_text(file, json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads what `save` wrote.

        Raises:
            InputError: no such file, not a plan, damaged, or its tensor file is missing.
        """
        file = Path(path)
        try:
            description = parse_json(read_text(file))
        except OSError as error:
            raise InputError(f"cannot read the plan '{file}': {error.strerror}") from None
        except InputError:
            raise
        except ValueError:
            raise InputError(
                f"'{file}' is not a plan: it is not JSON; give the .json file that Plan.save wrote"
            ) from None
        if not isinstance(description, dict) or description.get("format") != _FORMAT:
            raise InputError(f"'{file}' is not a plan; give the .json file that Plan.save wrote")
        if description.get("version") != _VERSION:
            raise InputError(
                f"'{file}' has plan version {description.get('version')}; this program reads version {_VERSION}"
            )
        beside = file.parent / Path(str(description.get("tensors", ""))).name
        together = f"cannot read '{beside}', the tensors of plan '{file}'; keep both files together"
        try:
            contents = read_regular(beside)
        except OSError:
            raise InputError(together) from None
        if hashlib.sha256(contents).hexdigest() != description.get("sha256"):
            raise InputError(f"'{beside}' is damaged, or of another plan than '{file}'; save the plan again")
        try:
            return cls._assembled(description, parse_tensors(contents)[0])
        except (KeyError, ValueError, TypeError, AttributeError):
            raise InputError(together) from None

    @classmethod
    def _assembled(cls, description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Plan:
        parameters = description["parameters"]
        kept = {
            name: {int(axis): tensors[f"kept/{name}/{axis}"] for axis in entry["kept"]}
            for name, entry in parameters.items()
        }
        shapes = {name: tuple(entry["shape"]) for name, entry in parameters.items()}
        masks = {key.removeprefix("mask/"): value.bool() for key, value in tensors.items() if key.startswith("mask/")}
        return cls(kept, shapes, masks, description.get("origin", {}))

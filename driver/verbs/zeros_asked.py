"""What ``reconvene train`` is told of zeros that are found in training, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save

from ...frontend.base.errors import InputError
from ...frontend.base.files import replacing
from ...frontend.graph_module import CapturedModule
from ...passes.canonicalize import canonicalize
from ...passes.outcome import LayerZeros
from ...passes.pruning.methods import METHODS, find_method
from ...passes.pruning.methods.base import TrainingMethod
from ...passes.pruning.methods.constrained import CHANNELS
from ...passes.zeros import zeros_of
from ..shrinking.course import RULES
from ..training.presets import Preset
from ..training.recipes import preset_method
from .settings import method_settings

__all__ = ["ZerosAsked", "ZerosFound", "as_json", "structure_asked", "zeros_found"]


@dataclass(frozen=True, kw_only=True)
class ZerosAsked:
    """See the help of ``reconvene train``."""

    method: str | None = None
    """None: that of the preset, if it has one."""
    structure: str | Mapping[str, str] | None = None
    sparsity: float | None = None
    ignore: tuple[str, ...] = ()

    def chosen(self, preset: str, settings: Sequence[str]) -> tuple[TrainingMethod | None, tuple[str, ...]]:
        """The method with its options, and the settings that are left for the preset.

        Args:
            preset: its name.
            settings: ``NAME=VALUE``, of the method or of the preset.

        Raises:
            InputError: there is no such method, an option makes no sense, or is one of a method where there is none.
        """
        of_preset = preset_method(preset)
        same = of_preset is not None and self.method in (None, of_preset.name)
        if self.method in RULES and self.method not in METHODS:
            raise InputError(
                f"'{self.method}' removes channels step by step, with a training after each; run 'reconvene shrink' for it"
            )
        found = of_preset if same else None if self.method is None else find_method(self.method, TrainingMethod)
        given = {"structure": self.structure, "sparsity": self.sparsity, "ignore": self.ignore or None}
        options = {name: value for name, value in given.items() if value is not None}
        if found is None:
            for name in options:
                raise InputError(f"--{name} has no meaning without --method; name one, or leave it out")
            return None, tuple(settings)
        known, trained = found.options(), {field.name for field in dataclasses.fields(Preset)}
        rest = []
        for text in settings:
            name = text.partition("=")[0]
            if name in known:
                options |= method_settings(None, [text])
            elif name in trained or "=" not in text:
                rest.append(text)
            else:
                raise InputError(
                    f"neither a training nor the method {found.name} has a setting '{name}'; the method has {', '.join(known)}"
                )
        return found.with_options(options), tuple(rest)


def structure_asked(by_pattern: Mapping[str, str] | None) -> str | Mapping[str, str] | None:
    """Structures by pattern of names as a method takes them. Raises InputError for channels of some layers alone."""
    if by_pattern is None:
        return None
    if set(by_pattern) == {"*"}:
        return by_pattern["*"]
    if CHANNELS in by_pattern.values():
        raise InputError(
            f"{CHANNELS} are of the whole network, so they have no pattern, and no structure beside them; use --ignore"
        )
    return by_pattern


@dataclass(frozen=True)
class ZerosFound:
    """What a method left in a trained network."""

    zeros: tuple[LayerZeros, ...]
    notes: tuple[str, ...]
    """For a person: what has no zeros and why, and what to do with whole channels."""


def zeros_found(method: TrainingMethod, before: CapturedModule, trained: CapturedModule, masks: Path) -> ZerosFound:
    """What came of it; writes the masks, for another training of the same network.

    Args:
        method: that found the zeros.
        before: the network as it was.
        trained: the network as it is.
        masks: file of safetensors.

    Raises:
        InputError: it cannot be written.
    """
    kept = {name: mask.contiguous() for name, mask in method.masks_in(trained).items()}
    with replacing(masks) as temporary:
        temporary.write_bytes(save(kept))
    notes = list(method.left_alone(before))
    if getattr(method, "structure", None) == CHANNELS:
        notes.append(
            f"channels that are zero are still there: 'reconvene compact {masks.parent / 'model.pt2'}' removes them"
        )
    return ZerosFound(zeros_of(canonicalize(trained)), tuple(notes))


def as_json(method: TrainingMethod | None, found: ZerosFound | None) -> dict[str, Any]:
    """The parts of an answer that are about zeros."""
    if method is None or found is None:
        return {"method": None, "zeros": [], "notes": []}
    return {
        "method": method.recorded(),
        "zeros": [dataclasses.asdict(layer) for layer in found.zeros],
        "notes": list(found.notes),
    }

"""Compiled code of variants, and what one example takes on the target: measured, or modelled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import fx

from ...backends.boards.jobs import benchmark_on_board
from ...backends.boards.place import Place
from ...backends.built import load_bundle
from ...backends.bundles.read import open_bundle
from ...backends.compile import compile as compile_graph
from ...backends.estimate.bundle import estimate_bundle
from ...backends.machines.targets import Target
from ...backends.measure import time_calls
from ...backends.network_times import network_times
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import json_number, json_object, parse_json
from ...frontend.base.progress import stage
from ...passes.canonicalize import canonicalize

__all__ = ["CYCLES", "MILLISECONDS", "Teller", "Told"]

MILLISECONDS, CYCLES = "ms", "cycles"
_BUNDLE = "bundle"
_TIMES = "times.json"


@dataclass(frozen=True)
class Told:
    """What is known of compiled code: bytes of its weights, and the time of one example, if it is told one by one."""

    bytes: int
    time: float | None


@dataclass(frozen=True, eq=False)
class Teller:
    """Compiles variants and tells their times.

    Attributes:
        target: that they are compiled for.
        told_by: of `settings.TOLD_BY`.
        board: that runs them, if one does.
        repeat: timed calls of each.
    """

    target: Target
    told_by: str
    board: Place | None = None
    repeat: int = 50

    def compiled(self, module: fx.GraphModule, one: tuple[Any, ...], place: Path) -> Told:
        """Writes the bundle of a network into the folder `place`, for one example.

        Raises:
            InputError: it cannot be compiled, or nobody can tell its time so.
            CheckError: the code does not compute what the network does.
        """
        with stage(f"compiling {place.name}"):
            built = compile_graph(module, one, self.target)
            built.export(
                place / _BUNDLE, runtime="static" if self.told_by == "estimate" and not self.target.bare else None
            )
        return Told(built.memory.weights_bytes, self._alone(module, one, place / _BUNDLE))

    @property
    def unit(self) -> str:
        """Of all times of an exploration."""
        clockless = self.told_by == "estimate" and self.target.clock_mhz is None
        return CYCLES if self.told_by == "model" or clockless else MILLISECONDS

    def _alone(self, module: fx.GraphModule, one: tuple[Any, ...], bundle: Path) -> float | None:
        if self.told_by == "model":
            return network_times(canonicalize(module), one, self.target)({}).total
        if self.told_by == "estimate":
            total = estimate_bundle(bundle).total
            return total.cycles if total.milliseconds is None else total.milliseconds
        if self.board is not None:
            with stage(f"timing on {self.board}"):
                return benchmark_on_board(open_bundle(bundle), self.repeat, self.board).value.median_ms
        return None

    def side_by_side(self, folder: Path, names: Sequence[str], one: tuple[Any, ...]) -> Mapping[str, float]:
        """Milliseconds of variants that this machine's clock tells, by turns in one run, so that noise falls on all alike.

        They are kept: asked again for the same variants, it does not measure again.
        """
        path = folder / _TIMES
        if (kept := _kept(path)) is not None and kept.keys() == set(names):
            return kept
        calls = {name: load_bundle(folder / name / _BUNDLE).prepared(*one) for name in names}
        with stage("timing the variants side by side"):
            found = {name: timing.median_ms for name, timing in time_calls(calls, self.repeat).items()}
        write_text(path, json.dumps(found, indent=1) + "\n")
        return found


def _kept(path: Path) -> dict[str, float] | None:
    """None also where the file is damaged: it can be measured again."""
    try:
        said = json_object(parse_json(read_text(path)))
        return {name: json_number(value, "time") for name, value in said.items()}
    except (OSError, ValueError):
        return None

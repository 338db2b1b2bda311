"""What kernels cost by a board's own clock: compiled here, uploaded together and timed there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from ..kernels.alternatives import Candidate
from ..machines.linkers import find_linker, link_shared
from ..machines.targets import Target
from .place import Place
from .session import Board, Limits, answering, checked_seconds, on_board

__all__ = ["BoardCost", "BoardTimes"]

_REPEAT = 5
_STRONGEST_CORES_FIRST = 1


@dataclass(frozen=True)
class BoardTimes:
    """Seconds of one call on a board at `place` with `threads` threads, its caches flushed before each.

    The least of five calls counts: what else the board does can only add. Raises BoardError as `on_board` does, and
    InputError if there is no compiler for the target.
    """

    target: Target
    threads: int
    place: Place
    limits: Limits | None = None

    def __call__(self, functions: Mapping[str, Any]) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as temporary:
            library = self._library(functions, Path(temporary))
            return on_board(self.place, lambda board: self._times(board, library, functions), self.limits).value

    def _library(self, functions: Mapping[str, Any], folder: Path) -> Path:
        module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
        objects, library = folder / "kernels.o", folder / "kernels.so"
        tvm.tirx.build(module, target=tvm.target.Target(self.target.llvm())).write_to_file(str(objects))
        link_shared(find_linker(self.target), library, [objects])
        return library

    def _times(self, board: Board, library: Path, functions: Mapping[str, Any]) -> dict[str, float]:
        board.check(self.target)
        module, device = board.load(library), board.remote.cpu(0)
        board.call("runtime.config_threadpool", _STRONGEST_CORES_FIRST, self.threads)
        flush = 2 * (self.target.last_cache_bytes or self.target.l2_bytes)
        found = {}
        for name, function in functions.items():
            with answering(board.name):
                tensors = [tvm.runtime.tensor(_filled(p), device) for p in function.params]
                timer = module.time_evaluator(name, device, number=1, repeat=_REPEAT, cache_flush_bytes=flush)
                results = timer(*tensors).results
            found[name] = min(checked_seconds(board, results))
        return found


@dataclass(frozen=True)
class BoardCost:
    """Candidates of layers by `times`, uploaded together."""

    times: BoardTimes

    def __call__(self, layers: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        functions = {
            f"layer{i}_{j}": candidate.function(f"layer{i}_{j}")
            for i, layer in enumerate(layers)
            for j, candidate in enumerate(layer)
        }
        times = self.times(functions)
        return [[times[f"layer{i}_{j}"] for j in range(len(layer))] for i, layer in enumerate(layers)]


def _filled(parameter: Any) -> np.ndarray[Any, Any]:
    """Numbers that are all the same and not tiny, which would slow arithmetic down; zeros for tables."""
    dtype = str(parameter.dtype)
    return np.full([int(n) for n in parameter.shape], 0.75 if dtype == "float32" else 0, dtype)

"""What kernels cost by a board's own clock: compiled here, uploaded together and timed there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import tirx

from ..choosing.kernel_times import arguments_of
from ..kernels.base import Trial
from ..machines.linkers import find_linker, link_shared
from ..machines.targets import Target
from .place import Place
from .session import Board, Limits, answering, checked_seconds, on_board

__all__ = ["BoardTimes"]

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

    def __call__(self, groups: Sequence[Sequence[Trial]]) -> list[list[float]]:
        names = [[f"kernel{i}_{j}" for j in range(len(group))] for i, group in enumerate(groups)]
        trials = {
            name: trial
            for row, group in zip(names, groups, strict=True)
            for name, trial in zip(row, group, strict=True)
        }
        with tempfile.TemporaryDirectory() as temporary:
            library = self._library({name: trial.function for name, trial in trials.items()}, Path(temporary))
            times = on_board(self.place, lambda board: self._times(board, library, trials), self.limits).value
        return [[times[name] for name in row] for row in names]

    def _library(self, functions: Mapping[str, tirx.PrimFunc], folder: Path) -> Path:
        module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
        objects, library = folder / "kernels.o", folder / "kernels.so"
        tvm.tirx.build(module, target=tvm.target.Target(self.target.llvm())).write_to_file(str(objects))
        link_shared(find_linker(self.target), library, [objects])
        return library

    def _times(self, board: Board, library: Path, trials: Mapping[str, Trial]) -> dict[str, float]:
        board.check(self.target)
        module, device = board.load(library.read_bytes()), board.remote.cpu(0)
        board.call("runtime.config_threadpool", _STRONGEST_CORES_FIRST, self.threads)
        flush = 2 * (self.target.last_cache_bytes or self.target.l2_bytes)
        found = {}
        for name, trial in trials.items():
            with answering(board.name):
                tensors = [tvm.runtime.tensor(array, device) for array in arguments_of(trial)]
                timer = module.time_evaluator(name, device, number=1, repeat=_REPEAT, cache_flush_bytes=flush)
                results = timer(*tensors).results
            found[name] = min(checked_seconds(board, results))
        return found

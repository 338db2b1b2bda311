"""MetaSchedule on the kernels that have no schedule of ours: what it finds is kept where it is found to be faster.

Who says how fast is a `Judge`: this machine, a board, or a model of one; the same that our own kernels can be chosen by.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import tvm
from tvm import IRModule, tirx
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

from ...frontend.base.cache_folder import cache_folder
from ...frontend.base.errors import ReconveneError
from ...frontend.base.file_cache import FileCache
from ...frontend.base.json_text import parse_json
from ...frontend.base.progress import stage
from ..code.code_version import code_version
from ..kernels.base import Trial
from ..kernels.generic import schedule_foreign
from ..kernels.loops import SCHEDULED
from .cost import Judge

__all__ = ["Tuned", "Tuner"]

_ROOM = 64 << 20
"""Bytes that results may take in the cache folder."""

_CLEAR_SHARE = 0.95
"""What share of our own schedule's time another may take at most: measurements are noisy."""

_FINALISTS = 3
"""Best candidates of the search that are measured again, beside our own schedule."""

_SEED = 1


@dataclass(frozen=True)
class Tuned:
    """What came of one kernel.

    Attributes:
        unit: of the costs, ``s`` or ``cycles``.
        own: cost of one call with our schedule.
        found: with the best that the search found; None where it found none.
        kept: whether that is used.
    """

    kernel: str
    unit: str
    own: float
    found: float | None
    kept: bool


class Tuner:
    """Tunes the kernels of a module; results are kept in the user's cache folder.

    Attributes:
        results: what came of the kernels of the module that was tuned last.
    """

    def __init__(self, llvm: tvm.target.Target, judge: Judge, judged: str, unit: str, trials: int, lanes: int) -> None:
        """
        Args:
            llvm: the target.
            judge: says what schedules cost, in `unit`; `judged` names it with all that it depends on.
            trials: how many schedules are judged for each kernel.
            lanes: of a vector, for our own schedule.
        """
        self.results: tuple[Tuned, ...] = ()
        self._llvm = llvm
        self._judge = judge
        self._judged = judged
        self._unit = unit
        self._trials = trials
        self._lanes = lanes
        self._cache = FileCache(cache_folder() / "tuned", _ROOM)

    def __call__(self, module: IRModule) -> IRModule:
        """`module` with the better schedules. Kernels that have one stay as they are."""
        results, better = [], {}
        for variable, function in sorted(module.functions_items(), key=lambda item: str(item[0].name_hint)):
            if not isinstance(function, tirx.PrimFunc) or (function.attrs and SCHEDULED in function.attrs):
                continue
            result, best = self._recalled(variable.name_hint, function) or self._tuned(variable.name_hint, function)
            results.append(result)
            if best is not None:
                better[variable] = _named(best, function)
        self.results = tuple(results)
        return IRModule({**dict(module.functions_items()), **better}, attrs=module.attrs)

    def _key(self, function: Any) -> str:
        words = (
            code_version(),
            str(self._llvm),
            self._judged,
            str(self._trials),
            tvm.ir.save_json(_bare(function)),
        )
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:40]

    def _recalled(self, name: str, function: Any) -> tuple[Tuned, Any] | None:
        files = self._cache.get(self._key(function))
        if files is None or not {"result.json", "kernel.json"} <= files.keys():
            return None
        result = Tuned(name, self._unit, **parse_json(files["result.json"]))
        return result, tvm.ir.load_json(files["kernel.json"].decode()) if result.kept else None

    def _tuned(self, name: str, function: Any) -> tuple[Tuned, Any]:
        bare = _bare(function)
        own = schedule_foreign(IRModule({"main": bare}), self._lanes)["main"]
        with stage(f"tuning {name}"):
            searched = self._searched(bare)
            ((own_cost, *costs),) = self._judge([[Trial(own), *map(Trial, searched)]])
        found = min(costs, default=None)
        kept = found is not None and found < _CLEAR_SHARE * own_cost
        result = Tuned(name, self._unit, own_cost, found, kept)
        kernel = searched[costs.index(found)] if kept and found is not None else None
        facts = {"own": result.own, "found": result.found, "kept": kept}
        contents = "" if kernel is None else tvm.ir.save_json(kernel)
        self._cache.put(
            self._key(function), {"result.json": json.dumps(facts).encode(), "kernel.json": contents.encode()}
        )
        return result, kernel

    def _searched(self, function: Any) -> list[Any]:
        """The best schedules of the search, best first; none for a kernel that MetaSchedule cannot take."""
        _load_intrinsics()
        bench = _Bench(self._judge)
        database = meta_schedule.database.MemoryDatabase()
        with tempfile.TemporaryDirectory() as folder, _quiet() as logger:
            try:
                # What tune_tir does; but it sets up log files, and fails where a log handler has no name.
                task = meta_schedule.TuneContext(
                    mod=function,
                    target=self._llvm,
                    space_generator="post-order-apply",
                    # Without a learned model of costs, evolution is no better than a sample, and slower.
                    search_strategy="replay-trace",
                    task_name="kernel",
                    rand_state=_SEED,
                    num_threads=1,
                    logger=logger,
                )
                meta_schedule.tune.tune_tasks(
                    tasks=[task.clone()],
                    task_weights=[1.0],
                    work_dir=folder,
                    max_trials_global=self._trials,
                    num_trials_per_iter=min(16, self._trials),
                    builder=_Builder(bench),
                    runner=_Runner(bench),
                    database=database,
                    cost_model="random",
                    measure_callbacks=[meta_schedule.measure_callback.AddToDatabase()],
                )
            except (ValueError, TypeError, RuntimeError):
                # A block that it has no rule for. Ours stays.
                bench.check()
                return []
        bench.check()
        records = [record for record in database.get_all_tuning_records() if record.run_secs]
        records.sort(key=lambda record: min(map(float, record.run_secs)))
        return [_applied(record) for record in records[:_FINALISTS]]


class _Bench:
    """Kernels that were not judged yet.

    Attributes:
        failure: why none can be judged any more: a board is lost, a tool is missing.
    """

    def __init__(self, judge: Judge) -> None:
        self.modules: list[IRModule] = []
        self.failure: ReconveneError | None = None
        self._judge = judge

    def check(self) -> None:
        """Raises what ended the judging, if anything."""
        if self.failure is not None:
            raise self.failure

    def cost(self, number: int) -> tuple[float | None, str]:
        """Of one kernel; or why it has none."""
        if self.failure is not None:
            return None, str(self.failure)
        try:
            return self._judge([[Trial(_only(self.modules[number]))]])[0][0], ""
        except ReconveneError as error:
            # It must not pass through TVM, which would make another error of it.
            self.failure = error
            return None, str(error)
        except (ValueError, TypeError, RuntimeError) as error:
            return None, str(error)[-200:]


@derived_object
class _Builder(PyBuilder):
    """Leaves building to the judge."""

    def __init__(self, bench: _Bench) -> None:
        super().__init__()
        self.bench = bench

    def build(self, build_inputs: list[Any]) -> list[Any]:
        results = []
        for given in build_inputs:
            results.append(BuilderResult(str(len(self.bench.modules)), None))
            self.bench.modules.append(given.mod)
        return results


@derived_object
class _Done(PyRunnerFuture):
    """A result that is there already."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._result = result

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self._result


@derived_object
class _Runner(PyRunner):
    """Asks the judge."""

    def __init__(self, bench: _Bench) -> None:
        super().__init__()
        self.bench = bench

    def run(self, runner_inputs: list[Any]) -> list[Any]:
        return [_Done(self.judged(int(str(given.artifact_path)))) for given in runner_inputs]

    def judged(self, number: int) -> Any:
        cost, reason = self.bench.cost(number)
        return RunnerResult(None, reason) if cost is None else RunnerResult([cost], None)


def _applied(record: Any) -> Any:
    """The kernel that a record's trace makes of its workload."""
    schedule = tvm.s_tir.Schedule(record.workload.mod)
    record.trace.apply_to_schedule(schedule, remove_postproc=False)
    return _only(schedule.mod).with_attr(SCHEDULED, True)


def _only(module: IRModule) -> Any:
    (function,) = module.functions.values()
    return function


def _bare(function: Any) -> Any:
    """`function` under a name that says nothing, so that equal kernels are equal."""
    return function.with_attr("global_symbol", "main")


def _named(best: Any, function: Any) -> Any:
    symbol = function.attrs["global_symbol"] if function.attrs and "global_symbol" in function.attrs else None
    return best.with_attr("global_symbol", symbol) if symbol else best.without_attr("global_symbol")


@cache
def _load_intrinsics() -> None:
    """Imports TVM's tensor intrinsics, as every search does, but in seconds instead of a minute.

    Each of these some hundred functions asks for the source lines around all its callers, and needs none of them.
    """
    stack = inspect.stack
    setattr(inspect, "stack", _frames)  # noqa: B010
    try:
        importlib.import_module("tvm.s_tir.tensor_intrin")
    finally:
        setattr(inspect, "stack", stack)  # noqa: B010


def _frames(context: int = 1) -> list[inspect.FrameInfo]:
    """`inspect.stack` without lines of source."""
    found = []
    frame = sys._getframe(1)
    while frame is not None:
        found.append(
            inspect.FrameInfo(frame, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None, None)
        )
        frame = frame.f_back  # type: ignore[assignment]
    return found


@contextmanager
def _quiet() -> Iterator[logging.Logger]:
    """MetaSchedule's logger, without its tables of progress."""
    logger = logging.getLogger("tvm.s_tir.meta_schedule")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield logger
    finally:
        logger.setLevel(level)

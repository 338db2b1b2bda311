"""Many trainings: methods x scores x degrees x seeds, on this machine or on several, resumable at any point.

Every finished run is one line of JSON in a file; a run that is in the file is not repeated, and one that was killed goes on
from its checkpoint.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..frontend.base.errors import InputError, ReconveneError
from ..frontend.base.extras import install_command
from ..frontend.base.files import read_regular
from ..frontend.base.json_text import parse_json
from ..frontend.base.progress import track
from .runs import Environment, Run, run_one
from .side_by_side import side_by_side
from .training.hardware import Hardware
from .training.presets import check_compute

__all__ = ["ENGINES", "check_comparable", "grid", "read_results", "sweep"]


def grid(
    methods: Sequence[tuple[str, str]], sparsities: Sequence[float], seeds: Sequence[int], *,
    at: Sequence[str] = ("p",), compute: Sequence[str] = ("epochs",), **common: Any,
) -> tuple[Run, ...]:  # fmt: skip
    """Every method (with its score) at every sparsity with every seed, each network trained each way once.

    The dense network is there once for every seed, masked ones are trained once whatever is equal in compute.

    Args:
        methods: pairs of a name of `baselines.BASELINES` or `methods.METHODS` and a score.
        sparsities: degrees p.
        seeds: of weights, pruning and training.
        at: of `pruning.placement.PLACES`.
        compute: of `training.presets.COMPUTE`.
        common: the other fields of `Run`.
    """
    for rule in compute:
        check_compute(rule)
    runs = [
        Run(method=method, score=score, sparsity=sparsity, seed=seed, at=place, compute=rule, **common).plain()
        for seed, (method, score), sparsity, place, rule in itertools.product(seeds, methods, sparsities, at, compute)
    ]
    return tuple(dict.fromkeys(runs))


def sweep(
    runs: Sequence[Run], results: Path, place: Environment, *, engine: str = "processes", workers: int = 1
) -> list[dict[str, Any]]:
    """Does the runs that `results` does not have yet, each line written as its run ends; gives the lines that there are.

    Args:
        runs: what to do.
        results: a file of JSON lines; made if need be.
        place: data, checkpoints and machine. With Ray on several machines the paths must be the same on all.
        engine: of `ENGINES`; ``ray`` needs the extra ``sweep`` and takes RAY_ADDRESS. ``side-by-side`` is for
            a GPU that several small networks share, and the only one that stops after `place.seconds`.
        workers: runs at a time.

    Raises:
        InputError: there is no such engine, the results cannot be read or are of another precision or kind of device, or a run
            cannot be done.
    """
    if engine not in ENGINES:
        raise InputError(f"there is no engine '{engine}'; choose one of {', '.join(ENGINES)}")
    if workers < 1:
        raise InputError(f"{workers} workers do nothing; give 1 or more")
    if place.seconds is not None and engine != "side-by-side":
        raise InputError(f"the engine {engine} stops when all is done; leave the seconds out, or take side-by-side")
    done = {line["key"]: line for line in read_results(results)}
    check_comparable(done.values(), place.machine, results)
    missing = [run for run in runs if run.key not in done]
    with results.open("a", encoding="utf-8") as file:
        for line in track(ENGINES[engine](missing, place, workers), "runs", len(missing)):
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
            done[line["key"]] = line
    return [done[run.key] for run in runs if run.key in done]


def read_results(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file; none where there is no file. A last line that a kill cut short is taken away.

    Raises:
        InputError: another line is no JSON.
    """
    if not path.exists():
        return []
    try:
        raw = read_regular(path)
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        return [parse_json(line, nonfinite=True) for line in whole.decode().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the results in '{path}': {str(error).splitlines()[0]}") from None


def check_comparable(lines: Iterable[Mapping[str, Any]], machine: Hardware, results: Path) -> None:
    """Raises InputError if lines of a results file are of another precision or kind of device than `machine` is."""
    own = (machine.precision, _kind(machine.device))
    for line in lines:
        other = (str(line["precision"]), _kind(str(line.get("device", "cpu"))))
        if other != own:
            raise InputError(
                f"'{results}' has runs in {' on '.join(other)}, these would be in {' on '.join(own)}; name another file"
            )


def _kind(device: str) -> str:
    """Of a device without its number."""
    return device.partition(":")[0]


def _in_processes(runs: Sequence[Run], place: Environment, workers: int) -> Iterator[dict[str, Any]]:
    """On this machine. One worker needs no process of its own."""
    if workers == 1:
        for run in runs:
            yield run_one(run, place)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run_one, run, place) for run in runs]
        try:
            for finished in as_completed(waiting):
                yield finished.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _with_ray(runs: Sequence[Run], place: Environment, workers: int) -> Iterator[dict[str, Any]]:
    """On a Ray cluster: the one that RAY_ADDRESS names, else one of this machine alone."""
    try:
        import ray
    except ImportError:
        raise InputError(f"the engine ray needs another package; run: {install_command('sweep')}") from None
    started = not ray.is_initialized()
    if started:
        local = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "num_cpus": workers}
        ray.init(include_dashboard=False, configure_logging=False, log_to_driver=False, **local)
    try:
        remote = ray.remote(num_cpus=1, max_retries=2)(run_one)
        waiting = [remote.remote(run, place) for run in runs]
        while waiting:
            (finished,), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        cause = error.as_instanceof_cause()
        raise (error.cause if isinstance(error.cause, ReconveneError) else cause) from None
    finally:
        if started:
            ray.shutdown()


Engine = Callable[[Sequence[Run], Environment, int], Iterator[dict[str, Any]]]
ENGINES: Mapping[str, Engine] = MappingProxyType(
    {"processes": _in_processes, "ray": _with_ray, "side-by-side": side_by_side}
)

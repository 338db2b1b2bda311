"""Many trainings: methods x scores x degrees x seeds, on this machine or on several, resumable at any point.

Every finished run is one line of JSON in a file; a run that is in the file is not repeated, and one that was killed goes on
from its checkpoint.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ..frontend.base.errors import InputError, ReconveneError
from ..frontend.base.files import read_regular
from ..frontend.base.json_text import parse_json
from ..frontend.base.progress import track
from ..frontend.data.datasets import find_dataset
from ..frontend.graph_module import CapturedModule
from ..passes.canonicalize import canonicalize
from ..passes.dependency import dependency_view
from ..passes.pruning.baselines import Candidate, Setting, keeps_shapes, make_candidate, same_place
from ..passes.pruning.scores import Evidence
from ..passes.sizes import total_size
from .models import LoadedModel, load_model
from .reports.latency import measure
from .reports.report import environment
from .scoring_data import scoring_batches
from .training.loop import Hardware, Trained, train
from .training.presets import check_compute, find_preset

__all__ = ["ENGINES", "Environment", "Run", "grid", "read_results", "run_one", "sweep", "timed_again"]


@dataclass(frozen=True)
class Run:
    """One network, pruned one way, trained once. Plain values only."""

    model: str
    width: float
    dataset: str
    method: str
    score: str
    sparsity: float
    seed: int
    preset: str
    settings: tuple[tuple[str, Any], ...] = ()
    """Changes to the preset."""
    at: str = "p"
    """What is equal between methods: of `pruning.placement.PLACES`."""
    compute: str = "epochs"
    """What is equal between trainings: of `training.presets.COMPUTE`."""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Run:
        """The run that a line of the results is of."""
        values = {entry.name: line[entry.name] for entry in fields(cls) if entry.name in line}
        return cls(**{**values, "settings": tuple(sorted(line["settings"].items()))})

    @property
    def key(self) -> str:
        """Names the run; the same values give the same key, and did so before there were the fields of `_LATER`."""
        values = {name: value for name, value in asdict(self).items() if name not in _LATER or value != _LATER[name]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def plain(self) -> Run:
        """The first of all runs that train the same network in the same way, to compare it and its like by."""
        if self.method == "dense":
            return replace(self, sparsity=0.0, at="p", compute="epochs")
        compute = "epochs" if keeps_shapes(self.method) else self.compute
        return replace(self, at=same_place(self.method, self.score, self.at), compute=compute)


_LATER: Mapping[str, str] = MappingProxyType({"at": "p", "compute": "epochs"})


@dataclass(frozen=True)
class Environment:
    """Where runs find data and leave checkpoints, and what each may use."""

    work: Path
    data: Path | None = None
    machine: Hardware = field(default_factory=lambda: Hardware(threads=1))


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


def run_one(run: Run, place: Environment) -> dict[str, Any]:
    """Builds, prunes, trains and measures; gives the run's line for the results.

    Raises:
        InputError: something of the run does not exist, or does not fit.
    """
    dataset = find_dataset(run.dataset)
    preset = find_preset(run.preset).changed(dict(run.settings))
    with _threads(place.machine.threads):
        loaded, candidate, pruned = _candidate(run, place)
        if run.compute == "equal":
            preset = preset.stretched(_macs(loaded.module), candidate.size.macs)
        training, test = (dataset.load(place.data, split) for split in ("train", "test"))
        done = train(
            candidate.module, training, test, preset, place.work / run.key, masks=candidate.masks,
            method=candidate.method, machine=place.machine, seed=run.seed,
        )  # fmt: skip
        latency = _latency(candidate, loaded.example_inputs, place.machine.threads or 1, ("eager",))
    return {
        "key": run.key,
        **asdict(run),
        "settings": dict(run.settings),
        "data": training.name,
        "weights": _weights_left(candidate, done),
        **_sizes(candidate),
        "placed": None if candidate.placed is None else asdict(candidate.placed),
        "epochs": preset.epochs,
        "latency_ms": latency["eager"],
        "prune_seconds": pruned,
        "train_seconds": done.seconds,
        "accuracy": done.rows[-1]["test_accuracy"],
        "best_accuracy": max(row["test_accuracy"] for row in done.rows),
        "threads": place.machine.threads,
        "precision": place.machine.precision,
        "environment": environment(),
    }


def timed_again(line: Mapping[str, Any], place: Environment) -> dict[str, Any]:
    """A line of the results with latencies measured now: eager, and compiled by our pipeline (``compiled_latency_ms``).

    The weights' values do not matter for them, so the network is pruned again, but not trained; its sizes are counted again,
    too. Where the method makes a network of other parameters by now, the line stays as it is.
    """
    run = Run.of(line)
    if placed := line.get("placed"):
        run = replace(run, at="p", sparsity=placed["sparsity"])  # What a search ended with needs none.
    with _threads(place.machine.threads):
        loaded, candidate, _ = _candidate(run, place)
        if candidate.size.parameters != line["parameters"]:
            return dict(line)
        found = _latency(candidate, loaded.example_inputs, place.machine.threads or 1, ("eager", "reconvene"))
    return {**line, **_sizes(candidate), "latency_ms": found["eager"], "compiled_latency_ms": found["reconvene"]}


def sweep(
    runs: Sequence[Run], results: Path, place: Environment, *, engine: str = "processes", workers: int = 1
) -> list[dict[str, Any]]:
    """Does the runs that `results` does not have yet, each line written as its run ends; gives all their lines.

    Args:
        runs: what to do.
        results: a file of JSON lines; made if need be.
        place: data, checkpoints and machine. With Ray on several machines the paths must be the same on all.
        engine: of `ENGINES`; ``ray`` needs ``pip install 'reconvene[sweep]'`` and takes RAY_ADDRESS.
        workers: runs at a time.

    Raises:
        InputError: there is no such engine, the results cannot be read or are of another precision, or a run cannot be
            done.
    """
    if engine not in ENGINES:
        raise InputError(f"there is no engine '{engine}'; choose one of {', '.join(ENGINES)}")
    if workers < 1:
        raise InputError(f"{workers} workers do nothing; give 1 or more")
    done = {line["key"]: line for line in read_results(results)}
    others = {str(line["precision"]) for line in done.values()} - {place.machine.precision}
    if others:
        raise InputError(
            f"'{results}' has runs in {', '.join(sorted(others))}, these would be in {place.machine.precision}; name another"
            " file"
        )
    missing = [run for run in runs if run.key not in done]
    with results.open("a", encoding="utf-8") as file:
        for line in track(ENGINES[engine](missing, place, workers), "runs", len(missing)):
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
            done[line["key"]] = line
    return [done[run.key] for run in runs]


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
        raise InputError("the engine ray needs another package; run: pip install 'reconvene[sweep]'") from None
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
ENGINES: Mapping[str, Engine] = MappingProxyType({"processes": _in_processes, "ray": _with_ray})


def _candidate(run: Run, place: Environment) -> tuple[LoadedModel, Candidate, float]:
    """The run's network before training, and the seconds that pruning it took."""
    loaded = load_model(run.model, (), run.seed, ("batch",), dataset=run.dataset, width=run.width)
    assert isinstance(loaded.module, CapturedModule)
    batches = scoring_batches(loaded, run.score, run.dataset, place.data, False, run.seed)
    started = time.perf_counter()
    evidence = Evidence(loaded.example_inputs, batches, seed=run.seed)
    setting = Setting(evidence, run.score, run.sparsity, run.at)
    candidate = make_candidate(run.method, loaded.module, setting)
    return loaded, candidate, time.perf_counter() - started


def _sizes(candidate: Candidate) -> dict[str, int]:
    """Multiply-accumulates are of one image."""
    return {
        "parameters": candidate.size.parameters,
        "kept": candidate.kept,
        "macs": candidate.size.macs,
        "effective_macs": candidate.effective_macs,
    }


def _macs(module: torch.fx.GraphModule) -> int:
    return total_size(dependency_view(canonicalize(module)), module).macs


def _weights_left(candidate: Candidate, done: Trained) -> int:
    """Parameters that are not zero for good: those that no mask holds, and no method has zeroed in training."""
    if candidate.method is None:
        return candidate.weights
    assert isinstance(done.module, CapturedModule)
    seen = candidate.method.weights(done.module).values()
    return candidate.weights - sum(int((weight == 0).sum()) for weight in seen)


def _latency(candidate: Candidate, inputs: Sequence[Any], threads: int, engines: Sequence[str]) -> dict[str, float]:
    """Milliseconds of one image by engine, medians."""
    one = tuple(value[:1] if isinstance(value, torch.Tensor) else value for value in inputs)
    rows = measure({"trained": (candidate.module, one)}, threads=threads, engines=engines)
    return {row.engine: row.median_ms for row in rows}


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """PyTorch's threads while a block runs."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)

"""One network of a comparison: how it is named, made, trained, and written down. All of it can be handed to other processes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ..frontend.data.datasets import Images, find_dataset
from ..frontend.graph_module import CapturedModule
from ..passes.canonicalize import canonicalize
from ..passes.dependency import dependency_view
from ..passes.pruning.baselines import Candidate, Setting, keeps_shapes, make_candidate, same_place
from ..passes.pruning.scores import Evidence
from ..passes.sizes import total_size
from .models import load_model
from .reports.latency import measure
from .reports.report import environment
from .scoring_data import scoring_batches
from .training.loop import Hardware, Trained, train
from .training.presets import Preset, find_preset

__all__ = ["Environment", "Prepared", "Run", "images_of", "line_of", "prepared", "run_one", "timed_again"]


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
    seconds: float | None = None
    """After which engines that can stop do, with a checkpoint of every training; None: when all is done."""


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to be trained."""

    run: Run
    preset: Preset
    candidate: Candidate
    inputs: tuple[Any, ...] = field(repr=False)
    """That it was captured with."""
    seconds: float
    """That pruning took."""


def prepared(run: Run, place: Environment) -> Prepared:
    """Builds and prunes the network of a run.

    Raises:
        InputError: something of the run does not exist, or does not fit.
    """
    preset = find_preset(run.preset).changed(dict(run.settings))
    with _threads(place.machine.threads):
        loaded = load_model(run.model, (), run.seed, ("batch",), dataset=run.dataset, width=run.width)
        assert isinstance(loaded.module, CapturedModule)
        batches = scoring_batches(loaded, run.score, run.dataset, place.data, False, run.seed)
        started = time.perf_counter()
        evidence = Evidence(loaded.example_inputs, batches, seed=run.seed)
        setting = Setting(evidence, run.score, run.sparsity, run.at)
        candidate = make_candidate(run.method, loaded.module, setting)
        seconds = time.perf_counter() - started
        if run.compute == "equal":
            preset = preset.stretched(_macs(loaded.module), candidate.size.macs)
    return Prepared(run, preset, candidate, loaded.example_inputs, seconds)


def images_of(run: Run, place: Environment) -> tuple[Images, Images]:
    """Training and test images. Raises InputError if they are not there."""
    dataset = find_dataset(run.dataset)
    return dataset.load(place.data, "train"), dataset.load(place.data, "test")


def run_one(run: Run, place: Environment) -> dict[str, Any]:
    """Builds, prunes, trains and measures; gives the run's line for the results.

    Raises:
        InputError: something of the run does not exist, or does not fit.
    """
    made = prepared(run, place)
    training, test = images_of(run, place)
    with _threads(place.machine.threads):
        done = train(
            made.candidate.module, training, test, made.preset, place.work / run.key, masks=made.candidate.masks,
            method=made.candidate.method, machine=place.machine, seed=run.seed,
        )  # fmt: skip
        latency = _latency(made, place.machine.threads or 1, ("eager",))
    return {**line_of(made, done, training.name, place.machine), "latency_ms": latency["eager"]}


def line_of(made: Prepared, done: Trained, data: str, machine: Hardware) -> dict[str, Any]:
    """What the results say of a run but for its latency, in JSON's types."""
    candidate = made.candidate
    return {
        "key": made.run.key,
        **asdict(made.run),
        "settings": dict(made.run.settings),
        "data": data,
        "weights": _weights_left(candidate, done),
        **_sizes(candidate),
        "placed": None if candidate.placed is None else asdict(candidate.placed),
        "epochs": made.preset.epochs,
        "prune_seconds": made.seconds,
        "train_seconds": done.seconds,
        "accuracy": done.rows[-1]["test_accuracy"],
        "best_accuracy": max(row["test_accuracy"] for row in done.rows),
        "threads": machine.threads,
        "device": machine.device,
        "precision": machine.precision,
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
    made = prepared(run, place)
    if made.candidate.size.parameters != line["parameters"]:
        return dict(line)
    with _threads(place.machine.threads):
        found = _latency(made, place.machine.threads or 1, ("eager", "reconvene"))
    return {**line, **_sizes(made.candidate), "latency_ms": found["eager"], "compiled_latency_ms": found["reconvene"]}


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


def _latency(made: Prepared, threads: int, engines: Sequence[str]) -> dict[str, float]:
    """Milliseconds of one image by engine, medians."""
    one = tuple(value[:1] if isinstance(value, torch.Tensor) else value for value in made.inputs)
    rows = measure({"trained": (made.candidate.module, one)}, threads=threads, engines=engines)
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

"""Grids of trainings: what is in them, that they go on where they stopped, and both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from training_kills import write_images

from reconvene.driver import runs as one
from reconvene.driver import sweep as module
from reconvene.driver.runs import Environment, Run, run_one, timed_again
from reconvene.driver.sweep import grid, read_results, sweep
from reconvene.driver.training.loop import Hardware
from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning import baselines

SETTINGS = (("batch", 16), ("epochs", 1), ("test_images", 0), ("train_images", 0))
COMMON: dict[str, Any] = {
    "model": "resnet20", "width": 0.25, "dataset": "cifar10", "preset": "smoke", "settings": SETTINGS,
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Environment:
    write_images(tmp_path / "data", count=8)
    return Environment(tmp_path / "work", tmp_path / "data", Hardware(threads=1))


def runs(*methods: str, seeds: tuple[int, ...] = (0,)) -> tuple[Run, ...]:
    return grid([(method, "magnitude") for method in methods], [0.8], seeds, **COMMON)


def test_a_grid_has_the_dense_network_once_for_every_seed() -> None:
    found = grid([("dense", "magnitude"), ("upai", "snip")], [0.5, 0.9], [0, 1], **COMMON)
    assert [(run.method, run.sparsity, run.seed) for run in found] == [
        ("dense", 0.0, 0), ("upai", 0.5, 0), ("upai", 0.9, 0), ("dense", 0.0, 1), ("upai", 0.5, 1), ("upai", 0.9, 1),
    ]  # fmt: skip
    assert len({run.key for run in found}) == 6


def test_a_grid_trains_no_network_twice_in_the_same_way() -> None:
    found = grid(
        [("dense", "magnitude"), ("upai", "magnitude"), ("reconvene", "magnitude")], [0.9], [0],
        at=("p", "weights", "macs"), compute=("epochs", "equal"), **COMMON,
    )  # fmt: skip
    assert [(run.method, run.at, run.compute) for run in found] == [
        ("dense", "p", "epochs"),
        ("upai", "p", "epochs"), ("upai", "macs", "epochs"),
        ("reconvene", "p", "epochs"), ("reconvene", "p", "equal"),
        ("reconvene", "weights", "epochs"), ("reconvene", "weights", "equal"),
    ]  # fmt: skip


def test_runs_from_before_there_were_places_are_known() -> None:
    """This line is of a results file that was written before runs had the fields `at` and `compute`."""
    line = {
        "key": "d37b74162f4fb9e3", "model": "vgg16", "width": 0.5, "dataset": "cifar10", "method": "reconvene",
        "score": "magnitude", "sparsity": 0.9, "seed": 0, "preset": "laptop", "settings": {},
    }  # fmt: skip
    run = Run.of(line)
    assert run.key == line["key"] and (run.at, run.compute) == ("p", "epochs")
    assert len({run.key, replace(run, at="macs").key, replace(run, compute="equal").key}) == 3


def test_an_unknown_compute_is_one_line() -> None:
    with pytest.raises(InputError, match="no compute 'most'; choose epochs or equal"):
        grid([("upai", "magnitude")], [0.9], [0], compute=("most",), **COMMON)


def test_equal_compute_trains_longer(place: Environment) -> None:
    place.work.mkdir()
    (run,) = runs("uniform")
    longer = run_one(replace(run, compute="equal"), place)
    assert (longer["compute"], longer["epochs"], longer["settings"]["epochs"]) == ("equal", 2, 1)
    assert Run.of(longer) == replace(run, compute="equal")


def test_a_placed_run_says_what_was_reached(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    place.work.mkdir()
    (run,) = runs("upai")
    line = run_one(replace(run, at="macs"), place)
    found = line["placed"]
    assert json.loads(json.dumps(line)) == line and found["reached"] == line["effective_macs"]
    assert abs(found["reached"] / found["wanted"] - 1) < 0.1 and 0 < found["sparsity"] < 1
    monkeypatch.setattr(baselines, "placed", None)
    monkeypatch.setattr(one, "_latency", lambda *_: {"eager": 1.0, "reconvene": 0.5})
    assert timed_again(line, place)["compiled_latency_ms"] > 0


def test_a_run_says_what_it_cost_and_gave(place: Environment) -> None:
    place.work.mkdir()
    (run,) = runs("upai")
    line = run_one(run, place)
    assert json.loads(json.dumps(line)) == line
    assert line["key"] == run.key and line["method"] == "upai" and line["settings"]["epochs"] == 1
    assert line["weights"] < line["parameters"] and 0 <= line["accuracy"] <= 1
    assert line["latency_ms"] > 0 and line["train_seconds"] > 0 and line["placed"] is None and line["epochs"] == 1
    assert 0 < line["effective_macs"] < line["macs"] and line["kept"] < line["weights"]


def test_latencies_are_measured_again_without_training(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    place.work.mkdir()
    line = run_one(runs("reconvene")[0], place)
    monkeypatch.setattr(one, "train", None)
    again = timed_again(line, place)
    monkeypatch.setattr(one, "_latency", lambda *_: {"eager": 1.0, "reconvene": 0.5})
    assert again["compiled_latency_ms"] > 0 and again["latency_ms"] > 0
    same = set(line) - {"latency_ms"}
    assert {name: again[name] for name in same} == {name: line[name] for name in same}
    # Sizes are counted again, too; of a network that the method does not make any more, nothing is.
    assert timed_again({**line, "macs": 2 * line["macs"]}, place)["macs"] == line["macs"]
    other = {**line, "parameters": line["parameters"] + 1}
    assert timed_again(other, place) == other


def test_what_is_in_the_results_is_not_done_again(
    place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, seen = tmp_path / "results.jsonl", list[str]()

    def noted(run: Run, place: Environment) -> dict[str, Any]:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(run.method)
        return {"key": run.key, "method": run.method, "precision": "float32"}

    monkeypatch.setattr(module, "run_one", noted)
    wanted = runs("dense", "upai", "reconvene")
    with pytest.raises(KeyboardInterrupt):
        sweep(wanted, results, place)
    with results.open("a") as file:
        file.write('{"key": "half a li')
    seen.clear()
    lines = sweep(wanted, results, place)
    assert seen == ["reconvene"]
    assert [line["method"] for line in lines] == ["dense", "upai", "reconvene"]
    assert len(read_results(results)) == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"precision": "bfloat16"}, "bfloat16 on cpu"),
        ({"precision": "float32", "device": "cuda:1"}, "float32 on cuda"),
    ],
)
def test_runs_of_another_precision_or_device_are_not_mixed_in(
    line: dict[str, str], told: str, place: Environment, tmp_path: Path
) -> None:
    results = tmp_path / "r.jsonl"
    results.write_text(json.dumps({"key": "x", **line}) + "\n")
    wanted = rf"r\.jsonl' has runs in {told}, these would be in float32 on cpu; name another file"
    with pytest.raises(InputError, match=wanted):
        sweep(runs("dense"), results, place)


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError, match=r"r\.jsonl"):
        read_results(tmp_path / "r.jsonl")


@pytest.mark.parametrize("options", [{"engine": "slurm"}, {"workers": 0}])
def test_bad_options_are_refused(options: dict[str, Any], place: Environment, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"choose one of processes, ray|1 or more"):
        sweep(runs("dense"), tmp_path / "r.jsonl", place, **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of two workers, on this machine; not the last in the queue for its processors, as Ray's own default is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_cluster_of_two_workers_gives_what_one_process_gives(place: Environment, tmp_path: Path) -> None:
    wanted = runs("dense", "reconvene")
    there = sweep(wanted, tmp_path / "ray.jsonl", place, engine="ray", workers=2)
    here = sweep(wanted, tmp_path / "here.jsonl", Environment(tmp_path / "other", place.data, place.machine))
    for first, second in zip(there, here, strict=True):
        assert {key: value for key, value in first.items() if "seconds" not in key and key != "latency_ms"} == {
            key: value for key, value in second.items() if "seconds" not in key and key != "latency_ms"
        }


@pytest.mark.usefixtures("cluster")
def test_a_failure_on_the_cluster_is_the_run_s_own_error(place: Environment, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no method 'nas'"):
        sweep(runs("nas"), tmp_path / "ray.jsonl", place, engine="ray", workers=1)

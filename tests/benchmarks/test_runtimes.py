"""Pruned networks in other runtimes: what their rows say, and what becomes of one that fails or dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import other_runtimes
import pytest
import torch
from other_runtimes import RUNTIMES, Shipped, failure, onnxruntime, openvino, ours, version_of
from runtimes import Worker, measure, summary, table
from torch import nn


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


INPUTS = (torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)


@pytest.mark.parametrize("runtime", [ours, onnxruntime, openvino])
def test_a_runtime_computes_the_network_from_files(runtime: other_runtimes.Runtime, tmp_path: Path) -> None:
    package = {ours: "reconvene"}.get(runtime, runtime.__name__)  # type: ignore[attr-defined]
    if version_of(package) is None:
        pytest.skip(f"no {package}")
    with torch.inference_mode():
        made = runtime(network(), INPUTS, tmp_path)
        torch.testing.assert_close(made.call(), network()(*INPUTS), rtol=1e-4, atol=1e-6)
    assert made.bytes >= 4 * sum(parameter.numel() for parameter in network().parameters())
    assert all(path.is_relative_to(tmp_path) for path in made.files)


def eager(module: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path) -> Shipped:
    (folder / "file").write_bytes(b"1234")
    return Shipped((folder / "file",), lambda: module(*inputs))


def refusing(*_: Any) -> Shipped:
    raise ValueError("\nno such | operator\nmore")


def dying(*_: Any) -> Shipped:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def later(module: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path) -> Shipped:
    """Dies of its second call."""
    calls: list[int] = []

    def call() -> torch.Tensor:
        calls.append(1)
        return module(*inputs) if len(calls) < 2 else dying().call()

    return Shipped((), call)


def test_what_fails_or_dies_is_a_row_and_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"eager": eager, "refusing": refusing, "dying": dying, "later": later}
    monkeypatch.setattr(other_runtimes, "RUNTIMES", {name: (runtime, "torch") for name, runtime in made.items()})
    monkeypatch.setattr("runtimes.RUNTIMES", other_runtimes.RUNTIMES)
    rows = measure("small", "dense", network(), INPUTS, list(made), repeat=4)
    first, *others = rows
    assert first["bytes"] == 4 and first["difference"] == 0 and first["repeats"] == 4
    assert [row["failed"] for row in others] == [
        "ValueError: no such | operator", "its process ended with -9", "its process ended with -9",
    ]  # fmt: skip
    text = summary({"environment": {"torch": "2"}, "rows": rows})
    assert text.startswith("torch 2\n\n| network") and "| - | - | - | ValueError: no such \\| operator |" in text
    assert table([first]).splitlines()[-1].startswith(f"| small, dense | eager {version_of('torch')} | 0.0 | ")


def test_a_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_runtimes, "RUNTIMES", {"eager": (eager, "torch")})
    worker = Worker("eager", network(), INPUTS, tmp_path / "folder")
    assert worker.told()["bytes"] == 4 and worker.seconds() > 0
    worker.end()
    assert "failed" in worker.told()


def test_failures_are_one_line() -> None:
    assert failure(KeyError()) == "KeyError" and failure(OSError("a\nb")) == "OSError: a"
    assert set(RUNTIMES) > {"reconvene", "ncnn"}

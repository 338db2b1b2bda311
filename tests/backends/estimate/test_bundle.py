"""Whole bundles: every kernel by its name, the same figures every time, and every fault in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.estimate import tools
from reconvene.backends.estimate.bundle import OTHER, estimate_bundle
from reconvene.backends.estimate.cost import Estimate
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs

board = needs("aarch64-linux-gnu-g++", "qemu-aarch64", "llvm-mca")
X = (torch.zeros(1, 3, 16, 16),)


def network() -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)).eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile(network(), X, "rpi4", winograd="off").export(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture(scope="module")
def estimate(bundle: Path) -> Estimate:
    return estimate_bundle(bundle)


@board
def test_every_kernel(estimate: Estimate) -> None:
    costs = {kernel.name: kernel for kernel in estimate.kernels}
    assert set(costs) == {"pack_0", "convolution_0", "pool_0", "convolution_1", "convolution_2", "unpack_0"}
    assert [kernel.cycles for kernel in estimate.kernels] == sorted((k.cycles for k in costs.values()), reverse=True)
    assert costs["convolution_0"].multiply_adds == 3 * 16 * 9 * 256 // 4
    assert costs["convolution_1"].multiply_adds == 16 * 16 * 9 * 64 // 4
    # Ten outputs take three vectors.
    assert costs["convolution_2"].multiply_adds == 1024 * 12 // 4
    assert costs["pool_0"].multiply_adds == 0
    assert costs["pool_0"].efficiency is None
    assert estimate.other.name == OTHER


@board
def test_total_and_json(estimate: Estimate) -> None:
    every = [*estimate.kernels, estimate.other]
    total = estimate.total
    assert total.instructions == sum(cost.instructions for cost in every)
    assert total.l1_misses == sum(cost.l1_misses for cost in every)
    assert total.milliseconds == pytest.approx(sum(cost.milliseconds or 0 for cost in every))
    data = json.loads(estimate.to_json())
    assert data["total"]["instructions"] == total.instructions
    assert data["core"]["model"] == "Cortex-A57"
    assert data["caches"] == [[32768, 2], [1048576, 16]]
    assert "which it takes for cortex-a72" in data["limits"][0]
    assert "assumed 4 GB/s" in data["limits"][1]


@board
def test_the_same_every_time(bundle: Path, estimate: Estimate) -> None:
    again = estimate_bundle(bundle)
    assert again.kernels == estimate.kernels


@board
def test_on_the_command_line(bundle: Path, estimate: Estimate, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", str(bundle), "--json"]) == 0
    kernels = json.loads(capsys.readouterr().out)["kernels"]
    assert [kernel["cycles"] for kernel in kernels] == [kernel.cycles for kernel in estimate.kernels]
    assert main(["estimate", str(bundle), "--assembly", "convolution_1"]) == 0
    shown = capsys.readouterr().out
    assert "One pass on rpi4" in shown and "fmla" in shown and "assumed 4 GB/s" in " ".join(shown.split())
    assert main(["estimate", str(bundle), "--assembly", "convolution_9"]) == 2
    assert "no kernel is called 'convolution_9'; there are convolution_" in capsys.readouterr().err


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["estimate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_what_is_no_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no bundle" in refused([str(tmp_path / "missing")], capsys)
    folder = compile(network(), X, "rpi4").export(tmp_path / "bundle", link=False)
    assert "holds no program; compile it with --runtime static" in refused([str(folder)], capsys)


def test_another_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = compile(network(), X, "rpi2").export(tmp_path / "bundle", link=False)
    message = refused([str(folder)], capsys)
    assert "LLVM has no model of the core of 'rpi2'; it has one of cortex-m4, cortex-m7, cortex-a53" in message


@board
def test_missing_tools(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs QEMU (qemu-aarch64); install it" in refused([str(bundle)], capsys)
    monkeypatch.setattr(tools, "_LLVM_FOLDERS", ())
    tools.llvm_tool.cache_clear()
    try:
        with pytest.raises(InputError, match="there is no llvm-mca; install LLVM 14 or newer"):
            tools.llvm_tool("llvm-mca")
        with pytest.raises(InputError, match=r"there is no C compiler for QEMU's plugins; install one"):
            tools.compiler()
    finally:
        tools.llvm_tool.cache_clear()


@board
def test_without_a_clock_there_is_no_time(tmp_path: Path) -> None:
    target = dataclasses.replace(compile(network(), X, "rpi4").target, name="board", clock_mhz=None)
    found = estimate_bundle(compile(network(), X, target).export(tmp_path / "bundle"))
    assert found.total.milliseconds is None
    assert found.total.cycles > 0
    assert "an unknown clock" in found.limits[1]

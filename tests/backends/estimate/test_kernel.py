"""Kernels by themselves: what they must cost, the same every time, and what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from tvm import IRModule, tirx
from tvm.script import tirx as T

from reconvene.backends.compile import compile
from reconvene.backends.estimate.kernel import estimate_kernel
from reconvene.backends.estimate.tools import cache_folder
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs

pytestmark = needs("aarch64-linux-gnu-g++", "qemu-aarch64", "llvm-mca")


def convolution(channels: int, size: int = 8) -> IRModule:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()).eval()
    built = compile(layer, (torch.zeros(1, channels, size, size),), "rpi4", winograd="off")
    found = {variable.name_hint: function for variable, function in built.artifact.scheduled.functions.items()}
    return IRModule({"convolution_0": found["convolution_0"]})


def test_half_of_the_channels_are_a_quarter_of_the_work() -> None:
    dense, half = (estimate_kernel(convolution(channels), "rpi4", caches=False) for channels in (256, 128))
    assert dense.instructions / half.instructions == pytest.approx(4, rel=0.02)
    assert dense.multiply_adds == 256 * 256 * 9 * 64 // 4
    assert half.multiply_adds == dense.multiply_adds // 4
    assert dense.cycles / half.cycles == pytest.approx(4, rel=0.05)


def test_what_a_convolution_costs() -> None:
    kernel = convolution(32)
    cost = estimate_kernel(kernel, "rpi4", cached=False)
    assert estimate_kernel(kernel, "rpi4", cached=False) == cost
    assert cost.name == "convolution_0"
    assert cost.multiply_adds == 32 * 32 * 9 * 64 // 4
    assert cost.floor_cycles == cost.multiply_adds <= cost.throughput_cycles <= cost.cycles
    assert cost.efficiency is not None and 0.6 < cost.efficiency < 1
    assert cost.milliseconds == pytest.approx(cost.cycles / 1.5e6)
    # 36 KiB of weights do not fit into the first cache, and all fits into the second.
    assert cost.l1_misses > 36864 // 64
    assert cost.last_misses == cost.memory_bytes == 0
    assert cost.hottest is not None and sum("fmla" in line for line in cost.hottest.assembly) >= 8
    fast = estimate_kernel(kernel, "rpi4", caches=False, cached=False)
    assert (fast.instructions, fast.cycles, fast.l1_misses) == (cost.instructions, cost.cycles, 0)


def test_results_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONVENE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel = convolution(8)
    cost = estimate_kernel(kernel, "rpi4", caches=False)
    (kept,) = (cache_folder() / "kernels").iterdir()
    values = json.loads(kept.read_text())
    kept.write_text(json.dumps({**values, "instructions": 1}))
    assert estimate_kernel(kernel, "rpi4", caches=False).instructions == 1
    kept.write_text("not JSON")
    assert estimate_kernel(kernel, "rpi4", caches=False) == cost
    # Another core is another estimate of the same code.
    estimate_kernel(kernel, "rpi3", caches=False)
    assert len(list((cache_folder() / "kernels").iterdir())) == 2


@T.prim_func(s_tir=True)
def scaled(source: T.Buffer((64,), "float32"), result: T.Buffer((64,), "float32"), factor: T.float32) -> None:
    for i in range(64):
        result[i] = source[i] * factor


def test_what_cannot_be_measured() -> None:
    with pytest.raises(InputError, match="parameter 'factor' of the kernel is no tensor"):
        estimate_kernel(scaled, "rpi4")
    kernels = IRModule({"a": convolution(8)["convolution_0"], "b": convolution(8)["convolution_0"]})
    with pytest.raises(InputError, match="a module of one kernel is needed, this has 2: a, b"):
        estimate_kernel(kernels, "rpi4")
    with pytest.raises(InputError, match="LLVM has no model of the core of 'rpi2'; it has one of cortex-m4"):
        estimate_kernel(convolution(8), "rpi2")
    with pytest.raises(InputError, match="'cortex-m4' has no system that one kernel could run on"):
        estimate_kernel(convolution(8), "cortex-m4")


def test_a_function_is_a_kernel() -> None:
    function: tirx.PrimFunc = convolution(8)["convolution_0"]
    assert estimate_kernel(function, "rpi4", caches=False).multiply_adds == 8 * 8 * 9 * 64 // 4

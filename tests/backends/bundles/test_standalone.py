"""Models as C without a runtime: what is written, what it takes, and that a C program of one's own can call it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.backends.built import Built
from reconvene.backends.bundles.execution import benchmark_bundle, bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs


class Net(nn.Module):
    """Values that live long and short, a foreign kernel with workspace, and outputs that are an input and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1)
        self.norm, self.last = nn.LayerNorm(9), nn.Linear(20, 5)
        self.register_buffer("table", torch.arange(4.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.relu(self.first(x))
        z = self.norm(torch.relu(self.second(y)) + y)
        row = self.last(z.mean((2, 3)))
        return row, x, row.reshape(5, 1), self.table, z


X = torch.randn(1, 3, 7, 9, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def export(target: str, folder: Path) -> Path:
    return compile(net(), (X,), target, winograd="off").export(folder, runtime="none")


def agree(folder: Path) -> None:
    bundle = open_bundle(folder)
    got = run_bundle(bundle, (X,), bundle_emulator(bundle))
    with torch.no_grad():
        expected = net()(X)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_on_64_bits(tmp_path: Path) -> None:
    folder = export("rpi4", tmp_path / "bundle")
    agree(folder)
    figures = json.loads((folder / "figures.json").read_text())
    images = 4 * 20 * 9 * 11  # a blocked image of 20 channels with its halo
    assert figures["weights"] >= sum(p.numel() for p in net().parameters()) * 4
    # Six values are as large as an image, more or less; two are alive at once.
    assert images < figures["arena"] < 2.5 * images
    assert figures["ram"] >= figures["arena"] + figures["workspace"]
    assert figures["flash"] > figures["weights"]


@needs("qemu-arm", "arm-linux-gnueabihf-g++")
def test_on_32_bits(tmp_path: Path) -> None:
    agree(export("rpi2", tmp_path / "bundle"))


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_a_program_of_ones_own(tmp_path: Path) -> None:
    """As the README says; and an array that is not aligned is refused, not read."""
    folder = compile(nn.Linear(5, 3).eval(), (torch.randn(1, 5),), "rpi4").export(tmp_path / "bundle", runtime="none")
    (tmp_path / "program.c").write_text(
        '#include <stdio.h>\n#include "reconvene_model.h"\n'
        "static float in[8] RECONVENE_ALIGNED = {1, 2, 3, 4, 5}, out[8] RECONVENE_ALIGNED;\n"
        "int main(void) {\n"
        "  if (reconvene_run(in + 1, out) != RECONVENE_UNALIGNED || reconvene_run(in, out)) return 1;\n"
        '  printf("%f %f %f\\n", out[0], out[1], out[2]);\n'
        "  return 0;\n}\n"
    )
    files = [str(tmp_path / "program.c"), "reconvene_model.c", "weights.S", "kernels.o"]
    compiler = ["aarch64-linux-gnu-gcc", "-O2", "-Wall", "-Werror", "-I.", "-static"]
    subprocess.run([*compiler, *files, "-lm", "-o", str(tmp_path / "own")], cwd=folder, check=True)
    done = subprocess.run(["qemu-aarch64", str(tmp_path / "own")], capture_output=True, text=True, check=True)
    bundle = open_bundle(folder)
    (expected,) = run_bundle(bundle, (torch.arange(1.0, 6.0).reshape(1, 5),), bundle_emulator(bundle))
    np.testing.assert_allclose(np.array(done.stdout.split(), float), expected.numpy().ravel(), atol=1e-6)


bare = needs("qemu-system-arm", "arm-none-eabi-g++")


@bare
@pytest.mark.parametrize("target", ["cortex-m7", "cortex-m4"])
def test_on_a_microcontroller(target: str, tmp_path: Path) -> None:
    """All of the network, with several outputs and a workspace; and the figures are those of the linked program."""
    folder = export(target, tmp_path / "bundle")
    agree(folder)
    bundle = open_bundle(folder)
    assert benchmark_bundle(bundle, 1, 0, bundle_emulator(bundle)) is None
    figures = json.loads((folder / "figures.json").read_text())
    printed = subprocess.run(
        ["arm-none-eabi-size", "-A", "run"], cwd=folder, capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in printed.stdout.splitlines() if line.startswith(".model_")]
    sizes = {name.removeprefix(".model_"): int(size) for name, size, _ in rows}
    assert figures["flash"] == sizes["code"] + sizes["constants"] + sizes["data"]
    assert figures["ram"] == sizes["data"] + sizes["zeros"]
    # The weights are as they are, and nothing but arrays is reserved: a few words of alignment and bookkeeping.
    assert sizes["constants"] >= figures["weights"]
    assert 0 <= sizes["zeros"] - figures["arena"] - figures["workspace"] < 32
    text = (folder / "README.md").read_text()
    assert f"takes {figures['flash']} bytes of flash" in text and f"and {figures['ram']} bytes of RAM" in text


@bare
def test_faults_of_a_microcontroller(tmp_path: Path) -> None:
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    bundle = open_bundle(compile(small, (X,), "cortex-m7").export(tmp_path / "bundle"))
    emulator = bundle_emulator(bundle)
    other = {"mps2-an500": "mps2-an385", "cortex-m7": "cortex-m3"}  # It has no floating-point unit.
    simpler = replace(emulator, command=tuple(other.get(word, word) for word in emulator.command))
    with pytest.raises(InputError, match="the processor stopped at a fault: an instruction it lacks"):
        run_bundle(bundle, (X,), simpler)


@bare
def test_a_model_too_large_for_qemus_board(tmp_path: Path) -> None:
    """Five megabytes of weights: sources and figures, but no program."""
    folder = compile(nn.Linear(1000, 1300).eval(), (torch.randn(1, 1000),), "cortex-m7").export(tmp_path / "bundle")
    assert json.loads((folder / "figures.json").read_text())["flash"] > 5_200_000
    bundle = open_bundle(folder)
    assert bundle.program is None
    with pytest.raises(InputError, match="holds no program; a compiler for it makes one"):
        run_bundle(bundle, (torch.randn(1, 1000),), bundle_emulator(bundle))


def test_without_a_compiler_there_are_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: Built = compile(net(), (X,), "cortex-m7")
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = built.export(tmp_path / "bundle")
    assert {"reconvene_model.c", "reconvene_model.h", "kernels.o", "weights.S", "weights.bin"} <= set(
        open_bundle(folder).files
    )
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["flash"] is None and figures["arena"] > 0
    assert "arm-none-eabi-gcc" in (folder / "README.md").read_text()
    with pytest.raises(InputError, match="holds no program"):
        run_bundle(open_bundle(folder), (X,))

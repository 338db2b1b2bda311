"""Bundles of models with state, of every kind: what a program keeps from call to call, and how it begins anew."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reconvene.backends.boards.jobs import benchmark_on_board, run_in_turn_on_board, run_on_board
from reconvene.backends.boards.server import write_server
from reconvene.backends.built import load_bundle
from reconvene.backends.bundles.execution import benchmark_bundle, bundle_emulator, run_bundle, run_in_turn
from reconvene.backends.bundles.manifest import Bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from tests.support.boards import serving
from tests.support.bundles import edit
from tests.support.stateful import chain, frames
from tests.support.tools import needs

INPUTS = frames(4)
NAMES = ["0.1.hidden", "1.now", "1.before", "2.calls", "3.begun", "4.kept"]

emulated = needs("qemu-aarch64", "aarch64-linux-gnu-g++")


def export(target: str, runtime: Any, folder: Path) -> Bundle:
    return open_bundle(compile(chain(), (INPUTS[0],), target).export(folder / "bundle", runtime=runtime))


@pytest.fixture(scope="module")
def expected() -> list[Tensor]:
    model = chain()
    with torch.no_grad():
        return [model(x).clone() for x in INPUTS]


def agree(found: list[tuple[Tensor, ...]], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for (mine,), theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_library_for_python(tmp_path: Path, expected: list[Tensor]) -> None:
    built = compile(chain(), (INPUTS[0],))
    built.run(INPUTS[1])  # A bundle begins as the model did.
    bundle = open_bundle(built.export(tmp_path / "bundle"))
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    assert sorted(row["name"] for row in manifest["state"]) == sorted(NAMES)
    rows = {row["name"]: row for row in manifest["state"]}
    assert rows["2.calls"] == {"name": "2.calls", "shape": [], "dtype": "int64", "initial": None}
    begin = np.load(bundle.folder / rows["0.1.hidden"]["initial"])
    assert (begin.dtype, begin.shape) == (np.float32, (3, 4)) and (begin == 0.5).all()
    assert "| `2.calls` | int64 | scalar |" in (bundle.folder / "README.md").read_text()
    loaded = load_bundle(bundle.folder)
    for _ in range(2):
        agree([(loaded.run(x),) for x in INPUTS], expected)
        loaded.reset()


def test_a_spoilt_state_is_refused(tmp_path: Path) -> None:
    bundle = export("host", "python", tmp_path)
    edit(bundle.folder, lambda manifest: [row.update(dtype="float64") for row in manifest["state"]])
    with pytest.raises(InputError, match=r"is not usable .*export the model again"):
        open_bundle(bundle.folder)


@emulated
def test_a_static_program(tmp_path: Path, expected: list[Tensor]) -> None:
    bundle = export("rpi4", "static", tmp_path)
    emulator = bundle_emulator(bundle)
    agree(run_in_turn(bundle, [[x] for x in INPUTS], emulator), expected)
    agree([run_bundle(bundle, [INPUTS[0]], emulator)], expected[:1])
    benchmark_bundle(bundle, 3, 1, emulator)
    lines = subprocess.run(
        [*emulator.command, str(bundle.program), "--help"], capture_output=True, text=True, check=True
    )
    assert "kept: 2.calls, int64 scalar" in lines.stdout
    agree(served(bundle, [*INPUTS, None, *INPUTS[:2]]), [*expected, *expected[:2]])
    refusal = subprocess.run(
        [*emulator.command, str(bundle.program), "--serve"], input=b"switch other\n", capture_output=True, check=True
    )
    assert b"error: the model keeps '" in refusal.stdout


def served(bundle: Bundle, inputs: list[Tensor | None]) -> list[tuple[Tensor, ...]]:
    """What the program answers on stdout; None begins anew."""
    sent = io.BytesIO()
    for x in inputs:
        if x is None:
            sent.write(b"reset\n")
        else:
            np.save(sent, x.numpy())
    command = [*bundle_emulator(bundle).command, str(bundle.program), "--serve"]
    answer = io.BytesIO(subprocess.run(command, input=sent.getvalue(), capture_output=True, check=True).stdout)
    return [(torch.from_numpy(np.load(answer)),) for x in inputs if x is not None]


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "wheels")
def test_the_wheels_runtime_and_boards(tmp_path: Path, expected: list[Tensor]) -> None:
    bundle = export("rpi4", "wheel", tmp_path)
    calls = [[x] for x in INPUTS]
    agree(run_in_turn(bundle, calls, bundle_emulator(bundle)), expected)
    folder = write_server(find_target("rpi4"), tmp_path / "server")
    program = open_bundle(compile(chain(), (INPUTS[0],), "rpi4").export(tmp_path / "static", runtime="static"))
    with serving(folder, "rpi4", "--port", "0", scratch=tmp_path) as board:
        agree(run_in_turn_on_board(program, calls, board.place).value, expected)
        with pytest.raises(InputError, match=r"keeps '.*' and '4.kept', and a library on a board forgets it"):
            run_in_turn_on_board(bundle, calls, board.place)
        for there in (bundle, program):
            agree([run_on_board(there, calls[0], board.place).value], expected[:1])
            assert benchmark_on_board(there, 3, board.place).value.repeats == 3


@needs("qemu-arm", "arm-linux-gnueabihf-g++")
def test_sources_without_a_runtime(tmp_path: Path, expected: list[Tensor]) -> None:
    bundle = export("rpi2", "none", tmp_path)
    agree(run_in_turn(bundle, [[x] for x in INPUTS], bundle_emulator(bundle)), expected)
    agree(served(bundle, [*INPUTS, None, *INPUTS[:2]]), [*expected, *expected[:2]])
    figures = json.loads((bundle.folder / "figures.json").read_text())
    assert (
        figures["state"] == 4 * 12 + 2 * 16 + 8 + 1 + 4 * 12 and figures["ram"] >= figures["state"] + figures["arena"]
    )


@needs("qemu-arm", "arm-linux-gnueabihf-g++")
def test_a_c_program_of_ones_own_begins_anew(tmp_path: Path, expected: list[Tensor]) -> None:
    folder = export("rpi2", "none", tmp_path).folder
    assert "reconvene_reset" in (folder / "README.md").read_text()
    numbers = [", ".join(f"{value!r}f" for value in x.flatten().tolist()) for x in INPUTS]
    rows = ", ".join(f"{{{row}}}" for row in numbers)
    (tmp_path / "program.c").write_text(
        f"""#include <stdio.h>
#include <string.h>
#include "reconvene_model.h"
static const float frames[][12] = {{{rows}}};
static float in[12] RECONVENE_ALIGNED, out[12] RECONVENE_ALIGNED;
int main(void) {{
  for (int call = 0; call < 8; ++call) {{
    if (call == 4) reconvene_reset();
    memcpy(in, frames[call % 4], sizeof in);
    if (reconvene_run(in, out)) return 1;
    for (int i = 0; i < 12; ++i) printf("%.9g ", out[i]);
  }}
  return 0;
}}
"""
    )
    compiler = [
        "arm-linux-gnueabihf-gcc",
        "-O2",
        "-Wall",
        "-Werror",
        f"-I{folder}",
        "-static",
        str(tmp_path / "program.c"),
    ]
    files = ["reconvene_model.c", "weights.S", "kernels.o", "-lm", "-o", str(tmp_path / "own")]
    subprocess.run([*compiler, *files], cwd=folder, check=True)
    done = subprocess.run(["qemu-arm", str(tmp_path / "own")], capture_output=True, text=True, check=True)
    found = torch.tensor(list(map(float, done.stdout.split()))).view(8, 3, 4)
    torch.testing.assert_close(found, torch.stack([*expected, *expected]))


@needs("qemu-system-arm", "arm-none-eabi-g++")
def test_a_microcontroller(tmp_path: Path, expected: list[Tensor]) -> None:
    bundle = export("cortex-m7", None, tmp_path)
    emulator = bundle_emulator(bundle)
    agree(run_in_turn(bundle, [[x] for x in INPUTS], emulator), expected)
    agree([run_bundle(bundle, [INPUTS[0]], emulator)], expected[:1])
    assert benchmark_bundle(bundle, 3, 0, emulator) is None

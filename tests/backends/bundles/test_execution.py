"""Programs of bundles on emulated boards: right answers, and every fault by its name."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.backends.built import load_bundle
from reconvene.backends.bundles.execution import benchmark_bundle, bundle_emulator, failure, program_timing, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.machines.targets import find_target
from reconvene.backends.measure import Timing
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs


class Net(nn.Module):
    """Two inputs of two dtypes, two outputs, and something for every part of the runner."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 10, 3, padding=1), nn.Linear(10, 7)

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.first(x))
        return self.last(y.mean((2, 3))), shift + shift


INPUTS = (torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, -5, 2**40]]))


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def agree(folder: Path) -> None:
    bundle = open_bundle(folder)
    got = run_bundle(bundle, INPUTS, bundle_emulator(bundle))
    expected = net()(*INPUTS)
    torch.testing.assert_close(got[0], expected[0].detach(), rtol=0, atol=1e-5 * float(expected[0].abs().max()))
    assert torch.equal(got[1], expected[1])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile(net(), INPUTS, "rpi4").export(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


@pytest.fixture
def program(bundle: Path) -> list[str]:
    """The call of the program itself, as it would be on the board."""
    found = open_bundle(bundle)
    assert found.program is not None
    return [*bundle_emulator(found).command, str(found.program)]


def said(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_static_on_64_bits(bundle: Path) -> None:
    agree(bundle)
    found = open_bundle(bundle)
    notices = {"LICENSE", "LICENSES.txt", "NOTICE", "sbom.cdx.json"}
    assert (found.runtime, found.glibc, set(found.files)) == ("static", None, {"run", "README.md", *notices})
    with pytest.raises(InputError, match="cannot run here; copy it there, or emulate the board with --on qemu"):
        run_bundle(found, INPUTS)
    with pytest.raises(InputError, match="holds a program"):
        load_bundle(bundle)


@needs("qemu-arm", "arm-linux-gnueabihf-g++")
def test_static_on_32_bits(tmp_path: Path) -> None:
    agree(compile(net(), INPUTS, "rpi2").export(tmp_path / "bundle"))


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "wheels")
def test_the_wheels_runtime(tmp_path: Path) -> None:
    folder = compile(net(), INPUTS, "rpi4").export(tmp_path / "bundle", runtime="wheel")
    agree(folder)
    found = open_bundle(folder)
    assert {"run", "model.so", "libtvm_runtime.so", "libtvm_ffi.so"} <= set(found.files)
    # What the program itself asks for is older than what the runtime asks for.
    assert found.glibc == "2.27"


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_bench_gives_no_emulated_seconds(bundle: Path, program: list[str]) -> None:
    found = open_bundle(bundle)
    assert benchmark_bundle(found, 2, 0, bundle_emulator(found)) is None
    done = subprocess.run([*program, "--bench", "3", "--json"], capture_output=True, text=True, check=True)
    timing = json.loads(done.stdout)
    assert timing["p10_ms"] <= timing["median_ms"] <= timing["p90_ms"]
    assert (timing["repeats"], timing["batch"]) == (3, 2)
    # Ending takes no time for each thread, as it does to wait for all of them.
    began = time.monotonic()
    text = subprocess.run(
        [*program, "--bench", "1", "--threads", "32"], capture_output=True, text=True, check=True
    ).stdout
    assert text.startswith("median ") and "32 threads" in text and time.monotonic() - began < 15
    text = subprocess.run([*program, "--bench", "1"], capture_output=True, text=True, check=True).stdout
    assert text.startswith("median ")


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_serve(program: list[str]) -> None:
    requests = [INPUTS, tuple(value * 2 for value in INPUTS)]
    stream = io.BytesIO()
    for request in requests:
        for value in request:
            np.save(stream, value.numpy())
    done = subprocess.run([*program, "--serve"], input=stream.getvalue(), capture_output=True, check=True)
    answers = io.BytesIO(done.stdout)
    for request in requests:
        for expected in net()(*request):
            np.testing.assert_allclose(np.load(answers), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert not answers.read()


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_what_the_program_says_of_its_inputs(program: list[str], tmp_path: Path) -> None:
    good = [tmp_path / "x.npy", tmp_path / "shift.npy"]
    for file, value in zip(good, INPUTS, strict=True):
        np.save(file, value.numpy())

    def refused(index: int, array: np.ndarray | bytes, message: str) -> None:
        bad = tmp_path / "bad.npy"
        if isinstance(array, bytes):
            bad.write_bytes(array)
        else:
            np.save(bad, array)
        files = [str(bad if i == index else file) for i, file in enumerate(good)]
        assert message in said([*program, *files])

    x = INPUTS[0].numpy()
    refused(0, x[:1], f"input 'x' must be float32 2x3x9x8, but '{tmp_path}/bad.npy' is float32 1x3x9x8")
    refused(0, x.astype("float64"), "is <f8 2x3x9x8")
    refused(0, x.astype(">f4"), "is >f4 2x3x9x8")
    refused(1, np.zeros((1, 3), "int32"), "input 'shift' must be int64 1x3")
    refused(0, np.asfortranarray(x), "is in Fortran order")
    refused(0, good[0].read_bytes()[:-1], "ends too early")
    refused(0, good[0].read_bytes() + b"x", "holds more than one array")
    refused(0, b"PK\x03\x04", "is not a .npy file")
    refused(0, b"", "is not a .npy file")
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("pipe", "it is no regular file"), (".", "it is no regular file")):
        assert f"cannot read '{tmp_path / name}': {why}" in said([*program, str(tmp_path / name), str(good[1])])
    assert "cannot read 'none.npy': No such file" in said([*program, "none.npy", str(good[1])])
    assert "the model takes 2 inputs, got 1 files" in said([*program, str(good[0])])
    assert "unknown option '--fast'" in said([*program, "--fast"])
    assert "--bench takes a number from 1" in said([*program, "--bench", "0"])
    assert "--threads takes a number from 1 to 1024, got '100000'" in said([*program, "--threads", "100000"])
    assert "cannot write" in said([*program, *map(str, good), "-o", str(tmp_path / "none")])


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_a_full_disk(program: list[str], tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    for name, value in zip("xs", INPUTS, strict=True):
        np.save(tmp_path / f"{name}.npy", value.numpy())
    out = tmp_path / "out"
    out.mkdir()
    call = " ".join([*program, str(tmp_path / "x.npy"), str(tmp_path / "s.npy"), "-o", str(out)])
    message = said(["bash", "-c", f"trap '' XFSZ; ulimit -f 0; exec {call}"])
    assert f"cannot write '{out}/output0.npy': File too large" in message
    assert not list(out.iterdir())


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_code_for_a_newer_core(tmp_path: Path) -> None:
    """Code with the vectors of Neoverse V1 on a Cortex-A53."""
    newer = replace(find_target("graviton3"), qemu_cpu="cortex-a53", features=("+sve",))
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 300), nn.Softmax(1))
    folder = compile(net.eval(), (torch.randn(1, 3, 8, 8),), newer).export(tmp_path / "bundle")
    found = open_bundle(folder)
    with pytest.raises(InputError, match="lacks an instruction of the model: it was compiled for neoverse-v1"):
        run_bundle(found, (torch.randn(1, 3, 8, 8),), bundle_emulator(found))


@needs("qemu-aarch64", "aarch64-linux-gnu-g++")
def test_broken_programs(bundle: Path) -> None:
    data = bytearray((bundle / "run").read_bytes())
    (bundle / "run").write_bytes(data[:-1000])
    with pytest.raises(InputError, match=r"'run' in bundle .* bytes instead of"):
        open_bundle(bundle)
    data[len(data) // 2] ^= 1
    (bundle / "run").write_bytes(data)
    with pytest.raises(InputError, match="does not have its checksum"):
        open_bundle(bundle)


def test_no_emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    from reconvene.backends.machines.emulation import find_emulator

    with pytest.raises(
        InputError, match=r"'rpi4' here needs QEMU .qemu-aarch64.; install it: apt-get install qemu-user"
    ):
        find_emulator(find_target("rpi4"))


TIMES = {"median_ms": 1.5, "p10_ms": 1, "p90_ms": 2.0, "minimum_ms": 0.5, "repeats": 3, "threads": 1, "batch": 2}


def test_what_programs_say_of_their_runs() -> None:
    """And what none says: a program, or the board that it runs on, may be another one."""
    bundle: Any = SimpleNamespace(folder="b")
    assert program_timing(bundle, json.dumps(TIMES)) == Timing(1.5, 1.0, 2.0, 0.5, 3, 1, 2)
    odd = [
        {"median_ms": "1"},
        {"median_ms": True},
        {"median_ms": None},
        {"p10_ms": -1},
        {"repeats": 1.5},
        {"threads": [1]},
        {"more": 1},
    ]
    for text in ("", "[]", "{}", "\x1b[2J", '{"median_ms": NaN}', *(json.dumps({**TIMES, **change}) for change in odd)):
        with pytest.raises(InputError, match=r"bundle 'b' printed no times but .*; compile it again") as caught:
            program_timing(bundle, text)
        assert str(caught.value).isprintable()
    with pytest.raises(InputError, match="printed no times"):
        program_timing(bundle, json.dumps(TIMES).replace("1.5", "1" + "0" * 400))
    for status, words in (
        (-9, "it was ended by SIGKILL"),
        (-35, "ended by signal 35"),
        (-9999, "ended by signal 9999"),
    ):
        assert words in failure(bundle, status, "")

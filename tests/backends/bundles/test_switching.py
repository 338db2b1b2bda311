"""The program of a bundle goes over to another variant of its portfolio, and stays where it is if that is broken."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import pytest
import torch

from reconvene.backends.bundles.execution import bundle_emulator
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from tests.support.portfolios import INPUTS, WIDTHS, network, small_portfolio
from tests.support.tools import needs

X = INPUTS[0].numpy()
EXPECTED = {name: network(width)(*INPUTS).detach().numpy() for name, width in WIDTHS.items()}

BOARDS = [
    pytest.param("host", "none", id="host-none"),
    pytest.param("host", "wheel", marks=needs("wheels"), id="host-wheel"),
    pytest.param("rpi4", "wheel", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++", "wheels"), id="rpi4-wheel"),
    pytest.param("rpi4", "static", marks=needs("qemu-aarch64", "aarch64-linux-gnu-g++"), id="rpi4-static"),
]


def read(pipe: IO[bytes]) -> np.ndarray:
    """One array. NumPy's own reading of files asks for their position, which a pipe does not have."""
    return np.lib.format.read_array(SimpleNamespace(read=pipe.read))  # type: ignore[arg-type]


class Program:
    """A program that serves, seen from the other end of its pipes."""

    def __init__(self, folder: Path, target: str) -> None:
        bundle = open_bundle(folder)
        assert bundle.program is not None
        launcher = [] if target == "host" else list(bundle_emulator(bundle).command)
        words = ["--launcher", " ".join([str(shutil.which(launcher[0])), *launcher[1:]])] if launcher else []
        call = [*launcher, str(bundle.program), "--serve", *words]
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def ask(self, variant: str, times: int = 1) -> None:
        """All requests are written before an answer is read; each must be the one of `variant`."""
        stream = io.BytesIO()
        for _ in range(times):
            np.save(stream, X)
        self._write(stream.getvalue())
        for _ in range(times):
            assert self.process.stdout is not None
            np.testing.assert_allclose(read(self.process.stdout), EXPECTED[variant], atol=1e-5)

    def say(self, line: str) -> str:
        self._write(f"{line}\n".encode())
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def _write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()


@contextlib.contextmanager
def serving(folder: Path, target: str) -> Iterator[Program]:
    program = Program(folder, target)
    try:
        yield program
        assert program.process.stdin is not None
        program.process.stdin.close()
        assert program.process.wait(60) == 0
    finally:
        program.process.kill()
        program.process.wait()


@pytest.mark.parametrize(("target", "runtime"), BOARDS)
def test_variants_take_turns(target: str, runtime: str, tmp_path: Path) -> None:
    small_portfolio(tmp_path / "tiny", target, runtime)
    place = tmp_path / "tiny" / "variants"
    with serving(place / "large" / target, target) as program:
        program.ask("large", 2)
        for name in ("small", "middle", "small", "large"):
            assert program.say(f"switch {name}") == f"switched {name}"
            program.ask(name, 3)
        # What follows a command at once is for the variant after it.
        stream = io.BytesIO(b"")
        np.save(stream, X)
        request = stream.getvalue()
        program._write(request + b"switch small\n" + request + b"switch none\n" + request)
        out = program.process.stdout
        assert out is not None
        np.testing.assert_allclose(read(out), EXPECTED["large"], atol=1e-5)
        assert out.readline() == b"switched small\n"
        np.testing.assert_allclose(read(out), EXPECTED["small"], atol=1e-5)
        assert out.readline().startswith(b"error: there is no variant 'none' at ")
        np.testing.assert_allclose(read(out), EXPECTED["small"], atol=1e-5)
        if target == "host":
            # One program, one model: what the others held went with them.
            assert Path(os.readlink(f"/proc/{program.process.pid}/exe")) == place / "small" / target / "run"
            assert str(place / "large") not in Path(f"/proc/{program.process.pid}/maps").read_text()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_portfolio(tmp_path_factory.mktemp("portfolios") / "tiny", "host", "none").folder


@pytest.fixture
def variants(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "tiny")) / "variants"


def other_shape(place: Path) -> None:
    compile(network(8), (torch.randn(1, 3, 9, 9),)).export(place, runtime="none")


def summed(place: Path, content: bytes) -> None:
    """Another program, with the right sum."""
    (place / "run").write_bytes(content)
    (place / "run").chmod(0o755)
    sums = subprocess.run(["sha256sum", "run"], cwd=place, capture_output=True, check=True).stdout
    (place / "SHA256SUMS").write_bytes(sums)


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, "there is no variant 'small' at "),
    (lambda p: (p / "run").unlink(), "variant 'small' lacks 'run'"),
    (
        lambda p: (p / "run").write_bytes((p / "run").read_bytes()[:-9]),
        "'run' of variant 'small' does not have its chec",
    ),
    (lambda p: spoil(p / "run"), "'run' of variant 'small' does not have its checksum"),
    (lambda p: (p / "SHA256SUMS").write_text("../x\n"), "SHA256SUMS of variant 'small' is damaged"),
    (lambda p: (p / "SHA256SUMS").write_text(""), "variant 'small' has no program"),
    (other_shape, "variant 'small' does not take and give the same"),
    (lambda p: summed(p, b"no program"), "the program of variant 'small' cannot be started"),
    (lambda p: summed(p, b"#!/bin/sh\necho error: out of memory >&2\nexit 1\n"), "'small' cannot run: out of memory"),
    (lambda p: summed(p, b"#!/bin/sh\nkill -SEGV $$\n"), "the program of variant 'small' was ended by signal 11"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_broken_variant_changes_nothing(variants: Path, fault: Callable[[Path], object], message: str) -> None:
    fault(variants / "small" / "host")
    with serving(variants / "large" / "host", "host") as program:
        answer = program.say("switch small")
        assert answer.startswith("error: ") and message in answer
        program.ask("large")
        assert program.say("switch middle") == "switched middle"
        program.ask("middle")


def test_names_lead_nowhere(variants: Path) -> None:
    with serving(variants / "large" / "host", "host") as program:
        for name in ("..", "../variants/small", "/bin", "", "a b", "x" * 101, ".small"):
            assert program.say(f"switch {name}") == f"error: '{name[:100]}' is no name of a variant"
        for line in ("stop", "switchsmall"):
            assert program.say(line) == "error: the only commands are 'reset' and 'switch NAME'"
        program.ask("large")
    with serving(variants / "large" / "host", "host") as program:
        program._write(b"switch " + b"x" * 300)
        assert program.process.wait(60) == 2
        assert program.process.stderr is not None
        assert b"is neither an array nor a command of one line" in program.process.stderr.read()
        program.process.returncode = 0  # As expected, for the end of the block.


def test_sums_are_those_of_sha256(original: Path, tmp_path: Path) -> None:
    """Files of every length around the blocks of the algorithm, against the sums that Python's library wrote."""
    place = tmp_path / "variants"
    for name in ("large", "small"):
        shutil.copytree(original / "variants" / name / "host", place / name / "host")
    sums = place / "small" / "host" / "SHA256SUMS"
    for length in (0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 16384, 16385, 100_000):
        (sums.parent / f"f{length}").write_bytes(bytes(index % 251 for index in range(length)))
    names = sorted(path.name for path in sums.parent.iterdir() if path != sums)
    sums.write_text(subprocess.run(["sha256sum", *names], cwd=sums.parent, capture_output=True, text=True).stdout)
    with serving(place / "large" / "host", "host") as program:
        assert program.say("switch small") == "switched small"


def test_a_program_that_lies_in_no_portfolio(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original / "variants/large/host", tmp_path / "bundle")
    with serving(tmp_path / "bundle", "host") as program:
        assert program.say("switch small").startswith("error: there is no variant 'small' at ")
        program.ask("large")

"""``run``, ``bench`` and ``board-server`` with boards over the network, from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.driver.cli.command_line import main
from tests.support.tools import needs

X = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))


def called(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> Any:
    found = main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert found == code, err
    if code:
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1
        return err
    return json.loads(out)


@pytest.fixture
def theirs() -> Iterator[str]:
    from tvm import rpc

    served = rpc.Server("127.0.0.1", 9600, 9699, key="desk", silent=True)
    yield f"rpc://127.0.0.1:{served.port}/desk"
    served.terminate()


def test_on_a_board(theirs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Linear(3, 4).eval()
    bundle = str(compile(net, (X,)).export(tmp_path / "bundle"))
    np.save(tmp_path / "x.npy", X.numpy())
    out = str(tmp_path / "out.npz")
    ran = called(capsys, 0, "run", bundle, str(tmp_path / "x.npy"), "--on", theirs, "-o", out)
    assert (ran["lost"], ran["board"]) == ([], theirs.partition("//")[2].partition("/")[0])
    np.testing.assert_allclose(np.load(out)["output_0"], net(X).detach().numpy(), atol=1e-6)
    timed = called(capsys, 0, "bench", bundle, "--on", theirs, "--repeat", "3", "--timeout", "30")
    assert timed["timing"]["repeats"] == 3 and timed["emulated"] is None


def test_places_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(compile(nn.Linear(3, 4).eval(), (X,)).export(tmp_path / "bundle"))
    for on, message in (
        ("pi", "a bundle runs here, on qemu, on rpc://HOST:PORT or on tracker://HOST:PORT/KEY, not on 'pi'"),
        ("rpc://pi", "'rpc://pi' is no place"),
        ("tracker://pi:9190", "does not say which boards"),
    ):
        for verb in ("run", "bench"):
            assert message in called(capsys, 2, verb, bundle, "--on", on)


@needs("aarch64-linux-gnu-g++", "wheels")
def test_making_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = called(capsys, 0, "board-server", "--target", "rpi4", "-o", str(tmp_path / "server"))
    assert made == {"target": "rpi4", "runtime": "wheel", "files": {"server": str(tmp_path / "server")}}
    text = (tmp_path / "server" / "README.md").read_text()
    # As old as that of the wheel's libraries, and no newer for what we compiled.
    assert "glibc 2.27 or later" in text and "may run programs on the board" in text
    assert "no operating system" in called(
        capsys, 2, "board-server", "--target", "cortex-m7", "-o", str(tmp_path / "m7")
    )
    assert not (tmp_path / "m7").exists()


def test_certificates_reach_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(144, 5)).eval()\n"
    )
    called(capsys, 0, "prune", "net.py:net", "--input", "1x3x8x8", "-o", "small.pt2")
    called(capsys, 0, "compile", "small.pt2", "-o", "bundle")
    certificate = open_bundle("bundle").certificate
    assert certificate is not None
    assert certificate["max_relative"] <= certificate["tolerance"] and {*map(tuple, certificate["inputs"])} == {
        ("1x3x8x8",),
        ("2x3x8x8",),
    }
    called(capsys, 0, "capture", "small.pt2", "-o", "copy.pt2")
    called(capsys, 0, "compile", "copy.pt2", "-o", "other")
    assert open_bundle("other").certificate == certificate  # A copy is the same program.
    called(
        capsys,
        0,
        "capture",
        "small.pt2",
        "--image-bytes",
        "NHWC",
        "--mean",
        "0,0,0",
        "--std",
        "1,1,1",
        "-o",
        "bytes.pt2",
    )
    called(capsys, 0, "compile", "bytes.pt2", "-o", "another")
    assert open_bundle("another").certificate is None

"""The command line says that a model keeps state, and what has no form for it refuses it by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.driver.cli.command_line import main
from reconvene.driver.portfolio.manifest import Portfolio, Variant, file_sums
from reconvene.driver.serving.resident import load_variant
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.program_file import export_onnx, save_program
from tests.support.stateful import STATEFUL, frames
from tests.support.tools import needs

X = tuple(frames(1))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_program(capture(STATEFUL["streaming"](), X), X, tmp_path / "stream.pt2")
    np.save(tmp_path / "x.npy", X[0].numpy())
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return " ".join(capsys.readouterr().out.split())


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(said(capsys, *words, "--json"))


LINE = "keeps from call to call: cache (float32 2x4)"
ROW = {"name": "cache", "shape": [2, 4], "dtype": "float32"}


def test_compile_run_and_bench_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    made = said(capsys, "compile", "stream.pt2", "-o", "bundle")
    assert LINE in made and "; state 32 bytes" in made
    assert answer(capsys, "compile", "stream.pt2", "-o", "bundle")["state"] == [ROW]
    for model in ("bundle", "stream.pt2"):
        assert LINE in said(capsys, "run", model, "x.npy")
        assert answer(capsys, "run", model, "x.npy")["state"] == [ROW]
    assert LINE in said(capsys, "bench", "bundle", "--repeat", "2")
    timed = answer(capsys, "bench", "stream.pt2", "--repeat", "2", "--engine", "reconvene")
    assert timed["state"] == {"model": ["cache"]}


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "llvm-mca")
def test_estimate_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "compile", "stream.pt2", "--target", "rpi4", "-o", "bundle")
    assert LINE in said(capsys, "estimate", "bundle")


def test_a_server_refuses_it_when_it_loads(tmp_path: Path) -> None:
    built = compile(STATEFUL["streaming"](), X)
    place = tmp_path / "p" / "variants" / "stream" / "host"
    place.parent.mkdir(parents=True)
    open_bundle(built.export(place))
    variant = Variant("stream", None, 0, 0, 0, 0, {}, 0, file_sums(tmp_path / "p", "stream"), None, {})
    portfolio = Portfolio(tmp_path / "p", "streams", built.inputs, built.outputs, (variant,))
    with pytest.raises(InputError, match="variant 'stream' keeps 'cache' from one call to the next"):
        load_variant(portfolio, variant)


def test_onnx_refuses_it_before_anything_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="keeps 'cache' from one call to the next, and ONNX has no state"):
        export_onnx(capture(STATEFUL["streaming"](), X), X, folder / "model.onnx")
    for verb in ("capture", "compact"):
        assert main([verb, "stream.pt2", "-o", "out.pt2", "--onnx", "out.onnx"]) == 2
        assert "keeps 'cache'" in capsys.readouterr().err
    assert not (folder / "out.pt2").exists()

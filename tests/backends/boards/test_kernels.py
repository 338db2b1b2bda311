"""Kernels chosen by a board, and by modelled cycles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reconvene.backends.boards.errors import BoardLost
from reconvene.backends.boards.kernels import BoardTimes
from reconvene.backends.boards.server import write_server
from reconvene.backends.built import Built
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.estimate.choice import KernelCycles
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from tests.support.boards import serving
from tests.support.tools import needs

X = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()


def kernels(built: Built) -> list[str]:
    return sorted(v.name_hint for v in built.artifact.scheduled.functions)


def agree(built: Built, folder: Path) -> None:
    bundle = open_bundle(built.export(folder))
    (got,) = run_bundle(bundle, (X,), bundle_emulator(bundle))
    expected = net()(X).detach()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def spied(judge: type, calls: list[list[list[float]]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes what a judge says."""
    call = judge.__call__

    def noting(self: Any, layers: Any) -> Any:
        found = call(self, layers)
        calls.append(found)
        return found

    monkeypatch.setattr(judge, "__call__", noting)


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "wheels")
def test_chosen_on_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_server(find_target("rpi4"), tmp_path / "server")
    asked: list[list[list[float]]] = []
    spied(BoardTimes, asked, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
        with serving(folder, "rpi4", "--port", "0") as board:
            built = compile(net(), (X,), "rpi4", winograd="off", choose="time", on=str(board.place))
            place = str(board.place)
        ((first, second),) = asked
        assert len(first) > 1 and len(second) > 1 and min(first + second) > 0
        # The board is gone, and not needed any more.
        again = compile(net(), (X,), "rpi4", winograd="off", choose="time", on=place)
        assert len(asked) == 1 and kernels(again) == kernels(built)
        with pytest.raises(BoardLost, match=r"cannot reach board '127.0.0.1:\d+'.*tried 4 times"):
            compile(net(), (X,), "rpi4", winograd="off", choose="time", on=f"{place}/other")
    agree(built, tmp_path / "bundle")


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "llvm-mca")
def test_chosen_by_modelled_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[list[float]]] = []
    spied(KernelCycles, asked, monkeypatch)
    built = None
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setenv("RECONVENE_CACHE", str(tmp_path / f"cache{len(asked)}"))
            built = compile(net(), (X,), "rpi4", winograd="off", choose="cycles")
    # The same figures every time.
    assert len(asked) == 2 and asked[0] == asked[1]
    assert all(len(set(layer)) > 1 and min(layer) > 100 for layer in asked[0])
    assert built is not None
    agree(built, tmp_path / "bundle")


def transposed() -> nn.Module:
    torch.manual_seed(0)
    return nn.ConvTranspose2d(8, 6, 3, stride=4).eval()


def agree_transposed(built: Built, folder: Path) -> None:
    bundle = open_bundle(built.export(folder))
    (got,) = run_bundle(bundle, (X,), bundle_emulator(bundle))
    expected = transposed()(X).detach()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "wheels")
def test_tuned_on_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MetaSchedule's schedules are timed by the board; one that is lost on the way ends the search by its name."""
    folder = write_server(find_target("rpi4"), tmp_path / "server")
    with monkeypatch.context() as patch:
        patch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
        with serving(folder, "rpi4", "--port", "0") as board:
            place = str(board.place)
            built = compile(transposed(), (X,), "rpi4", choose="time", on=place, tune=2)
        (result,) = built.tuned
        assert result.unit == "s" and result.own > 0 and result.found is not None and result.found > 0
        # What was found is kept, and needs no board.
        assert compile(transposed(), (X,), "rpi4", choose="time", on=place, tune=2).tuned == built.tuned
        with pytest.raises(BoardLost, match=r"cannot reach board '127.0.0.1:\d+'"):
            compile(transposed(), (X,), "rpi4", choose="time", on=place, tune=3)
    agree_transposed(built, tmp_path / "bundle")


@needs("qemu-aarch64", "aarch64-linux-gnu-g++", "llvm-mca")
def test_tuned_by_modelled_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for turn in range(2):
        with monkeypatch.context() as patch:
            patch.setenv("RECONVENE_CACHE", str(tmp_path / f"cache{turn}"))
            built = compile(transposed(), (X,), "rpi4", choose="cycles", tune=2)
        found.append(built.tuned)
    ((result,), again) = found
    assert again == (result,) and result.unit == "cycles"
    assert result.own > 1000 and result.found is not None and result.found > 1000
    agree_transposed(built, tmp_path / "bundle")


def test_what_cannot_choose() -> None:
    with pytest.raises(InputError, match=r"a board .'rpc://pi:1'. chooses by time; say choose='time'"):
        compile(net(), (X,), "rpi4", on="rpc://pi:1")
    with pytest.raises(InputError, match="'pi' is no place"):
        compile(net(), (X,), "rpi4", choose="time", on="pi")
    with pytest.raises(InputError, match="choose time, cycles, model or default"):
        compile(net(), (X,), "rpi4", choose="guess")  # type: ignore[arg-type]

"""Compiled code in the cache: found again, for other weights too, and never when it would be the wrong one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import tvm
from torch import nn

from reconvene.backends.built import Built
from reconvene.backends.code import library
from reconvene.backends.compile import compile
from reconvene.frontend.base.errors import InputError

X = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0, channels: int = 10) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.GELU()).eval()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "libraries"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every call of TVM's compiler."""
    calls: list[object] = []
    original = tvm.compile

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(tvm, "compile", counted)
    return calls


def agrees(built: Built, module: nn.Module) -> None:
    torch.testing.assert_close(built.run(X), module(X).detach(), rtol=0, atol=1e-5)


def test_a_second_compile_finds_the_first(compilations: list[object]) -> None:
    first, second = (compile(network(), (X,)) for _ in range(2))
    assert len(compilations) == 1
    assert torch.equal(first.run(X), second.run(X))
    assert first.artifact.objects == second.artifact.objects
    assert first.memory == second.memory


def test_other_weights_find_it_too(compilations: list[object]) -> None:
    first, second = (compile(network(seed), (X,)) for seed in (0, 1))
    assert len(compilations) == 1
    # Both are alive: they share code, not weights.
    agrees(first, network(0))
    agrees(second, network(1))


@pytest.mark.parametrize(
    "other",
    [
        lambda: compile(network(channels=11), (X,)),
        lambda: compile(network(), (torch.cat([X, X]),)),
        lambda: compile(network(), (X,), "rpi4"),
        lambda: compile(network(), (X,), pipeline="tvm-default"),
    ],
    ids=["width", "batch", "target", "pipeline"],
)
def test_another_program_is_compiled(compilations: list[object], other: Callable[[], Built]) -> None:
    compile(network(), (X,))
    other()
    assert len(compilations) == 2


def test_edited_sources_make_it_stale(compilations: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    compile(network(), (X,))
    monkeypatch.setattr(library, "code_version", lambda: "edited")
    agrees(compile(network(), (X,)), network())
    assert len(compilations) == 2


def test_without_it(compilations: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        agrees(compile(network(), (X,), cache=False), network())
    monkeypatch.setenv(library.LIMIT_VARIABLE, "0")
    compile(network(), (X,))
    assert len(compilations) == 3 and not folder.exists()


def test_its_limit_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.LIMIT_VARIABLE, "1G")
    with pytest.raises(InputError, match="RECONVENE_CACHE_BYTES is '1G'; give a number of bytes"):
        compile(network(), (X,))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def put_junk(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.so", b"\x7fELF and then nothing")


def leave_out(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lib0.o", b"")


@pytest.mark.parametrize("damage", [flip, put_junk, leave_out, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_entry_is_compiled_again(
    damage: Callable[[Path], object], compilations: list[object], folder: Path
) -> None:
    compile(network(), (X,))
    (entry,) = folder.iterdir()
    damage(entry)
    for _ in range(2):
        agrees(compile(network(), (X,)), network())
    assert len(compilations) == 2


def test_no_linker_no_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> None:
        raise InputError("no compiler was found")

    monkeypatch.setattr(library, "find_linker", nowhere)
    agrees(compile(network(), (X,)), network())
    assert not folder.exists()


def test_another_machines_code_is_exported_from_it(compilations: list[object], tmp_path: Path) -> None:
    folders = [compile(network(), (X,), "rpi4", check=False).export(tmp_path / str(i), link=False) for i in range(2)]
    assert len(compilations) == 1
    names = [{path.name for path in folder.iterdir()} for folder in folders]
    assert names[0] == names[1] and "model.tar" in names[0]


def test_a_model_without_kernels(compilations: list[object]) -> None:
    for _ in range(2):
        assert torch.equal(compile(nn.Identity(), (X,)).run(X), X)
    assert len(compilations) == 1

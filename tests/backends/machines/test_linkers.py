"""Which compiler is found for a target, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.machines.linkers import find_linker, invoke
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the path, empty; and no package ziglang."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, find=importlib.util.find_spec: None if name == "ziglang" else find(name),
    )
    return tmp_path


def program(folder: Path, name: str, text: str = "exit 0") -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_targets_own_command_comes_first(tools: Path) -> None:
    for name in ("aarch64-linux-gnu-g++", "clang++", "ld.lld"):
        program(tools, name)
    linker = find_linker(find_target("rpi4"))
    assert (linker.command, linker.kind) == (("aarch64-linux-gnu-g++",), "gcc")


def test_clang_links_libraries_only(tools: Path) -> None:
    """It brings no C library for the target."""
    program(tools, "clang++")
    program(tools, "ld.lld")
    linker = find_linker(find_target("rpi2"))
    assert linker.kind == "clang"
    assert "--target=armv7l-linux-gnueabihf" in linker.command
    with pytest.raises(InputError, match="no compiler for 'rpi2'"):
        find_linker(find_target("rpi2"), "static")


def test_zig_is_next(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "aarch64-linux-gnu.2.28" in find_linker(find_target("rpi4")).command
    assert "arm-linux-musleabihf" in find_linker(find_target("rpi2"), "static").command
    with pytest.raises(InputError, match="gcc-arm-none-eabi"):
        find_linker(find_target("cortex-m7"))


@needs("ziglang", "qemu-aarch64", "qemu-arm", "aarch64-linux-gnu-g++", "wheels")
@pytest.mark.parametrize(("target", "runtime", "glibc"), [("rpi4", "wheel", "2.27"), ("rpi2", "none", None)])
def test_zig_makes_programs(
    target: str, runtime: Any, glibc: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no other compiler on the path. (The Debian one stands by for its C++ library, which QEMU shows to the program.)"""
    for name in ("qemu-aarch64", "qemu-arm"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU()).eval(), torch.randn(1, 3, 8, 8)
    bundle = open_bundle(compile(net, (x,), target).export(tmp_path / "bundle", runtime=runtime))
    assert bundle.glibc == glibc
    (got,) = run_bundle(bundle, (x,), bundle_emulator(bundle))
    torch.testing.assert_close(got, net(x).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "package"),
    [
        ("rpi4", r"g\+\+-aarch64-linux-gnu, or .*pip install 'ziglang"),
        ("rpi2", r"g\+\+-arm-linux-gnueabihf"),
        ("cortex-m4", "libnewlib-arm-none-eabi$"),
    ],
)
def test_none_at_all(tools: Path, target: str, package: str) -> None:
    with pytest.raises(InputError, match=f"no compiler for '{target}' .* install one: apt-get install .*{package}"):
        find_linker(find_target(target))


def test_a_linker_that_fails_is_quoted(tools: Path) -> None:
    program(
        tools,
        "aarch64-linux-gnu-g++",
        "echo 'note: see below' >&2; echo 'ld: error: No space left on device' >&2; exit 1",
    )
    linker = find_linker(find_target("rpi4"))
    with pytest.raises(InputError, match=r"'aarch64-linux-gnu-g\+\+' cannot link the model: ld: error: No space left"):
        invoke(linker, [], "link the model")

"""The runtime for boards is compiled once for a compiler and its versions, wherever the environment is."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconvene.backends.bundles import runtime_library
from reconvene.backends.bundles.runtime_library import static_runtime
from reconvene.backends.machines.linkers import Linker


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Linker:
    """Writes its last argument, and a line of what it was asked for."""
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "g++"
    asked = 'for last; do :; done; case "$last" in --version) echo 1.0 ;; *) echo "$@" > "$last" ;; esac'
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{asked}\n')
    script.chmod(0o755)
    return Linker((str(script),), "gcc", "a script")


def calls(folder: Path) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if "-c " in line]


def test_it_is_compiled_once(compiler: Linker, tmp_path: Path) -> None:
    first = static_runtime(compiler)
    assert all(path.is_file() for path in first) and len(calls(tmp_path)) == 2
    assert static_runtime(compiler) == first and len(calls(tmp_path)) == 2


def test_another_environment_with_these_versions_takes_it(
    compiler: Linker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = static_runtime(compiler)
    package = runtime_library._package
    for name in ("tvm", "tvm_ffi"):
        (tmp_path / "elsewhere" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "elsewhere" / name).symlink_to(package(name))
    monkeypatch.setattr(runtime_library, "_package", lambda name: tmp_path / "elsewhere" / name)
    assert static_runtime(compiler) == first and len(calls(tmp_path)) == 2


def test_another_version_is_compiled_anew(compiler: Linker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = static_runtime(compiler)
    monkeypatch.setattr(runtime_library.metadata, "version", lambda name: "0.0")
    assert static_runtime(compiler) != first and len(calls(tmp_path)) == 4

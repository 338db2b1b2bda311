"""How much memory is left, of the machine and of control groups written by hand."""

from __future__ import annotations

from pathlib import Path

import psutil

from reconvene.driver.serving.memory import available_memory

MIB = 1 << 20


def group(folder: Path, names: tuple[str, str, str], limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


def test_the_tightest_group_of_version_2(tmp_path: Path) -> None:
    names = ("memory.max", "memory.current", "inactive_file")
    own = tmp_path / "own"
    own.write_text("0::/slice/unit\n")
    group(tmp_path / "slice", names, str(10 * MIB), 9 * MIB, 2 * MIB)
    group(tmp_path / "slice/unit", names, "max", MIB, 0)
    assert available_memory(tmp_path, own) == 3 * MIB
    group(tmp_path / "slice/unit", names, str(MIB), MIB + 5, 0)
    assert available_memory(tmp_path, own) == 0


def test_version_1(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/x\n4:memory:/docker/abc\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    group(tmp_path / "memory/docker/abc", names, str(8 * MIB), 3 * MIB, MIB)
    assert available_memory(tmp_path, own) == 6 * MIB


def test_without_groups_it_is_the_machines(tmp_path: Path) -> None:
    found = available_memory(tmp_path, tmp_path / "none")
    assert 0 < found <= psutil.virtual_memory().total

"""What only some systems have: with it and without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reconvene.frontend.base import systems
from reconvene.frontend.base.systems import at_forks, is_ours, may_run_on, most_files, try_lock, turn_at

ELSEWHERE = """
import os, sys
import torch, tvm

for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("register_at_fork", "geteuid", "getuid", "sched_getaffinity", "memfd_create", "O_NONBLOCK", "O_NOFOLLOW"):
    delattr(os, name)
from reconvene.driver.cli.command_line import main

sys.exit(
    main(["prune", "resnet8-cifar", "--sparsity", "0.5", "-o", "small.pt2"])
    or main(["compile", "small.pt2", "-o", "bundle"])
    or main(["run", "bundle"])
)
"""


def test_pruning_compiling_and_running_need_nothing_that_only_unix_has(tmp_path: Path) -> None:
    environment = {**os.environ, "RECONVENE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "small.pt2").is_file() and (tmp_path / "bundle" / "manifest.json").is_file()


def test_a_lock_is_held_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with path.open("w") as first, path.open("w") as second:
        assert try_lock(first.fileno()) and not try_lock(second.fileno())
        first.close()
        assert try_lock(second.fileno())
        monkeypatch.setattr(systems, "fcntl", None)
        assert not try_lock(second.fileno())


def test_turns_are_one_after_the_other(tmp_path: Path) -> None:
    inside: list[str] = []

    def other() -> None:
        with turn_at(tmp_path / "lock"):
            inside.append("other")

    with turn_at(tmp_path / "lock"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        inside.append("first")
    thread.join()
    assert inside == ["first", "other"]


def test_turns_without_locks_wait_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "fcntl", None)
    with turn_at(tmp_path / "lock"), turn_at(tmp_path / "lock"):
        pass


def test_files_of_others_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ours(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert not is_ours(tmp_path)
    monkeypatch.delattr(os, "geteuid")
    assert is_ours(tmp_path)
    with pytest.raises(FileNotFoundError):
        is_ours(tmp_path / "none")


def test_what_is_not_there_limits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(may_run_on()) <= set(range(os.cpu_count() or 1))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert may_run_on() == list(range(os.cpu_count() or 1))
    monkeypatch.setitem(sys.modules, "resource", None)
    assert most_files() is None
    monkeypatch.delattr(os, "register_at_fork")
    at_forks(before=lambda: None)

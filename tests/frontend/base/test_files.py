"""A write leaves the old file, or the whole new one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reconvene.backends.machines.targets import find_target
from reconvene.driver.arrays import read_arrays
from reconvene.driver.masks import read_masks
from reconvene.frontend.archive import read_records
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import open_regular, read_regular, replacing, replacing_folder, write_text
from reconvene.frontend.data.cifar_pickle import read_cifar_pickle
from reconvene.frontend.data.image_files import read_cifar_binary, read_cifar_jpeg, read_idx, read_photograph
from reconvene.passes.plan import Plan


def test_text_is_written_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        assert temporary.suffix == ".pt2"
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write") as caught:
        write_text(tmp_path / "none" / "report.json", "text")
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "report.json", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from reconvene.frontend.base.files import replacing, replacing_folder
with {how}(Path(sys.argv[1])) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["replacing", "replacing_folder"])
def test_what_a_killed_run_leaves_goes_with_the_next_one(tmp_path: Path, how: str) -> None:
    target, other = tmp_path / "made[1].d", tmp_path / "made2.d"
    for path in (target, other):
        done = subprocess.run([sys.executable, "-c", KILLED.format(how=how), str(path)])
        assert done.returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 2
    for entry in left:
        os.utime(entry, (0, 0))
    with replacing_folder(target) as temporary:
        (temporary / "whole").write_text("whole")
    assert sorted(entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".made2")) == ["made[1].d"]
    assert len(list(tmp_path.iterdir())) == 2, "what is not of this target stays"


def test_what_another_run_is_writing_stays(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    with replacing(target) as first:
        first.write_text("first")
        os.utime(first, (0, 0))
        write_text(target, "second")
        assert first.exists()
    assert target.read_text() == "first"


def test_a_folder_is_there_at_every_moment(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    with replacing_folder(folder) as temporary:
        (temporary / "manifest").write_text("0")
    missing, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                (folder / "manifest").read_text()
            except FileNotFoundError:
                missing.append(time.monotonic())

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(50):
        with replacing_folder(folder) as temporary:
            (temporary / "manifest").write_text(str(number))
    stop.set()
    reader.join()
    assert not missing and (folder / "manifest").read_text() == "49"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_failed_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    with replacing_folder(folder) as temporary:
        (temporary / "manifest").write_text("old")
    with pytest.raises(RuntimeError), replacing_folder(folder) as temporary:
        (temporary / "manifest").write_text("new")
        raise RuntimeError
    assert (folder / "manifest").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


IRREGULAR = {"pipe": pipe, "socket": listening, "device": device, "folder": Path.mkdir}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_only_files_are_opened(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # A socket's path has a limit.
    IRREGULAR[kind](Path("odd"))
    with pytest.raises(OSError, match=r"no regular file|Is a directory"):
        open_regular("odd")
    with pytest.raises(OSError, match=r"no regular file|Is a directory"):
        read_regular("odd")


READERS = {
    "plan": Plan.load,
    "CIFAR records": read_cifar_binary,
    "CIFAR archive": lambda path: read_cifar_jpeg(path, "train"),
    "CIFAR batch": read_cifar_pickle,
    "IDX": read_idx,
    "photograph": lambda path: read_photograph(path, 8),
    "arrays": read_arrays,
    "masks": read_masks,
    "target": lambda path: find_target(str(path)),
    "program": read_records,
}


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_waits_for_what_is_no_file(
    reader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("odd.toml" if reader == "target" else "odd.npy")
    IRREGULAR[kind](path)
    with pytest.raises(InputError, match=str(path)) as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)


def test_links_lead_to_files_of_the_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (folder / "inside").write_text("text")
    for name, goal in (("in", "inside"), ("out", "../outside"), ("gone", "nothing"), ("below/up", "../../outside")):
        (folder / name).symlink_to(goal)
    (folder / "ring").symlink_to("ring")
    assert read_regular(folder / "in", within=folder) == b"text"
    assert read_regular(folder / "out") == b"secret"
    for name, words in (
        ("out", "leads out of"),
        ("below/up", "leads out of"),
        ("gone", "No such file"),
        ("ring", "symbolic links"),
    ):
        with pytest.raises(OSError, match=words):
            read_regular(folder / name, within=folder)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"], ids=["a zero byte", "half of a character"])
@pytest.mark.parametrize("within", [False, True])
def test_names_that_no_file_can_have(name: str, within: bool, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no file can have this name"):
        open_regular(tmp_path / name, tmp_path if within else None)

"""A write leaves the old file, or the whole new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconvene.frontend.errors import InputError
from reconvene.frontend.files import replacing, write_text


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

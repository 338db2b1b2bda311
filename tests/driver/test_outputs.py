"""Places that cannot be written are found before the work, and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconvene.driver.outputs import check_file, check_folder
from reconvene.frontend.base.errors import InputError


def test_good_places_pass_and_nothing_is_left_behind(tmp_path: Path) -> None:
    check_file(None)
    check_file(tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        check_file(tmp_path / "none" / "model.pt2")
    with pytest.raises(InputError, match="is a folder"):
        check_file(tmp_path)
    with pytest.raises(InputError, match="cannot write"):
        check_file(Path("/proc/model.pt2"))


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="it is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(InputError, match="cannot make the folder"):
        check_folder(tmp_path / "file" / "inside")
    with pytest.raises(InputError, match="cannot"):
        check_folder(Path("/proc/inside"))

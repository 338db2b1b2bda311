"""Golden texts are compared with, belong to a test, and are written when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support.golden import FOLDER, check_golden, golden_path

TESTS = Path(__file__).parent


def test_every_golden_file_belongs_to_a_test() -> None:
    files = [path for path in TESTS.rglob(f"{FOLDER}/*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        module, test = path.name.split(".")[:2]
        source = path.parents[1] / f"{module}.py"
        assert source.exists() and f"def {test.partition('-')[0]}(" in source.read_text(encoding="utf-8"), path


def test_another_text_fails_and_is_written_when_asked_for(tmp_path: Path) -> None:
    path = golden_path(tmp_path / "test_file.py", "test_name[one/two]")
    assert path == tmp_path / FOLDER / "test_file.test_name-one-two.txt"
    with pytest.raises(AssertionError, match="pytest --update-golden"):
        check_golden(path, {"before": "a", "after": "b"}, False)
    check_golden(path, {"before": "a", "after": "b"}, True)
    assert path.read_text(encoding="utf-8") == "# before\na\n\n# after\nb\n"
    check_golden(path, {"before": "a", "after": "b"}, False)
    with pytest.raises(AssertionError, match="not as in"):
        check_golden(path, {"before": "a", "after": "c"}, False)

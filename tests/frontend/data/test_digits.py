"""scikit-learn's digits are found without importing it, and every fault of their file is one line that names it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data import digits as reading
from reconvene.frontend.data.datasets import DATASETS, digits, find_dataset


def write_digits(folder: Path, count: int = 1_797) -> np.ndarray:
    """As many random digits of 8x8 pixels; returns the lines."""
    random = np.random.default_rng(3)
    lines = np.column_stack([random.integers(0, 17, (count, 64)), np.arange(count) % 10])
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(",".join(map(str, line)) + "\n" for line in lines.tolist())
    (folder / "digits.csv.gz").write_bytes(zipped(text.encode()))
    return lines


def zipped(text: bytes) -> bytes:
    """The same bytes at any time of day."""
    return gzip.compress(text, mtime=0)


def test_both_splits_together_hold_every_image_once(tmp_path: Path) -> None:
    lines = write_digits(tmp_path)
    training, test = digits(tmp_path, "train"), digits(tmp_path)
    assert (len(training), len(test)) == (1_297, 500)
    assert training.pixels.shape[1:] == (3, 16, 16) and find_dataset("digits").side == 16
    pixels = np.concatenate([training.pixels, test.pixels])
    assert (pixels == pixels[:, :1]).all()
    grey = pixels[:, 0]
    assert (grey.reshape(-1, 8, 2, 8, 2) == grey[:, None, ::2, None, ::2].reshape(-1, 8, 1, 8, 1)).all()
    found = np.column_stack([grey[:, ::2, ::2].reshape(-1, 64), np.concatenate([training.labels, test.labels])])
    wanted = np.column_stack([np.rint(lines[:, :64] * 255 / 16), lines[:, 64]])
    np.testing.assert_array_equal(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])


def test_the_same_images_are_drawn_every_time(tmp_path: Path) -> None:
    write_digits(tmp_path)
    np.testing.assert_array_equal(digits(tmp_path).pixels, DATASETS["digits"].load(tmp_path, "test").pixels)
    with pytest.raises(InputError, match="no split 'val'"):
        digits(tmp_path, "val")  # type: ignore[arg-type]


def test_they_are_looked_for_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: asked.append(name))
    with pytest.raises(InputError, match="pip install scikit-learn"):
        digits()
    write_digits(tmp_path / "datasets" / "data")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: spec)
    assert len(digits()) == 500 and asked == ["sklearn"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "cannot read"),
        (zipped(b"0,1\n"), "2 numbers in a line"),
        (zipped(b"a" * 9), "cannot read"),
        (zipped(b"\xff"), "cannot read"),
        (zipped(b",".join([b"17"] * 64) + b",0\n"), "no digits of 8x8"),
        (zipped(b",".join([b"1"] * 64) + b",10\n"), "no digits of 8x8"),
        (zipped(b"0" * (5 << 20)), "larger than the digits"),
        (zipped(b"0,1\n" * 99)[:-20], "cannot read"),
        (zipped(b"0,1\n")[:10] + zlib.compress(b"0"), "cannot read"),
    ],
)
def test_damaged_digits_are_one_line_naming_the_file(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "digits.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        digits(tmp_path)
    assert "digits.csv.gz" in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no digits"):
        digits(tmp_path)

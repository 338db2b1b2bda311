"""Data sets of Hugging Face: images by class out of what the package itself saved, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data.hugging_face import open_hub_images
from reconvene.frontend.data.image_files import fitted
from tests.support.pictures import draw

NAMES = ["unripe", "ripe"]


def rows(count: int, first: int = 0, **changes: Any) -> Any:
    """Of a data set with a column of images and one of labels."""
    datasets = pytest.importorskip("datasets", reason="pip install '.[datasets]'")
    columns: dict[str, Any] = {
        "picture": [draw(NAMES[index % 2], index) for index in range(first, first + count)],
        "kind": [index % 2 for index in range(first, first + count)],
        "note": ["x"] * count,
    }
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES), "note": datasets.Value("string")}
    columns, features = (
        {**values, **changes.get(what, {})} for values, what in ((columns, "columns"), (features, "features"))
    )
    chosen = {name: value for name, value in columns.items() if value is not None}
    return datasets.Dataset.from_dict(chosen, datasets.Features({name: features[name] for name in chosen}))


def saved(folder: Path, **splits: Any) -> str:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return str(folder)


def test_splits_of_a_saved_data_set(tmp_path: Path) -> None:
    found = open_hub_images(saved(tmp_path / "set", train=rows(6), validation=rows(4, 6)))
    assert found.classes == tuple(NAMES)
    training, test = found.images("train", 16, 16), found.images("test", 16, 16)
    assert training.labels.tolist() == [0, 1, 0, 1, 0, 1] and len(test) == 4
    jpeg = np.asarray(training.pixels[1], int) - fitted(draw("ripe", 1), 16, 16)
    assert abs(jpeg).max() == 0  # The package keeps images that it was given as PNG.
    assert test.mean == training.mean


def test_a_share_is_held_back(tmp_path: Path) -> None:
    found = open_hub_images(saved(tmp_path / "set", train=rows(8)), 0.25)
    again = open_hub_images(str(tmp_path / "set"), 0.25)
    assert len(found.images("test", 8, 8)) == 2 and len(found.images("train", 8, 8)) == 6
    assert found.images("test", 8, 8).digest == again.images("test", 8, 8).digest and found.test_share == 0.25


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {}, "no split 'test' or 'validation'; say --test-share"),
        ({}, {"test_share": 1.5}, "a share of 1.5"),
        ({"columns": {"picture": None}}, {"test_share": 0.5}, "no column of images"),
        ({"columns": {"kind": None}}, {"test_share": 0.5}, "no column of labels that have names"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    changes: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    name = saved(tmp_path / "set", train=rows(4, **changes))
    with pytest.raises(InputError, match=message) as caught:
        open_hub_images(name, **options)
    assert "\n" not in str(caught.value)


def test_rows_without_a_label_are_refused(tmp_path: Path) -> None:
    name = saved(tmp_path / "set", train=rows(4, columns={"kind": [0, 1, -1, 0]}), test=rows(2))
    with pytest.raises(InputError, match="images without a label"):
        open_hub_images(name).images("train", 8, 8)


def test_without_the_package_or_the_data_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot load") as caught:
        open_hub_images(str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'datasets"):
        open_hub_images("mnist")

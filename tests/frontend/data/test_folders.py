"""Folders of images by class: what is found, how it is scaled and held back, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data import folders
from reconvene.frontend.data.facts import Colours
from reconvene.frontend.data.folders import colours_of, open_folder
from reconvene.frontend.data.image_files import Bytes, fitted, read_fitted, read_image
from tests.support.pictures import draw, write_pictures


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_classes_are_folders_and_tests_lie_apart(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", 3, ("unripe", "ripe"))
    write_pictures(tmp_path / "val", 2, ("ripe", "unripe"), first=3)
    (tmp_path / "train" / "ripe" / "deeper").mkdir()
    draw("ripe", 9).convert("L").save(tmp_path / "train" / "ripe" / "deeper" / "A.PNG")
    (tmp_path / "train" / "ripe" / "notes.txt").write_text("nothing")
    (tmp_path / "train" / "ripe" / ".hidden.jpg").write_text("nothing")
    (tmp_path / "train" / ".cache").mkdir()
    found = open_folder(tmp_path)
    assert found.classes == ("ripe", "unripe") and found.test_share == 0
    assert [label for _, label in found.training] == [0] * 4 + [1] * 3
    assert [path.parent.parent.name for path, _ in found.test] == ["val"] * 4
    training = found.images("train", 20, 24)
    assert training.pixels.shape == (7, 3, 20, 24) and training.labels.tolist() == [0] * 4 + [1] * 3
    grey = training.pixels[[path.name for path, _ in found.training].index("A.PNG")]
    assert (grey[0] == grey[1]).all()
    test = found.images("test", 20, 24)
    assert (test.mean, test.std) == (training.mean, training.std) and test.digest != training.digest
    given_ones = found.images("test", 20, 24, Colours((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    assert given_ones.mean == (0.1, 0.2, 0.3) and given_ones.std == (0.4, 0.5, 0.6)


def test_a_share_of_every_class_is_held_back_the_same_ones_every_time(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 10, ("ripe",))
    write_pictures(tmp_path / "a", 3, ("unripe",))
    found = open_folder(tmp_path / "a", 0.3)
    assert [label for _, label in found.test] == [0] * 3 + [1]
    assert not {path for path, _ in found.test} & {path for path, _ in found.training}
    assert len(found.training) == 9 and found.test_share == 0.3
    os.rename(tmp_path / "a", tmp_path / "b")
    moved = open_folder(tmp_path / "b", 0.3)
    assert [path.name for path, _ in moved.test] == [path.name for path, _ in found.test]


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, 2)
    first = open_folder(tmp_path, 0.5).images("train", 8, 8)
    monkeypatch.setattr(folders, "read_fitted", None)
    again = open_folder(tmp_path, 0.5).images("train", 8, 8)
    assert (first.pixels == again.pixels).all() and first.digest == again.digest
    draw("ripe", 77).save(open_folder(tmp_path, 0.5).training[0][0])
    with pytest.raises(TypeError):
        open_folder(tmp_path, 0.5).images("train", 8, 8)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_scaling_and_cropping_are_torchvision_s(height: int, width: int, size: int) -> None:
    image = Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))
    theirs = v2.Compose([v2.Resize(round(size * 8 / 7)), v2.CenterCrop(size)])(image)
    wanted = image if image.size == (size, size) else theirs
    assert (fitted(image, size, size) == np.asarray(wanted).transpose(2, 0, 1)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40))
def test_every_image_covers_every_size(height: int, width: int, high: int, wide: int) -> None:
    bright = fitted(Image.new("RGB", (width, height), (255, 250, 245)), high, wide)
    assert bright.shape == (3, high, wide) and bright.min() == 245


def test_a_strip_is_not_scaled_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    strip = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3000, 1, 3), dtype=np.uint8))
    whole = v2.Compose([v2.Resize(18), v2.CenterCrop(16)])(strip)
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *rest: sizes.append(size) or resize(self, size, *rest)
    )
    assert (fitted(strip, 16, 16) == np.asarray(whole).transpose(2, 0, 1)).all()
    across = fitted(strip.transpose(Image.Transpose.ROTATE_90), 16, 16)
    assert (across == np.rot90(np.asarray(whole)).transpose(2, 0, 1)).all()
    assert len(sizes) == 2 and all(max(size) <= 65 * 18 for size in sizes)


@pytest.mark.parametrize("read", [lambda path: read_fitted(path, 16, 16), lambda path: read_image(path, 16)])
def test_sixteen_bits_are_taken_to_eight(read: Callable[[Path], Bytes], tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    for name in ("grey.png", "grey.ppm"):
        Image.fromarray(grey).save(tmp_path / name)
        assert (read(tmp_path / name) == np.arange(256).reshape(16, 16)).all()


def test_grey_values_without_a_white_are_refused() -> None:
    for values, what in ((np.float32(0.5), "that are floats"), (np.int32(70000), "from 70000 to 70000")):
        with pytest.raises(InputError, match=f"an image has grey values {what}; give 8 or 16 bits"):
            fitted(Image.fromarray(np.full((4, 4), values)), 4, 4)


def test_images_are_upright_and_of_three_colours(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: what is stored has to be turned by 90 degrees clockwise.
    Image.fromarray(ramp).save(tmp_path / "turned.png", exif=exif)
    upright = read_fitted(tmp_path / "turned.png", 24, 24)
    assert (upright == np.rot90(ramp, -1)).all() and upright.shape == (3, 24, 24)
    Image.fromarray(ramp).convert("RGBA").save(tmp_path / "clear.png")
    assert (read_fitted(tmp_path / "clear.png", 24, 24) == ramp).all()


def test_colours_are_mean_and_deviation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 7), dtype=np.uint8)
    pixels[:, 2] = 51
    found = colours_of(pixels)
    assert found.mean == pytest.approx((pixels / 255).mean((0, 2, 3)), abs=1e-6)
    assert found.std[:2] == pytest.approx((pixels / 255).std((0, 2, 3))[:2], abs=1e-6)
    assert found.std[2] == pytest.approx(1 / 255, abs=1e-6) and found.mean[2] == 0.2


def broken(folder: Path, *names: str) -> None:
    write_pictures(folder, 3)
    for name in names:
        path = folder / name
        path.write_bytes(path.read_bytes()[:200] if path.exists() else b"no image")


CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no folder": (lambda at: None, {}, "there is no folder"),
    "empty": (lambda at: at.mkdir(), {"test_share": 0.2}, "has no folders; a classifier needs"),
    "one class": (lambda at: write_pictures(at, 2, ("ripe",)), {"test_share": 0.2}, "has one class, 'ripe'"),
    "nothing held back": (lambda at: write_pictures(at, 2), {}, "say --test-share 0.2"),
    "held back twice": (
        lambda at: (write_pictures(at / "train", 2), write_pictures(at / "test", 1)),
        {"test_share": 0.2},
        "leave out --test-share",
    ),
    "no share": (lambda at: write_pictures(at, 2), {"test_share": 1.0}, "a share of 1.0 is not between 0 and 1"),
    "one image": (lambda at: write_pictures(at, 1), {"test_share": 0.2}, "the class 'ripe' of .* has one image"),
    "a class without images": (
        lambda at: (write_pictures(at, 2), (at / "rotten").mkdir()),
        {"test_share": 0.2},
        r"rotten' holds no images \(.jpg",
    ),
    "a class for tests alone": (
        lambda at: (write_pictures(at / "train", 2), write_pictures(at / "test", 1, ("ripe", "rotten"))),
        {},
        "has a class 'rotten' that is not trained on; there are ripe, unripe",
    ),
    "a broken image": (
        lambda at: broken(at, "ripe/0001.jpg"),
        {"test_share": 0.2},
        "cannot read .*0001.jpg' as an image",
    ),
    "no image": (lambda at: broken(at, "ripe/a.png"), {"test_share": 0.2}, "a.png' is no image, or is damaged"),
    "several broken images": (
        lambda at: broken(at, "ripe/0001.jpg", "unripe/0000.jpg", "unripe/a.png", "unripe/b.png"),
        {"test_share": 0.2},
        r"\d of the \d images cannot be read; the first: ",
    ),
    "a name that cannot be printed": (
        lambda at: (write_pictures(at, 2), (at / "a\nb").mkdir()),
        {"test_share": 0.2},
        "cannot be printed",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_one_line(case: str, tmp_path: Path) -> None:
    make, options, message = CASES[case]
    make(tmp_path / "photos")
    with pytest.raises(InputError, match=message) as caught:
        found = open_folder(tmp_path / "photos", **options)
        found.images("train", 8, 8), found.images("test", 8, 8)
    assert "\n" not in str(caught.value)


def test_more_images_than_the_limits_allow_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, 3)
    monkeypatch.setenv("RECONVENE_LIMITS", "array=1KiB")
    with pytest.raises(InputError, match="RECONVENE_LIMITS"):
        open_folder(tmp_path, 0.4).images("train", 16, 16)


def test_a_folder_of_images_is_normalised_as_it_says(tmp_path: Path) -> None:
    write_pictures(tmp_path, 4)
    batch = open_folder(tmp_path, 0.25).images("train", 16, 16).batch()
    assert torch.allclose(batch.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(batch.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)

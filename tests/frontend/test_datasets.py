"""Data sets are found, read and shuffled; every fault of a file is one line that names the file."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reconvene.frontend import datasets
from reconvene.frontend.datasets import cifar10, fashion_mnist, imagenet_samples, small_images
from reconvene.frontend.errors import InputError


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but the test's own, and a cache of its own."""
    work = tmp_path / "checkout"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("RECONVENE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "_DEBIAN_FASHION", tmp_path / "none")


def write_binary(folder: Path, count: int = 3) -> np.ndarray:
    """The six official files with `count` random images each; returns the records of the test file."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count)
    for name in (*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(records.tobytes())
    return records


def write_jpeg(path: Path, **changed: object) -> None:
    """A cifar10-jpeg.npz of four flat images, of grey 10, 20, 30, 40 and labels 0..3, with arrays changed."""
    files = []
    for grey in (10, 20, 30, 40):
        stream = io.BytesIO()
        Image.new("RGB", (32, 32), (grey,) * 3).save(stream, "JPEG", quality=90)
        files.append(stream.getvalue())
    shared = 200
    assert len({file[:shared] for file in files}) == 1
    arrays: dict[str, object] = {"header": np.frombuffer(files[0][:shared], np.uint8)}
    for split in ("train", "test"):
        arrays[f"{split}_body"] = np.frombuffer(b"".join(file[shared:] for file in files), np.uint8)
        arrays[f"{split}_len"] = np.array([len(file) - shared for file in files], np.uint16)
        arrays[f"{split}_y"] = np.arange(4, dtype=np.uint8)
    arrays.update(changed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]


def write_idx(path: Path, values: np.ndarray, *, zipped: bool = True) -> None:
    raw = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if zipped else raw)


def test_official_binary_files(tmp_path: Path) -> None:
    records = write_binary(tmp_path / "data" / "cifar-10-batches-bin")
    images = cifar10(tmp_path / "data")
    assert images.name == "CIFAR-10"
    np.testing.assert_array_equal(images.pixels.reshape(3, -1), records[:, 1:])
    np.testing.assert_array_equal(images.labels, [0, 1, 2])
    assert len(cifar10(tmp_path / "data" / "cifar-10-batches-bin", split="train")) == 15


def test_jpeg_file_is_shuffled_with_its_labels_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz")
    images = cifar10(tmp_path)
    assert images.labels.tolist() != [0, 1, 2, 3]
    assert sorted(images.labels.tolist()) == [0, 1, 2, 3]
    np.testing.assert_allclose(images.pixels.mean((1, 2, 3)), 10 * (images.labels + 1), atol=1)
    monkeypatch.setattr(datasets, "read_cifar_jpeg", None)
    again = cifar10(tmp_path)
    np.testing.assert_array_equal(again.pixels, images.pixels)


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz")
    images = cifar10(tmp_path)
    (cached,) = (tmp_path / "cache" / "reconvene").iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    np.testing.assert_array_equal(cifar10(tmp_path).pixels, images.pixels)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(cifar10(tmp_path)) == 4


@pytest.mark.parametrize("place", ["checkout/data", "shared/data", "named"])
def test_places_that_are_searched(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONVENE_DATA", str(tmp_path / "named"))
    write_binary(tmp_path / place / "cifar-10-batches-bin")
    assert len(cifar10()) == 3


def test_batches_are_normalized(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin")
    images = cifar10(tmp_path)
    batch = images.batch(1, 1)
    assert (batch.shape, batch.dtype) == ((1, 3, 32, 32), torch.float32)
    back = batch * torch.tensor(images.std).reshape(1, 3, 1, 1) + torch.tensor(images.mean).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(back[0] * 255, images.pixels[1], atol=1e-3)
    assert images.batch().shape[0] == 3


def test_missing_data_is_named_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"binary version.*RECONVENE_DATA.*Fashion-MNIST"):
        small_images()


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match=r"pickles.*binary version"):
        cifar10(tmp_path)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'validation'"):
        cifar10(tmp_path, split="validation")  # type: ignore[arg-type]


def cut_short(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])


def file_missing(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").unlink()


def label_too_large(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin", count=12)


def no_archive(tmp_path: Path) -> None:
    (tmp_path / "cifar10-jpeg.npz").write_bytes(b"not a zip file")


def half_an_archive(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz")
    path = tmp_path / "cifar10-jpeg.npz"
    path.write_bytes(path.read_bytes()[:500])


def a_pickled_array(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz", header=np.array([{}], dtype=object))


def array_missing(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz", test_len=None)


def lengths_that_do_not_fit(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz", test_len=np.array([1, 2, 3, 4], np.uint16))


def no_jpeg(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "cifar10-jpeg.npz", header=np.zeros(200, np.uint8))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_short, "cut short"),
        (file_missing, "cannot read .*test_batch"),
        (label_too_large, "label 11"),
        (no_archive, "NumPy archive"),
        (half_an_archive, "NumPy archive"),
        (a_pickled_array, "NumPy archive"),
        (array_missing, "test_len"),
        (lengths_that_do_not_fit, "do not fit"),
        (no_jpeg, "image 0"),
    ],
)
def test_damaged_cifar_is_one_line_naming_the_file(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        cifar10(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_is_padded_for_cifar_networks(zipped: bool, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    suffix = ".gz" if zipped else ""
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", grey, zipped=zipped)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", np.arange(5, dtype=np.uint8), zipped=zipped)
    images = small_images(tmp_path)
    assert images.name == "Fashion-MNIST" and images.pixels.shape == (5, 3, 32, 32)
    np.testing.assert_array_equal(images.pixels[:, 1, 2:30, 2:30], grey)
    assert not images.pixels[:, :, :2].any()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x00\x00\x08\x03" + b"\x00\x00\x00\x02" * 3, "cut short"),
        (b"hello", "no IDX file"),
        (b"", "no IDX file"),
        (b"\x1f\x8bnonsense", "cannot read"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x01\x07", "no Fashion-MNIST"),
    ],
)
def test_damaged_fashion_mnist_is_one_line_naming_the_file(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(raw)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(1, np.uint8), zipped=False)
    with pytest.raises(InputError, match=message) as caught:
        fashion_mnist(tmp_path)
    assert "t10k-images-idx3-ubyte" in str(caught.value)


class Spec:
    def __init__(self, folder: Path) -> None:
        self.submodule_search_locations = [str(folder)]


def test_imagenet_samples_carry_the_label_in_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for index, label in enumerate((243, 7)):
        Image.new("RGB", (64, 64), (127, 127, 255)).save(tmp_path / "data" / f"imagenet_{index:02}_{label}.png")
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: Spec(tmp_path))
    images = imagenet_samples(size=28)
    assert images.labels.tolist() == [243, 7]
    assert images.batch().shape == (2, 3, 28, 28)
    torch.testing.assert_close(images.batch()[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))


def test_photographs_that_are_missing_or_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install foolbox"):
        imagenet_samples()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imagenet_00_1.png").write_bytes(b"no image")
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: Spec(tmp_path))
    with pytest.raises(InputError, match=r"imagenet_00_1\.png"):
        imagenet_samples()
    (tmp_path / "data" / "imagenet_00_1.png").rename(tmp_path / "data" / "imagenet_00_cat.png")
    with pytest.raises(InputError, match="label"):
        imagenet_samples()

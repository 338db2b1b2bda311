"""Data sets are found, read and shuffled; every fault of a file is one line that names the file."""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data import datasets
from reconvene.frontend.data.datasets import (
    balanced,
    cifar10,
    fashion_mnist,
    find_dataset,
    imagenet_samples,
    small_images,
    tiny_imagenet,
)


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data but the test's own, and a cache of its own."""
    work = tmp_path / "checkout"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("RECONVENE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RECONVENE_CACHE", raising=False)
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


def write_pickles(folder: Path, protocol: int, *, text_keys: bool = True, **changed: object) -> np.ndarray:
    """The six official files of the Python version with 3 images each; returns the pixels of the test file."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 3072), dtype=np.uint8)
    batch: dict[object, object] = {
        "batch_label": "some",
        "labels": [7, 0, 2],
        "data": pixels,
        "filenames": ["a", "b", "c"],
    }
    batch |= changed
    if not text_keys:
        batch = {str(key).encode(): value for key, value in batch.items()}
    for name in (*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    return pixels


@pytest.mark.parametrize(("protocol", "text_keys"), [(3, True), (3, False), (4, True), (4, False)])
def test_official_pickles_are_read_without_unpickling(
    protocol: int, text_keys: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = write_pickles(tmp_path / "cifar-10-batches-py", protocol, text_keys=text_keys)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    images = cifar10(tmp_path)
    np.testing.assert_array_equal(images.pixels.reshape(3, -1), pixels)
    assert images.labels.tolist() == [7, 0, 2]
    assert len(cifar10(tmp_path, "train")) == 15


def test_official_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """As the published files are: protocol 2, byte strings written as BINSTRING."""
    pixels = np.random.default_rng(3).integers(0, 256, (2, 3072), dtype=np.uint8)

    def string(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    head = b"\x80\x02}q\x01("
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02(cnumpy\nndarray\nq\x03K\x00tRq\x04(K\x01" + string(
        pixels.tobytes()
    )
    labels = string(b"labels") + b"q\x05]q\x06(K\x09K\x04e"
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(head + string(b"data") + array + b"tb" + labels + string(b"x") + b"K\x07u.")
    images = cifar10(tmp_path)
    np.testing.assert_array_equal(images.pixels.reshape(2, -1), pixels)
    assert images.labels.tolist() == [9, 4]


def test_pickles_that_would_run_something_run_nothing(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    bad = tmp_path / "cifar-10-batches-py" / "test_batch"
    bad.write_bytes(f"cos\nsystem\n(S'touch {tmp_path / 'ran'}'\ntR.".encode())
    with pytest.raises(InputError, match=r"not laid out.*binary version"):
        cifar10(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("changed", [{"labels": [7, 0]}, {"labels": [7, 0, 12]}, {"labels": []}, {"data": b"x" * 9000}])
def test_pickles_that_do_not_fit_are_refused(changed: dict[str, object], tmp_path: Path) -> None:
    write_pickles(tmp_path / "cifar-10-batches-py", 3, **changed)
    with pytest.raises(InputError, match=r"not laid out|label 12"):
        cifar10(tmp_path)


def test_pickles_cut_short_are_refused(tmp_path: Path) -> None:
    write_pickles(tmp_path / "cifar-10-batches-py", 3)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cut short"):
        cifar10(tmp_path)


def write_tiny(folder: Path) -> None:
    """Two classes, two training images and one labelled validation image each."""
    for name in ("n1", "n2"):
        (folder / "train" / name / "images").mkdir(parents=True)
        for place in range(2):
            Image.new("RGB", (64, 64), (100 * int(name[1]),) * 3).save(
                folder / "train" / name / "images" / f"{place}.JPEG"
            )
    (folder / "val" / "images").mkdir(parents=True)
    for name, grey in (("a.JPEG", 200), ("b.JPEG", 100)):
        Image.new("L", (64, 64), grey).save(folder / "val" / "images" / name)
    (folder / "wnids.txt").write_text("n1\nn2\n")
    (folder / "val" / "val_annotations.txt").write_text("a.JPEG\tn2\t0\t0\t1\t1\nb.JPEG\tn1\t0\t0\t1\t1\n")


@pytest.mark.parametrize("split", ["train", "test"])
def test_tiny_imagenet_has_the_labels_of_its_lists(split: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny-imagenet-200")
    images = find_dataset("tiny-imagenet").load(tmp_path, split)
    assert images.pixels.shape == (4 if split == "train" else 2, 3, 64, 64)
    np.testing.assert_allclose(images.pixels.mean((1, 2, 3)), 100 * (images.labels + 1), atol=1)


def test_damaged_tiny_imagenet_is_one_line_naming_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-imagenet-200"
    write_tiny(folder)
    (folder / "val" / "images" / "a.JPEG").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.JPEG"):
        tiny_imagenet(tmp_path)
    (folder / "val" / "val_annotations.txt").write_text("a.JPEG\tn9\t0\n")
    with pytest.raises(InputError, match=r"val_annotations.*'a\.JPEG'"):
        tiny_imagenet(tmp_path)
    (folder / "wnids.txt").unlink()
    with pytest.raises(InputError, match=r"wnids\.txt"):
        tiny_imagenet(tmp_path)
    with pytest.raises(InputError, match="no Tiny ImageNet"):
        tiny_imagenet(tmp_path / "elsewhere")


def test_balanced_images_are_as_many_of_every_class(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin")
    images = cifar10(tmp_path, "train")
    inputs, labels = balanced(images, 4)
    assert inputs.shape == (12, 3, 32, 32) and torch.bincount(labels).tolist() == [4, 4, 4]
    with pytest.raises(InputError, match="fewer than 6"):
        balanced(images, 6)


def test_an_unknown_data_set_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'svhn'.*cifar10"):
        find_dataset("svhn")


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
        (no_archive, r"as \.npy or \.npz"),
        (half_an_archive, r"as \.npy or \.npz"),
        (a_pickled_array, "Python objects, which are pickles"),
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

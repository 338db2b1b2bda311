"""What a file claims is compared with limits before it is read, unpacked or allocated; who has larger ones says so."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from reconvene.frontend.base.array_files import load_arrays
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import read_text
from reconvene.frontend.base.json_text import parse_json
from reconvene.frontend.base.limits import VARIABLE, check_limit, limits
from reconvene.frontend.base.tensor_files import parse_tensors
from reconvene.frontend.data.image_files import read_idx, read_image, read_photograph


def npy(array: object, old: str = "", new: str = "") -> bytes:
    """A ``.npy`` file, with a text of its header replaced by another one."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=True)
    header, line, rest = stream.getvalue().partition(b"\n")
    changed = header.replace(old.encode(), new.encode()).rstrip() if old else header
    return changed.ljust(len(header)) + line + rest


def archive(*entries: tuple[str, bytes], packed: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as made:
        for name, content in entries:
            made.writestr(zipfile.ZipInfo(name), content, compress_type=made.compression)
    return stream.getvalue()


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_limits_are_raised_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " array=64GiB, text=1KiB,ratio=7")
    assert (limits().array, limits().text, limits().ratio) == (64 << 30, 1024, 7)
    check_limit("array", 64 << 30, "x")
    with pytest.raises(InputError, match=rf"^x claims 2 KiB, more than the limit of 1 KiB; .* {VARIABLE}=text=2048$"):
        check_limit("text", 2048, "x")


@pytest.mark.parametrize("text", ["array", "array=", "array=-1", "array=1e9", "other=3", "array=3GB", "=3"])
def test_settings_that_set_nothing_are_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InputError, match=f"{VARIABLE} holds .* sets no limit"):
        limits()


@pytest.mark.parametrize("packed", [False, True])
def test_plain_arrays_are_read_as_numpy_reads_them(packed: bool, tmp_path: Path) -> None:
    arrays = {"c": X, "fortran": np.asfortranarray(X), "scalar": np.float64(3), "none": np.zeros((0, 4), np.int8),
              "big": X.astype(">f4"), "bool": X > 2, "complex": X * 1j}  # fmt: skip
    path = tmp_path / "x.npz"
    (np.savez_compressed if packed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    found = load_arrays(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(found[name], array)
    (tmp_path / "x.npy").write_bytes(npy(np.asfortranarray(X)))
    np.testing.assert_array_equal(load_arrays(tmp_path / "x.npy")[None], X)


ARRAYS: dict[str, tuple[bytes, str]] = {
    "a pickle": (npy(np.array([{}, None], object)), "Python objects, which are pickles"),
    "texts": (npy(np.array(["a"])), "no numbers"),
    "records": (npy(np.zeros(2, [("a", "f4"), ("b", "f4")])), "header makes no sense|no numbers"),
    "a terabyte": (npy(X, "(2, 3)", "(549755813888, 3)"), "not what 24 bytes hold"),
    "a negative size": (npy(X, "(2, 3)", "(-2, -3)"), "not what 24 bytes hold"),
    "code for a shape": (npy(X, "(2, 3)", "exit(1)"), "header makes no sense"),
    "a nested type": (npy(X, "'<f4'", "('<f4', (99999999,))"), "header makes no sense|no numbers"),
    "more than it says": (npy(X) + b"\0", "not what 25 bytes hold"),
    "less than it says": (npy(X)[:-1], "not what 23 bytes hold"),
    "a header longer than the file": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr': '<f4'", "header makes no sense"),
    "another version": (b"\x93NUMPY\x09\x00" + npy(X)[8:], "header makes no sense"),
    "odd booleans": (npy(X[0] > 2)[:-1] + b"\7", "neither true nor false"),
    "no array at all": (b"1 2 3\n", "does not begin as NumPy's files"),
    "nothing": (b"", "does not begin as NumPy's files"),
    "a name twice": (archive(("x.npy", npy(X)), ("x.npy", npy(X))), "holds 'x.npy' twice"),
    "a name twice in effect": (archive(("x.npy", npy(X)), ("x", npy(X))), "two of its arrays have one name"),
    "another file within": (archive(("x.txt", b"text")), "does not begin as NumPy's files"),
    "a pickle within": (archive(("x.npy", npy(np.array([{}], object)))), "Python objects"),
    "no name": (archive(("", npy(X))), "its records make no sense"),
    "half an archive": (archive(("x.npy", npy(X)))[:-9], "damaged"),
    "a bomb": (archive(("x.npy", bytes(1 << 29)), packed=True), "claims to unpack .* to 512 MiB, more than 100 to 1"),
}


@pytest.mark.parametrize(("content", "message"), ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_that_claim_something_else_are_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_arrays(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_record_that_unpacks_to_more_than_it_says_is_damaged(tmp_path: Path) -> None:
    content = bytearray(archive(("x.npy", npy(np.zeros(1 << 20))), packed=True))
    directory = content.rindex(b"PK\1\2")
    content[directory + 24 : directory + 28] = struct.pack("<I", 64)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot read"):
        load_arrays(tmp_path / "x.npz")


def test_an_encrypted_record_and_a_long_directory_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(archive(("x.npy", npy(X))))
    directory = content.rindex(b"PK\1\2")
    for flags in (6, directory + 8):
        content[flags] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"'x\.npy' is encrypted"):
        load_arrays(tmp_path / "x.npz")
    (tmp_path / "y.npz").write_bytes(archive(*((f"{number}.npy", b"") for number in range(40))))
    monkeypatch.setenv(VARIABLE, "text=1KiB")
    with pytest.raises(InputError, match="its directory claims"):
        load_arrays(tmp_path / "y.npz")


def test_what_an_idx_file_declares_is_looked_at_before_it_is_unpacked(tmp_path: Path) -> None:
    def written(sizes: tuple[int, ...], values: bytes) -> Path:
        path = tmp_path / "x-idx.gz"
        path.write_bytes(gzip.compress(struct.pack(f">4B{len(sizes)}I", 0, 0, 8, len(sizes), *sizes) + values))
        return path

    np.testing.assert_array_equal(read_idx(written((2, 2), b"abcd")), [[97, 98], [99, 100]])
    for sizes, values, message in [
        ((1 << 31, 28, 28), b"", "claims .* TiB, more than the limit"),
        ((1 << 15, 1 << 15), b"", "claims to unpack .* to 1 GiB, more than 100 to 1"),
        ((4,), bytes(1 << 22), "declares 4 values and holds more"),
        ((5,), b"abcd", "declares 5 values and holds 4"),
    ]:
        with pytest.raises(InputError, match=message):
            read_idx(written(sizes, values))


def picture(kind: str, side: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (10, 20, 30)).save(stream, kind)
    return stream.getvalue()


def scanned(count: int) -> bytes:
    """A progressive JPEG whose first scan is there `count` times, and the others not."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", progressive=True)
    head, scan, *_ = stream.getvalue().split(b"\xff\xda")
    return head + (b"\xff\xda" + scan) * count + b"\xff\xd9"


def test_photographs_with_many_scans_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(scanned(100))
    assert read_photograph(tmp_path / "x.jpg", 7).shape == (3, 7, 7)


def test_safetensors_of_too_many_and_of_odd_booleans(monkeypatch: pytest.MonkeyPatch) -> None:
    content = save({"x": np.array([True, False, True])})
    assert parse_tensors(content)[0]["x"].tolist() == [True, False, True]
    with pytest.raises(ValueError, match="'x' holds booleans that are neither true nor false"):
        parse_tensors(content[:-1] + b"\2")
    monkeypatch.setenv(VARIABLE, "records=1")
    with pytest.raises(InputError, match="its header claims 2 records"):
        parse_tensors(save({"x": np.ones(1), "y": np.ones(1)}))


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP"])
def test_images_of_plain_formats_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(picture(kind))
    assert read_image(tmp_path / "x", 8).reshape(3, 64).tolist() == [[10] * 64, [20] * 64, [30] * 64]
    assert read_photograph(tmp_path / "x", 7).shape == (3, 7, 7)


def test_an_image_cannot_start_a_program_or_claim_a_country(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.check_call", started)
    huge = b"P6\n100000 100000\n255\n"
    for content, message in [
        (picture("EPS"), "is no image, or is damaged; give one of JPEG, PNG, PPM, BMP, WEBP"),
        (b"", "is no image"),
        (b"P6\n1 100000\n255\n" + bytes(300000), "measures 1x100000; a side has 65536 pixels at most"),
        (picture("PNG").replace(b"\0\0\0\x08\0\0\0\x08", b"\0\1\0\1\0\0\0\1"), "as an image|measures 65537x1|no image"),
        (scanned(101), "has 101 scans, and no camera writes more than 100"),
        (huge, "claims 10000000000 pixels, more than the limit"),
        (picture("PNG")[:-36], "as an image"),
        (picture("PPM")[:-20], "as an image"),
        (b"P6\n-3 8\n255\n", "is no image"),
    ]:
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_photograph(tmp_path / "x.png", 7)


JSONS: dict[str, tuple[str | bytes, str]] = {
    "a key twice": ('{"a": {"b": 1, "c": 2, "b": 3}}', "it says 'b' twice"),
    "NaN": ("[NaN]", "NaN is no number"),
    "infinity": ("[-Infinity]", "no number"),
    "too deep": ("[" * 100_000, "nested too deeply"),
    "too deep, in objects": ('{"a":' * 100_000, "nested too deeply"),
    "many digits": ("1" * 5000, "digits"),
    "another encoding": ('{"a": 1}'.encode("utf-16"), "utf-8"),
}


@pytest.mark.parametrize(("text", "message"), JSONS.values(), ids=JSONS.keys())
def test_json_says_each_thing_once_in_json(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_own_figures_may_be_infinite() -> None:
    assert parse_json('{"loss": Infinity}', nonfinite=True) == {"loss": float("inf")}


def test_long_texts_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.json").write_text("[" + " " * 2000 + "]")
    monkeypatch.setenv(VARIABLE, "text=1KiB")
    with pytest.raises(InputError, match=r"claims 1\.96 KiB, more than the limit of 1 KiB"):
        read_text(tmp_path / "x.json")


def with_header(change: Callable[[str], str]) -> bytes:
    content = save({"a": X, "b": X}, {"who": "us"})
    size = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + size].decode()).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def test_tensors_and_texts_of_a_safetensors_file() -> None:
    tensors, texts = parse_tensors(with_header(str))
    assert texts == {"who": "us"} and {name: value.shape for name, value in tensors.items()} == {
        "a": (2, 3),
        "b": (2, 3),
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"b"', '"a"'),
        lambda text: text.replace("[24,48]", "[0,24]"),
        lambda text: text.replace("[24,48]", "[24,480]"),
        lambda text: text.replace("[2,3]", "[2000000000000,3]"),
        lambda text: text.replace("F32", "F99"),
        lambda text: json.dumps([text]),
        lambda text: "[" * 100_000,
    ],
    ids=["a name twice", "overlapping", "beyond", "a terabyte", "no type", "no object", "too deep"],
)
def test_safetensors_that_claim_something_else_are_refused(change: Callable[[str], str]) -> None:
    with pytest.raises(ValueError):
        parse_tensors(with_header(change))
    with pytest.raises(ValueError, match="no header"):
        parse_tensors(b"\xff" * 8 + b"{}")


@pytest.mark.parametrize(
    "before", [b"", b"#!/bin/sh\n", archive(("x.npy", npy(X + 1)))], ids=["nothing", "a script", "another"]
)
@pytest.mark.parametrize("after", [b"", b"\0", b"PK\5\6" + bytes(18)], ids=["nothing", "a byte", "an end"])
def test_an_archive_is_the_whole_file(before: bytes, after: bytes, tmp_path: Path) -> None:
    """Else one reader takes the directory at the place that the end names, and another the one before the end."""
    (tmp_path / "x.npz").write_bytes(before + archive(("x.npy", npy(X))) + after)
    if not before and not after:
        np.testing.assert_array_equal(load_arrays(tmp_path / "x.npz")["x"], X)
        return
    with pytest.raises(InputError):
        load_arrays(tmp_path / "x.npz")


def test_an_end_that_is_cut_off_stands_for_none_before_it(tmp_path: Path) -> None:
    content = archive(("x.npy", npy(X)))
    comment = b"some text PK\5\6"
    (tmp_path / "x.npz").write_bytes(content[:-2] + struct.pack("<H", len(comment)) + comment)
    with pytest.raises(InputError, match="its end is cut off"):
        load_arrays(tmp_path / "x.npz")


def test_long_forms_of_an_end_agree_with_the_short_one(tmp_path: Path) -> None:
    content = archive(("x.npy", npy(X)))
    end = content.rindex(b"PK\5\6")
    size, place = struct.unpack_from("<II", content, end + 12)
    for said, where, good in [(place, end, True), (place - 1, end, False), (place, end - 1, False)]:
        long = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, said)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, where, 1)
        (tmp_path / "x.npz").write_bytes(content[:end] + long + locator + content[end:])
        if good:
            np.testing.assert_array_equal(load_arrays(tmp_path / "x.npz")["x"], X)
        else:
            with pytest.raises(InputError, match="its directory is not where its end says"):
                load_arrays(tmp_path / "x.npz")

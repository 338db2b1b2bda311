"""Files kept on disk: whole or not at all, and the least recently used go first."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene.frontend.base.file_cache import FileCache

FILES = {"a.o": b"\x00code", "model.so": bytes(range(256))}


def kept(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def age(folder: Path, key: str, seconds: int) -> None:
    os.utime(folder / f"{key}.zip", (seconds, seconds))


def test_what_was_put_is_got(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "new" / "folder", 1 << 20)
    assert cache.get("one") is None
    cache.put("one", FILES)
    assert cache.get("one") == FILES
    cache.put("one", {"b": b""})
    assert cache.get("one") == {"b": b""}
    cache.drop("one")
    cache.drop("one")
    assert cache.get("one") is None


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 1 << 20)
    for key in "abc":
        cache.put(key, {"file": bytes(1000)})
    each = (tmp_path / "a.zip").stat().st_size
    for number, key in enumerate("abc"):
        age(tmp_path, key, 1000 + number)
    assert cache.get("a") is not None  # now the last one used
    FileCache(tmp_path, 3 * each).put("d", {"file": bytes(1000)})
    assert kept(tmp_path) == {"a", "c", "d"}


def test_what_was_left_behind_goes_too(tmp_path: Path) -> None:
    left = tmp_path / ".half-written.zip"
    left.write_bytes(bytes(5000))
    os.utime(left, (1000, 1000))
    FileCache(tmp_path, 4000).put("a", {"file": bytes(1000)})
    assert kept(tmp_path) == {"a"}


def test_too_much_is_not_kept(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 2000)
    cache.put("small", {"file": bytes(1000)})
    cache.put("large", {"one": bytes(1500), "two": bytes(1500)})
    assert cache.get("large") is None and cache.get("small") is not None


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_entry_is_none_or_unharmed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = FileCache(folder, 1 << 20)
    cache.put("one", FILES)
    path = folder / "one.zip"
    contents = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        contents = contents[: data.draw(st.integers(0, len(contents) - 1))]
    else:
        contents[data.draw(st.integers(0, len(contents) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(contents)
    found = cache.get("one")
    # Names are not under a checksum; whoever asks for a file by its name then finds none.
    assert found is None or all(FILES[name] == found[name] for name in FILES.keys() & found.keys())


def test_another_users_files_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileCache(tmp_path, 1 << 20)
    cache.put("one", FILES)
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "one.zip").stat().st_uid + 1)
    assert cache.get("one") is None


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = FileCache(blocked / "folder", 1 << 20)
    cache.put("one", FILES)
    assert cache.get("one") is None


def test_many_at_once(tmp_path: Path) -> None:
    """Writers, readers and evictions in each other's way: what is found is always whole."""

    def work(number: int) -> list[dict[str, bytes] | None]:
        cache = FileCache(tmp_path, 8000)
        found = []
        for turn in range(30):
            key = str((number + turn) % 5)
            cache.put(key, {"file": key.encode() * 2000})
            found.append(cache.get(key))
        return [entry for entry in found if entry is not None]

    with ThreadPoolExecutor(4) as pool:
        results = [entry for entries in pool.map(work, range(4)) for entry in entries]
    assert results
    assert all(entry is not None and len(set(entry["file"])) == 1 and len(entry["file"]) == 2000 for entry in results)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 8000 + 2500

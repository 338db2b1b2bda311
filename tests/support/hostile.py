"""Files that show one thing to one reader and another to the next."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["split_archive"]

_END = struct.Struct("<4sHHHHIIH")


class _Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.marker),)


def split_archive(source: Path, target: Path, marker: Path) -> None:
    """A zip file with two directories: Python finds the tensors of `source`, torch a pickle that makes `marker`.

    The record at the end says how long the directory is and where. Python goes back from the end by the length, and
    takes what lies before for something else in front of the archive; torch goes to the place.
    """
    evil, good = _archive(source, marker), _archive(source, None)
    evil_body, evil_directory = _parts(evil)
    good_body, good_directory = _parts(good)
    missing = len(evil_directory) - len(good_directory)
    assert missing >= 0
    # Python adds to each place how far the second directory lies behind the first.
    moved = _moved(good_directory, len(evil_body) - len(good_body), missing)
    count = sum(1 for _ in _entries(evil_directory))
    end = _END.pack(b"PK\5\6", 0, 0, count, count, len(evil_directory), len(evil_body), 0)
    target.write_bytes(evil_body + evil_directory + good_body + moved + end)


def _archive(source: Path, marker: Path | None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(buffer, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            content = old.read(name)
            if marker is not None and name.endswith("weights_config.json"):
                config = json.loads(content)
                for entry in config["config"].values():
                    entry["use_pickle"] = True
                content = json.dumps(config).encode()
            if marker is not None and "/data/weights/weight_" in name:
                pickled = io.BytesIO()
                torch.save(_Touch(marker), pickled)
                content = pickled.getvalue()
            new.writestr(zipfile.ZipInfo(name), content)
        if marker is not None:
            # Room, so that no place in the other directory would have to be negative.
            new.writestr(zipfile.ZipInfo(f"{root}/extra/room"), bytes(1 << 16))
    return buffer.getvalue()


def _parts(raw: bytes) -> tuple[bytes, bytes]:
    *_, size, start, _ = _END.unpack(raw[-_END.size :])
    return raw[:start], raw[start : start + size]


def _entries(directory: bytes) -> Any:
    at = 0
    while at < len(directory):
        yield at
        at += 46 + sum(struct.unpack("<HHH", directory[at + 28 : at + 34]))


def _moved(directory: bytes, by: int, longer: int) -> bytes:
    """The directory with all places moved, and a comment at its last entry that makes it `longer`."""
    made = bytearray(directory)
    last = 0
    for last in _entries(directory):
        (place,) = struct.unpack("<I", made[last + 42 : last + 46])
        struct.pack_into("<I", made, last + 42, place + by)
    struct.pack_into("<H", made, last + 32, longer)
    return bytes(made) + b"c" * longer

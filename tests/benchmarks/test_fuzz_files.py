"""The program that changes files: the same for the same seed, something else than the file, and no fault passed over."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from attacks.file_kinds import Kind
from attacks.file_mutations import Mutation, binary, in_json, in_npy, in_safetensors, in_text, in_zip
from fuzz_files import Seen, judged, read_apart
from safetensors.numpy import save

from reconvene.frontend.base.errors import InputError

CODE = "print(1)"


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("a/x.json", '{"a": [1, 2, {"b": "c"}]}')
        made.writestr("a/y", bytes(100))
    return stream.getvalue()


def array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 3), np.float32))
    return stream.getvalue()


MUTATIONS: dict[str, tuple[Mutation, bytes]] = {
    "bytes": (binary, bytes(range(200))),
    "JSON": (in_json(CODE), b'{"a": [1, 2, {"b": "c"}], "d": null}'),
    "text": (in_text(CODE), b"a = 1\nb = [2]\n"),
    "npy": (in_npy(CODE), array()),
    "safetensors": (in_safetensors(CODE), save({"a": np.zeros(3, np.float32)})),
    "zip": (in_zip(lambda name: in_json(CODE) if name.endswith("json") else binary, CODE), archive()),
}


@pytest.mark.parametrize(("mutation", "content"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_a_seed_says_how_a_file_is_changed(mutation: Mutation, content: bytes) -> None:
    made = [mutation(random.Random(seed), content) for seed in range(60)]
    again = [mutation(random.Random(seed), content) for seed in range(60)]
    assert made == again
    assert len(set(made)) > 30 and sum(changed != content for changed in made) > 50


def test_only_one_line_and_a_code_for_people_is_no_fault(tmp_path: Path) -> None:
    marker = tmp_path / "MARKER"
    assert judged(0, "", marker) is None
    assert judged(2, "error: it is damaged\n", marker) is None
    assert judged(2, "", marker) == "not one line"
    assert judged(2, "error: a\nb\n", marker) == "not one line"
    assert judged(70, "internal error\n", marker) == "internal error"
    assert judged(-9, "", marker) == "hang"
    assert judged(2, "error: there is not enough memory here: 9 TiB\n", marker) == "memory"
    assert judged(-11, "", marker) == "ended with -11"
    assert judged(1, "Traceback (most recent call last)\n", marker) == "traceback"
    marker.touch()
    assert judged(0, "", marker) == "code of the file was run"


def test_a_reader_has_a_process_of_its_own(tmp_path: Path) -> None:
    def reads(path: Path) -> int:
        text = (path / "a").read_text()
        if text == "refused":
            raise InputError("it is damaged")
        if text == "fault":
            raise KeyError(text)
        if text == "much":
            return len(bytearray(1 << 40))
        return 0

    place = tmp_path / "place"
    place.mkdir()
    found = {}
    for text in ("fine", "refused", "fault", "much"):
        (place / "a").write_text(text)
        found[text] = read_apart(Kind("a", {}, "a", binary, reads), place)[:2]
    assert found["fine"] == (0, "")
    assert found["refused"] == (2, "error: it is damaged\n")
    assert found["fault"][0] == 70
    assert found["much"][0] == 2 and "not enough memory" in found["much"][1]


def test_what_several_processes_saw_is_added_up() -> None:
    seen = Seen()
    for slowest in (2.0, 1.0):
        part = Seen(slowest=slowest)
        part.refused["npz"] += 2
        part.faults["hang"] += 1
        part.peak_mib["npz"] = int(10 * slowest)
        seen.add(json.loads(json.dumps(vars(part))))
    assert (seen.refused["npz"], seen.faults["hang"], seen.peak_mib, seen.slowest) == (4, 2, {"npz": 20}, 2.0)

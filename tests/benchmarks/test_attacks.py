"""The programs that attack: what they change is changed, the same for the same seed, and what they count is what is there."""

from __future__ import annotations

import json
import random

from attack_boards import sanitisers
from attacks.edits import edited_bytes, edited_json, edited_text

VALUE = {"name": "x", "shape": [1, 3, 8], "nested": {"offset": 64, "certificate": None, "scale": 0.5}}


def test_edits_are_many_and_leave_the_original() -> None:
    before = json.dumps(VALUE)
    found = [json.dumps(edited_json(VALUE, random.Random(seed))) for seed in range(300)]
    assert found == [json.dumps(edited_json(VALUE, random.Random(seed))) for seed in range(300)]
    assert json.dumps(VALUE) == before and len(set(found)) > 100
    assert sum(text == before for text in found) < 60  # Two that were exchanged may be one.
    texts = [edited_text(VALUE, random.Random(seed)) for seed in range(200)]
    assert len(set(texts)) > 80 and all(text != json.dumps(VALUE, indent=2).encode() for text in texts)
    assert edited_bytes(b"abc", random.Random(0)) != b"abc"


def test_reports_are_told_from_wants_of_memory() -> None:
    want = b"==1==ERROR: AddressSanitizer: allocator is out of memory trying to allocate 0x7b77c684a68a5263 bytes"
    frames = [b"    #0 0x7f in operator new(unsigned long)", b"    #1 0x7f  (/lib/libtvm_runtime.so+0x25bcb1)"]
    overflow = b"==1==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x1"
    assert sanitisers([want, *frames, b"reconvene-server: stopped"]) == ([], 1)
    assert sanitisers([want, b"    #1 0x7f in Greeting::step"]) == ([want.decode()], 0)
    assert sanitisers([overflow, *frames, b"x.h:1:2: runtime error: shift"]) == (
        [overflow.decode(), "x.h:1:2: runtime error: shift"],
        0,
    )

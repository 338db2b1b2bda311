"""The programs that attack: what they change is changed, the same for the same seed, and what they count is what is there."""

from __future__ import annotations

import json
import random
import struct

from attack_boards import reports
from attacks import messages
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


def test_reports_are_told_with_their_processes() -> None:
    overflow = b"==17==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x1"
    frames = [b"READ of size 8", b"    #0 0x7f in Arena::allocate /home/x/tvm/src/arena.h:12", b""]
    lines = [
        b"reconvene-server: stopped",
        overflow,
        *frames,
        b"/home/x/a.h:1:2: runtime error: shift",
        b"==17==ABORTING",
    ]
    (process, first), (unknown, second) = reports(lines)
    assert (process, unknown) == (17, 0)
    assert (
        first == f"{overflow.decode()} #0 0x7f in Arena::allocate arena.h:12"
        and second == "a.h:1:2: runtime error: shift"
    )


def test_messages_are_written_as_the_clients_are_and_changed_in_one_place() -> None:
    first = messages.first_message()
    assert messages.encoded(first) == struct.pack("<QiQ5si", 21, 2, 5, b"0.8.0", 0)
    source = random.Random(0)
    for _ in range(200):
        parts = messages.message(source, [(0x7F00, 1)])
        whole = messages.encoded(parts)
        assert struct.unpack_from("<Q", whole)[0] == len(whole) - 8
        named = struct.pack("<Q", 0x7F00)
        assert (named in whole) == any(part.bytes == named for part in parts)
        if any(part.what == "address" for part in parts):
            assert len(messages.changed(parts, source, addresses=True)) == len(whole)
    found = {messages.changed(first, random.Random(seed)) for seed in range(200)}
    assert len(found) > 60 and found == {messages.changed(first, random.Random(seed)) for seed in range(200)}

"""Signatures in minisign's format: what minisign wrote is taken, what was changed is not, and keys are what they should be."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconvene.backends.bundles.signing import SIGNATURE, PublicKey, read_public_key, sign, verify, write_keys
from reconvene.frontend.base.errors import InputError

pytest.importorskip("cryptography", reason="pip install '.[sign]'")

KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
THEIRS = """untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1556193335\tfile:test
y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==
"""
"""Of the text ``test``, by minisign itself."""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    (tmp_path / "SHA256SUMS").write_text("test")
    (tmp_path / SIGNATURE).write_text(THEIRS)
    return tmp_path


@pytest.fixture
def ours(tmp_path: Path) -> tuple[Path, PublicKey]:
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  manifest.json\n")
    key = write_keys(tmp_path / "key")
    assert sign(tmp_path, tmp_path / "key") == key
    return tmp_path, key


def test_what_minisign_signed(theirs: Path) -> None:
    key = read_public_key(KEY)
    assert str(key) == "E7620F1842B4E81F"
    assert verify(theirs, key) == ("timestamp:1556193335\tfile:test", {})
    (theirs / "their.pub").write_text(f"untrusted comment: minisign public key {key}\n{KEY}\n")
    assert read_public_key(theirs / "their.pub") == key
    (theirs / "SHA256SUMS").write_text("Test")
    with pytest.raises(InputError, match="is not of what is there; do not use it"):
        verify(theirs, key)


def test_what_we_sign(ours: tuple[Path, PublicKey]) -> None:
    folder, key = ours
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert read_public_key(folder / "key.pub") == key
    found = verify(folder, key)
    assert found.comment.startswith("timestamp:") and found.sums == {"manifest.json": "0" * 64}
    with pytest.raises(InputError, match=f"was signed with the key {key}, not E7620F1842B4E81F; do not use it"):
        verify(folder, read_public_key(KEY))
    with pytest.raises(InputError, match="is not of what is there"):
        verify(folder, PublicKey(key.number, bytes(32)))
    with pytest.raises(InputError, match=r"there is a key '.*' already"):
        write_keys(folder / "key")


def line(number: int, change: Callable[[str], str]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        lines = (folder / SIGNATURE).read_text().splitlines()
        lines[number] = change(lines[number])
        (folder / SIGNATURE).write_text("\n".join(lines) + "\n")

    return edit


def flipped(place: int) -> Callable[[str], str]:
    def flip(text: str) -> str:
        contents = bytearray(base64.b64decode(text))
        contents[place] ^= 1
        return base64.b64encode(contents).decode()

    return flip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / SIGNATURE).unlink(), "nobody says who made it"),
        (lambda f: ((f / SIGNATURE).unlink(), os.mkfifo(f / SIGNATURE)), "no regular file"),
        (lambda f: (f / SIGNATURE).write_bytes(b"\xff" * 200), "not what minisign writes"),
        (lambda f: (f / SIGNATURE).write_text("untrusted comment: x\n" * 4000), "not what minisign writes"),
        (lambda f: (f / "SHA256SUMS").unlink(), "cannot read SHA256SUMS"),
        (line(0, lambda text: "comment"), "not what minisign writes"),
        (line(1, lambda text: text[:-4]), "not what minisign writes"),
        (line(1, lambda text: "*" + text[1:]), "not what minisign writes"),
        (line(1, flipped(0)), "no signature of minisign's"),
        (line(1, flipped(5)), "was signed with the key"),
        (line(1, flipped(20)), "is not of what is there"),
        (line(2, lambda text: text + "0"), "is not of what is there"),
        (line(2, lambda text: "other comment: 0"), "no signature of minisign's"),
        (line(3, flipped(0)), "is not of what is there"),
        # The letters for a signature of the file itself, where its checksum was signed.
        (line(1, lambda text: "RW" + text[2:]), "is not of what is there"),
    ],
)
def test_signatures_that_are_none(ours: tuple[Path, PublicKey], change: Callable[[Path], object], message: str) -> None:
    folder, key = ours
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        verify(folder, key)
    assert "\n" not in str(caught.value)


def test_what_was_signed_must_be_checksums(ours: tuple[Path, PublicKey]) -> None:
    folder, key = ours
    (folder / "SHA256SUMS").write_text("no checksum\n")
    sign(folder, folder / "key")
    with pytest.raises(InputError, match="are no checksums: line 1 is no checksum of a file; write it again"):
        verify(folder, key)


@pytest.mark.parametrize(("operations", "memory"), [(0, 0), (1 << 63, 0), (0, 1 << 63), (1 << 60, 1 << 63)])
def test_work_that_no_key_asks_for(ours: tuple[Path, PublicKey], operations: int, memory: int) -> None:
    folder, _ = ours
    contents = bytearray(base64.b64decode((folder / "key").read_text().splitlines()[1]))
    contents[2:4], contents[38:54] = b"Sc", operations.to_bytes(8, "little") + memory.to_bytes(8, "little")
    (folder / "key").write_text(f"untrusted comment: x\n{base64.b64encode(contents).decode()}\n")
    with pytest.raises(InputError, match="asks for more work than minisign's do"):
        sign(folder, folder / "key", "password")


def test_secret_keys_with_a_password(ours: tuple[Path, PublicKey]) -> None:
    folder, key = ours
    contents = base64.b64decode((folder / "key").read_text().splitlines()[1])
    salt, operations, memory = b"s" * 32, 524288, 16777216
    # The numbers of libsodium's interactive use: 2^14 rounds, blocks of 8.
    stream = hashlib.scrypt(b"secret", salt=salt, n=1 << 14, r=8, p=1, maxmem=1 << 26, dklen=104)
    hidden = bytes(one ^ other for one, other in zip(contents[54:], stream, strict=True))
    numbers = operations.to_bytes(8, "little") + memory.to_bytes(8, "little")
    kept = base64.b64encode(b"EdScB2" + salt + numbers + hidden).decode()
    (folder / "kept").write_text(f"untrusted comment: minisign encrypted secret key\n{kept}\n")
    assert sign(folder, folder / "kept", "secret") == key
    for password, message in ((None, "has a password; sign with minisign -S"), ("Secret", "its password is another")):
        with pytest.raises(InputError, match=message):
            sign(folder, folder / "kept", password)


@pytest.mark.parametrize("text", ["", "untrusted comment: x\nRWQf\n", "untrusted comment: x\n" + "A" * 212 + "\n"])
def test_secret_keys_that_are_none(ours: tuple[Path, PublicKey], text: str) -> None:
    folder, _ = ours
    (folder / "none").write_text(text)
    with pytest.raises(InputError, match="minisign"):
        sign(folder, folder / "none")
    with pytest.raises(InputError, match="minisign"):
        read_public_key(folder / "none")

"""Signatures of bundles and portfolios, in minisign's format: who made them, where checksums only tell that they are whole.

What is signed is ``SHA256SUMS``, which has the checksum of every other file; the signature lies beside it. minisign itself
reads and writes the same: ``minisign -S -m bundle/SHA256SUMS``, ``minisign -V -m bundle/SHA256SUMS -p KEY.pub``.

A key or signature is lines of base64 under a comment. Bytes: two letters, the key's number (8), then the public key (32) or the
signature (64) of Ed25519; of a signature by ``ED`` what is signed is the BLAKE2b-512 of the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from ...frontend.base.errors import InputError
from ...frontend.base.extras import install_command
from ...frontend.base.files import SUMS, parse_sums, read_regular, write_text

__all__ = ["SIGNATURE", "PublicKey", "Signed", "read_public_key", "sign", "verify", "write_keys"]

SIGNATURE = f"{SUMS}.minisig"

_UNTRUSTED, _TRUSTED = "untrusted comment: ", "trusted comment: "
_ED25519, _HASHED, _BLAKE2B = b"Ed", b"ED", b"B2"
_NO_PASSWORD = bytes(2)
_SCRYPT = b"Sc"
_MAX_FILE_BYTES = 8192
"""Bytes of a file with a key or signature."""


class PublicKey(NamedTuple):
    """What a signature is checked with: the key's number, and the key."""

    number: bytes
    key: bytes

    def __str__(self) -> str:
        return self.number[::-1].hex().upper()


class Signed(NamedTuple):
    """What a signature is of: the comment that was signed too, and the SHA-256 of each file that ``SHA256SUMS`` lists."""

    comment: str
    sums: dict[str, str]


def read_public_key(text_or_path: str | os.PathLike[str]) -> PublicKey:
    """The key in a file of minisign's, or the key itself, as its one line of base64.

    Raises:
        InputError: it is neither.
    """
    text = os.fspath(text_or_path)
    line = text if len(text) == 56 and text.startswith("RW") else _lines(Path(text), 2)[1]
    found = _decoded(line, 42, f"the public key '{text}'")
    if found[:2] != _ED25519:
        raise InputError(f"'{text}' is no public key of minisign's; give the .pub file")
    return PublicKey(found[2:10], found[10:])


def verify(folder: Path, key: PublicKey) -> Signed:
    """Checks that ``SHA256SUMS`` of `folder` was signed with `key`. Returns what was signed, from the bytes that were checked.

    That the files have these checksums is for `open_bundle` and its like to check, who take the manifest's from here: what
    lies in the folder may be another one by then.

    Raises:
        InputError: there is no signature, it is damaged, by another key, or of something else.
    """
    path = folder / SIGNATURE
    first, line, comment, last = _lines(path, 4, within=folder)
    found, whole = _decoded(line, 74, f"'{path}'"), _decoded(last, 64, f"'{path}'")
    if found[:2] not in (_ED25519, _HASHED) or not comment.startswith(_TRUSTED) or not first.startswith(_UNTRUSTED):
        raise InputError(f"'{path}' is no signature of minisign's; sign the folder again")
    if found[2:10] != key.number:
        raise InputError(f"'{folder}' was signed with the key {PublicKey(found[2:10], b'')}, not {key}; do not use it")
    told = comment.removeprefix(_TRUSTED)
    try:
        message = read_regular(folder / SUMS, within=folder, limit="text")
    except OSError as error:
        raise InputError(f"cannot read {SUMS} of '{folder}': {error.strerror}; copy it again") from None
    signed = hashlib.blake2b(message).digest() if found[:2] == _HASHED else message
    for signature, contents in ((found[10:], signed), (whole, found[10:] + told.encode())):
        if not _fits(key.key, signature, contents):
            raise InputError(f"the signature of '{folder}' is not of what is there; do not use it")
    try:
        return Signed(told, parse_sums(message.decode("utf-8")))
    except ValueError as error:
        raise InputError(f"what was signed in '{folder}' are no checksums: {error}; write it again") from None


def sign(folder: Path, secret_key: Path, password: str | None = None) -> PublicKey:
    """Signs ``SHA256SUMS`` of `folder` with minisign's secret key in a file, into `SIGNATURE` beside it.

    Args:
        password: of the key, if it has one.

    Raises:
        InputError: the folder has no checksums, the key cannot be read, or its password is another one.
    """
    number, seed = _secret(secret_key, password)
    try:
        message = read_regular(folder / SUMS, within=folder, limit="text")
    except OSError as error:
        raise InputError(f"cannot read {SUMS} of '{folder}': {error.strerror}; give a bundle's folder") from None
    key = _ed25519().Ed25519PrivateKey.from_private_bytes(seed)
    signature = key.sign(hashlib.blake2b(message).digest())
    told = f"timestamp:{int(time.time())}\tfile:{SUMS}\thashed"
    whole = key.sign(signature + told.encode())
    public = PublicKey(number, key.public_key().public_bytes_raw())
    write_text(
        folder / SIGNATURE,
        f"{_UNTRUSTED}signature by reconvene\n{_encoded(_HASHED + number + signature)}\n{_TRUSTED}{told}\n{_encoded(whole)}\n",
    )
    return public


def write_keys(path: Path) -> PublicKey:
    """Makes a pair of keys: `path` for signing, which has no password and nobody else may read, and ``PATH.pub``.

    Raises:
        InputError: one of them is there already, or cannot be written.
    """
    public_path = path.with_name(path.name + ".pub")
    if path.exists() or public_path.exists():
        raise InputError(f"there is a key '{path}' already; choose another name")
    key = _ed25519().Ed25519PrivateKey.generate()
    seed, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    number = os.urandom(8)
    check = hashlib.blake2b(_ED25519 + number + seed + public, digest_size=32).digest()
    secret = _ED25519 + _NO_PASSWORD + _BLAKE2B + bytes(32 + 8 + 8) + number + seed + public + check
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(f"{_UNTRUSTED}minisign secret key\n{_encoded(secret)}\n")
    except OSError as error:
        raise InputError(f"cannot write the key '{path}': {error.strerror}") from None
    found = PublicKey(number, public)
    write_text(public_path, f"{_UNTRUSTED}minisign public key {found}\n{_encoded(_ED25519 + number + public)}\n")
    return found


def _secret(path: Path, password: str | None) -> tuple[bytes, bytes]:
    """Number and seed of a secret key."""
    found = _decoded(_lines(path, 2)[1], 158, f"the secret key '{path}'")
    if found[:2] != _ED25519 or found[2:4] not in (_NO_PASSWORD, _SCRYPT) or found[4:6] != _BLAKE2B:
        raise InputError(f"'{path}' is no secret key of minisign's")
    contents = found[54:]
    if found[2:4] == _SCRYPT:
        if password is None:
            raise InputError(
                f"the secret key '{path}' has a password; sign with minisign -S -m {SUMS}, which asks for it"
            )
        contents = _opened(found, password.encode(), path)
    number, seed, public, check = contents[:8], contents[8:40], contents[40:72], contents[72:]
    if not hmac.compare_digest(check, hashlib.blake2b(_ED25519 + number + seed + public, digest_size=32).digest()):
        raise InputError(f"the secret key '{path}' is damaged, or its password is another one")
    return number, seed


def _opened(found: bytes, password: bytes, path: Path) -> bytes:
    """What a password keeps, by the cost that libsodium takes two numbers for."""
    salt, operations, memory = (
        found[6:38],
        int.from_bytes(found[38:46], "little"),
        int.from_bytes(found[46:54], "little"),
    )
    blocks, parallel = 8, 1
    if operations < memory // 32:
        exponent = (operations // (blocks * 4)).bit_length() - 1
    else:
        exponent = (memory // (blocks * 128)).bit_length() - 1
        parallel = min((operations // 4) >> max(exponent, 0), 0x3FFFFFFF) // blocks
    if not 10 <= exponent <= 21 or not 1 <= parallel <= 16:
        raise InputError(f"the secret key '{path}' asks for more work than minisign's do")
    room = 2 * 128 * blocks * (1 << exponent)
    stream = hashlib.scrypt(
        password, salt=salt, n=1 << exponent, r=blocks, p=parallel, maxmem=room, dklen=len(found) - 54
    )
    return bytes(one ^ other for one, other in zip(found[54:], stream, strict=True))


def _lines(path: Path, count: int, within: Path | None = None) -> list[str]:
    try:
        contents = read_regular(path, within=within, limit="text")
        lines = contents.decode().splitlines() if len(contents) <= _MAX_FILE_BYTES else []
    except FileNotFoundError:
        raise InputError(f"there is no '{path}', so nobody says who made it; have it signed") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from None
    except UnicodeDecodeError:
        lines = []
    if len(lines) != count or not lines[0].startswith(_UNTRUSTED):
        raise InputError(f"'{path}' is not what minisign writes")
    return lines


def _decoded(line: str, size: int, what: str) -> bytes:
    try:
        found = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != size:
        raise InputError(f"{what} is not what minisign writes")
    return found


def _encoded(contents: bytes) -> str:
    return base64.b64encode(contents).decode()


def _fits(key: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        _ed25519().Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise InputError(f"signatures need the package cryptography; run: {install_command('sign')}") from None
    return ed25519

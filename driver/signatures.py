"""``reconvene sign``, and ``--public-key`` of the verbs that run what somebody else may have made."""

from __future__ import annotations

from pathlib import Path

from ..backends.manifest import MANIFEST as BUNDLE
from ..backends.signing import SIGNATURE, read_public_key, sign, verify, write_keys
from ..frontend.errors import InputError
from ..frontend.files import read_sums, sha256
from .answer import Answer, files_line
from .portfolio.manifest import MANIFEST as PORTFOLIO
from .verbs import says

__all__ = ["sign_verb", "signed"]


def signed(folder: str, public_key: str | None) -> str:
    """`folder`, after it was found to be signed with `public_key` where one is given. Whoever opens it checks its files.

    Raises:
        InputError: it is not, or is no folder that can be.
    """
    if public_key is None:
        return folder
    key, path = read_public_key(public_key), Path(folder)
    if not path.is_dir():
        raise InputError(f"'{folder}' is no bundle and no portfolio, which are what is signed; leave out --public-key")
    verify(path, key)
    _check_listed(path)
    return folder


def sign_verb(folder: str | None, secret_key: Path | None, new_key: Path | None) -> Answer:
    """Signs a bundle or portfolio, or makes a pair of keys to do so."""
    if new_key is not None:
        if folder is not None or secret_key is not None:
            raise InputError("--new-key makes keys and signs nothing; sign afterwards, with --secret-key")
        made = write_keys(new_key)
        files = {"secret key": str(new_key), "public key": f"{new_key}.pub"}
        line = f"key {made}: keep {new_key} to yourself, and give {new_key}.pub to whoever runs your bundles"
        return Answer({"key": str(made), "files": files}, says(line, files_line(files)))
    if folder is None or secret_key is None:
        raise InputError("give a folder and --secret-key; --new-key FILE makes one")
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"there is no folder '{folder}'; give a bundle or a portfolio")
    _check_listed(path)
    key = sign(path, secret_key)
    files = {"signature": str(path / SIGNATURE)}
    return Answer({"key": str(key), "files": files}, says(f"signed with the key {key}", files_line(files)))


def _check_listed(folder: Path) -> None:
    """Raises InputError unless what is signed has the checksum of the manifest, which has those of all other files."""
    manifest = next((folder / name for name in (BUNDLE, PORTFOLIO) if (folder / name).exists()), None)
    if manifest is None:
        raise InputError(f"'{folder}' is no bundle and no portfolio; give the folder that was written")
    try:
        listed, found = read_sums(folder).get(manifest.name), sha256(manifest)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the checksums of '{folder}': {reason}; write it again") from None
    if listed != found:
        raise InputError(f"'{manifest.name}' in '{folder}' does not have its checksum; copy it again")
